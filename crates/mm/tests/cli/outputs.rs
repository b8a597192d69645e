//! Where results go: tried before the work, the same bytes from run to run, and an exit code that says
//! whether there are any.

use crate::common::{command, failure, success, trained_clip, write_config, write_png};
use std::path::{Path, PathBuf};

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The model of two steps.
    fn model(&self) -> String {
        trained_clip(self.folder.path(), &[])
    }
}

#[test]
fn a_result_that_cannot_be_written_is_reported_before_a_model_is_opened() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("there.png")).unwrap();
    std::fs::write(scene.path("file"), "").unwrap();
    let [folder, below, pdf] =
        ["there.png", "file/rows.safetensors", "heat.pdf"].map(|name| scene.text(name));
    let (config, file) = (write_config(scene.folder.path()), scene.text("file"));
    let set = "kind = 'emoji'";
    // There is no model either, which is not what the error says.
    let cases: [(&[&str], &str); 8] = [
        (&["embed", "--images", "none", "--out", &below], "File exists"),
        (&["embed", "--texts", "none", "--out", "rows.npy"], "name a file in .safetensors"),
        (&["attention", "none.png", "a cat", "--out", &folder], "it is a folder"),
        (&["attention", "none.png", "a cat", "--out", &pdf], "name a file in .png, .jpg, .jpeg or .webp"),
        (&["probe", "--train", "none", "--test", "none", "--out", &folder], "it is a folder"),
        (&["eval", config.to_str().unwrap(), "--report", "page.txt"], "name a file in .html or .htm"),
        (&["data", "shards", "--data", set, "--filter", "clip_score=0.2", "--out", &file], "it is a file"),
        (&["convert", "--to", &below], "Not a directory"),
    ];
    for (arguments, expected) in cases {
        let model = if arguments[0] == "convert" { "--from" } else { "--model" };
        let message = failure(&[arguments, &[model, "no/such/model"]].concat(), 1);
        assert!(message.contains("cannot write") && message.contains(expected), "{arguments:?}: {message}");
    }
    assert!(
        failure(&["data", "show", "--data", set, "--out", &below], 1)
            .contains("name a file in .html or .png")
    );
}

#[test]
fn a_failure_leaves_the_old_result_and_nothing_beside_it() {
    let scene = Scene::new();
    let old = scene.text("deep/down/rows.safetensors");
    failure(&["embed", "--model", "no/such/model", "--images", "none", "--out", &old], 1);
    std::fs::write(&old, "old").unwrap();
    failure(&["embed", "--model", "no/such/model", "--images", "none", "--out", &old], 1);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
    assert_eq!(std::fs::read_dir(scene.path("deep/down")).unwrap().count(), 1);
}

#[test]
fn the_same_images_give_the_same_bytes_and_pictures_have_the_format_of_their_names() {
    let scene = Scene::new();
    let model = scene.model();
    std::fs::create_dir(scene.path("images")).unwrap();
    for shade in 0..3 {
        write_png(&scene.path("images").join(format!("{shade}.png")), shade * 40);
    }
    let images = scene.text("images");
    let rows = |name: &str| {
        let out = scene.text(name);
        success(&["embed", "--model", &model, "--images", &images, "--out", &out]);
        std::fs::read(out).unwrap()
    };
    let first = rows("new/folder/0.safetensors");
    for again in 1..8 {
        assert_eq!(first, rows(&format!("{again}.safetensors")));
    }
    let image = scene.text("images/2.png");
    for (name, head) in
        [("heat.png", &b"\x89PNG"[..]), ("heat.JPG", &[0xff, 0xd8, 0xff]), ("heat.webp", b"RIFF")]
    {
        let out = scene.text(name);
        success(&["attention", "--model", &model, &image, "red heart", "--out", &out]);
        assert!(std::fs::read(out).unwrap().starts_with(head), "{name}");
    }
}

#[test]
fn where_not_one_sample_can_be_read_the_exit_code_is_1() {
    let scene = Scene::new();
    let model = scene.model();
    std::fs::create_dir_all(scene.path("images/class")).unwrap();
    for name in ["a.png", "b.png"] {
        std::fs::write(scene.path("images/class").join(name), "no image").unwrap();
    }
    let images = scene.text("images");
    let (out, lenient) = (scene.text("rows.safetensors"), ["--max-bad-samples", "9"]);
    let embed = [&["embed", "--model", &model, "--images", &images, "--out", &out][..], &lenient].concat();
    assert!(failure(&embed, 1).contains("no sample of the set"), "{}", failure(&embed, 1));
    assert!(!Path::new(&out).exists());
    let probe = [&["probe", "--model", &model, "--train", &images, "--test", &images][..], &lenient].concat();
    assert!(failure(&probe, 1).contains("no sample of the set"));
    let set = format!("kind = 'folder', path = '{images}'");
    for more in [
        &["stats"][..],
        &["show", "--out", &scene.text("sheet.html")],
        &["shards", "--out", &scene.text("shards")],
    ] {
        let message = failure(&[&["data"], more, &["--data", &set]].concat(), 1);
        assert!(message.contains("not one of 2 samples can be read"), "{more:?}: {message}");
    }
    assert!(scene.path("sheet.html").exists(), "the page tells why");
    let config = scene.text("small.toml");
    let eval = [
        "eval",
        &config,
        "--set",
        &format!("data.eval.held_out={{{set}}}"),
        "--set",
        "data.max_bad_samples=9",
    ];
    assert!(failure(&eval, 1).contains("no sample of the set held_out can be read"), "{}", failure(&eval, 1));
}

#[test]
fn a_redirected_standard_error_has_no_colours() {
    let scene = Scene::new();
    let model = scene.model();
    std::fs::create_dir(scene.path("images")).unwrap();
    write_png(&scene.path("images/good.png"), 9);
    std::fs::write(scene.path("images/bad.png"), "no image").unwrap();
    let (images, out) = (scene.text("images"), scene.text("rows.safetensors"));
    let mut embed = command(&["embed", "--model", &model, "--images", &images, "--out", &out]);
    let output = embed.env_remove("NO_COLOR").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("WARN") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_models_folder_is_no_run_and_is_measured_beside_a_configuration() {
    let scene = Scene::new();
    let model = scene.model();
    let config = scene.text("small.toml");
    let message = failure(&["eval", &model], 1);
    assert!(
        message.contains(&format!("is the model of a run: measure it with mm eval {}", scene.text("small"))),
        "{message}"
    );
    std::fs::rename(&model, scene.path("moved")).unwrap();
    let moved = scene.text("moved");
    assert!(failure(&["eval", &moved], 1).contains(&format!("mm eval CONFIG --model {moved}")));
    std::fs::remove_dir_all(scene.path("small/checkpoints")).unwrap();
    assert!(failure(&["eval", &scene.text("small")], 1).contains("has no model/ yet"));
    assert!(failure(&["eval", scene.folder.path().to_str().unwrap()], 1).contains("is no run's folder"));
    let evaluated: serde_json::Value =
        serde_json::from_str(&success(&["eval", &config, "--model", &moved, "--json"])).unwrap();
    assert_eq!(evaluated[0]["set"], "held_out");
    assert!(!scene.path("small/metrics.json").exists(), "the run's own numbers are its own model's");
    std::fs::rename(&moved, &model).unwrap();
    let own: serde_json::Value =
        serde_json::from_str(&success(&["eval", &scene.text("small"), "--json"])).unwrap();
    assert_eq!(own, evaluated);
    assert!(scene.path("small/metrics.json").exists());
}
