//! `mm eval images` on folders of images.

use crate::common::{failure, mm, success, write_config, write_png};
use mm_image::{RgbImage, write_png_with_text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a CLIP that has trained for two steps.
struct Work {
    folder: tempfile::TempDir,
    clip: String,
}

impl Work {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(folder.path());
        let settings = ["--set", "train.steps=2", "--set", "train.warmup=1"];
        success(&[&["train", config.to_str().unwrap()], &settings[..]].concat());
        let clip = folder.path().join("small/model").to_str().unwrap().to_owned();
        Self { folder, clip }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes `count` images of different shades, each with its prompt as `mm generate` stores it.
    fn generate(&self, folder: &str, count: u8) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for index in 0..count {
            let image = RgbImage::from_fn(24, 24, |x, y| {
                [(x * 7) as u8, index.wrapping_mul(40), (y * u32::from(index)) as u8].into()
            });
            let record = json!({ "prompt": format!("a picture {index}"), "seed": index }).to_string();
            let png = write_png_with_text(&image, &[("mm", &record)]).unwrap();
            fs::write(self.path(folder).join(format!("{index:04}.png")), png).unwrap();
        }
    }

    fn arguments(&self, folder: &str, more: &[&str]) -> Vec<String> {
        let generated = self.text(folder);
        let arguments = ["eval", "images", "--model", &self.clip, "--generated", &generated];
        arguments.iter().chain(more).map(|&argument| argument.to_owned()).collect()
    }

    fn report(&self, folder: &str, more: &[&str]) -> Value {
        let arguments = self.arguments(folder, &[more, &["--json"]].concat());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        serde_json::from_str(&success(&arguments)).unwrap()
    }

    fn refused(&self, folder: &str, more: &[&str]) -> String {
        let arguments = self.arguments(folder, more);
        failure(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 1)
    }
}

fn photos() -> String {
    format!("{}/../../data/goldens/images/photos", env!("CARGO_MANIFEST_DIR"))
}

fn value(report: &Value, name: &str) -> f64 {
    let metrics = report["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == name).unwrap()["value"].as_f64().unwrap()
}

#[test]
fn generated_images_are_measured_against_a_reference_and_their_prompts() {
    let work = Work::new();
    work.generate("out", 9);
    // What `mm generate` writes beside images is none.
    write_png(&work.path("out/sheet.png"), 50);
    let report = work.report("out", &["--reference", &photos()]);
    assert_eq!((&report["generated"]["images"], &report["reference"]["images"]), (&json!(9), &json!(20)));
    assert_eq!(
        (&report["prompts"], &report["features"], &report["pixels"]),
        (&json!(9), &json!(32), &json!([32, 32]))
    );
    let metrics = report["metrics"].as_array().unwrap();
    let names: Vec<&str> = metrics.iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    let expected =
        ["fid", "kid", "kid_std", "kid_unbiased", "precision", "recall", "cmmd", "clip_score", "clip_cosine"];
    assert_eq!(names, expected);
    assert!(metrics.iter().all(|metric| metric["tower"] == work.clip.as_str()));
    assert!(value(&report, "fid") > 0.0 && value(&report, "cmmd") > 0.0);
    // Fewer images than features, and than each metric needs.
    assert_eq!(report["warnings"].as_array().unwrap().len(), 4);

    let own = work.report("out", &["--reference", &work.text("out"), "--metrics", "fid,precision_recall"]);
    assert_eq!((value(&own, "precision"), &own["reference"]["images"]), (1.0, &json!(9)));
    assert!(value(&own, "fid") < 1e-6);

    let table = success(&["eval", "images", "--model", &work.clip, "--generated", &work.text("out")]);
    assert!(table.contains("generated: 9 images") && table.contains("clip_score"), "{table}");
    assert!(!table.contains("fid"), "{table}");
}

#[test]
fn prompts_come_from_a_file_and_another_clip_may_score_them() {
    let work = Work::new();
    work.generate("out", 5);
    let stored = work.report("out", &["--metrics", "clip_score"]);
    let lines: Vec<String> = (0..5)
        .map(|index| {
            json!({ "image": format!("{index:04}.png"), "prompt": format!("a picture {index}") }).to_string()
        })
        .collect();
    fs::write(work.path("prompts.jsonl"), lines.join("\n")).unwrap();
    let prompts = work.text("prompts.jsonl");
    let given = work.report("out", &["--metrics", "clip_score", "--prompts", &prompts]);
    assert_eq!(given["metrics"], stored["metrics"]);

    let towers = ["--metrics", "cmmd,clip_score", "--reference", &photos(), "--clip", &work.clip];
    let vit = format!("{}/../../data/goldens/clip/vit", env!("CARGO_MANIFEST_DIR"));
    let model = work.text("vit");
    copy_with_processor(Path::new(&vit), Path::new(&model), Path::new(&work.clip));
    let arguments = ["eval", "images", "--json", "--generated", &work.text("out"), "--model", &model];
    let report: Value = serde_json::from_str(&success(&[&arguments[..], &towers].concat())).unwrap();
    assert_eq!(value(&report, "clip_score"), value(&stored, "clip_score"));
    assert_eq!(
        (&report["metrics"][0]["tower"], &report["metrics"][1]["tower"]),
        (&json!(model), &json!(work.clip))
    );
    assert!(report["warnings"].to_string().contains("cmmd is defined on a CLIP's embeddings"), "{report}");

    fs::write(
        &prompts,
        "{\"image\": \"0001.png\", \"prompt\": \"a\"}\n{\"image\": \"9.png\", \"prompt\": \"b\"}",
    )
    .unwrap();
    let few = mm(&[
        "eval",
        "images",
        "--json",
        "--generated",
        &work.text("out"),
        "--model",
        &work.clip,
        "--prompts",
        &prompts,
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&few.stdout).unwrap()["prompts"], 1);
    assert!(String::from_utf8_lossy(&few.stderr).contains("1 of the images in"));
    fs::write(
        &prompts,
        "{\"image\": \"0001.png\", \"prompt\": \"a\"}\n{\"image\": \"0001.png\", \"prompt\": \"b\"}",
    )
    .unwrap();
    assert!(work.refused("out", &["--prompts", &prompts]).contains("has two prompts for 0001.png"));
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let work = Work::new();
    work.generate("out", 3);
    assert!(work.refused("out", &["--metrics", "fid"]).contains("--reference"));
    assert!(work.refused("none", &[]).contains("there is no folder"));
    assert!(work.refused("out", &["--reference", &work.text("none")]).contains("there is no folder"));
    let few = work.refused("out", &["--reference", &photos()]);
    assert!(few.contains("at least 4 images in each set, one has 3"), "{few}");
    fs::create_dir(work.path("plain")).unwrap();
    write_png(&work.path("plain/a.png"), 90);
    write_png(&work.path("plain/b.png"), 30);
    assert!(work.refused("plain", &["--metrics", "clip_score"]).contains("name a file of prompts"));
    assert!(work.refused("plain", &[]).contains("there is nothing to measure"));
    fs::write(work.path("plain/c.png"), "no image").unwrap();
    let arguments = ["--reference", &photos(), "--metrics", "fid"];
    assert!(work.refused("plain", &arguments).contains("1 of 3 images cannot be read"));
    let report = work.report("plain", &[&arguments[..], &["--max-bad-samples", "1"]].concat());
    assert_eq!((&report["generated"]["images"], &report["generated"]["unreadable"]), (&json!(2), &json!(1)));
}

/// Copies the model `from` with the preprocessing of another of the same size.
fn copy_with_processor(from: &Path, to: &Path, processor: &Path) {
    fs::create_dir(to).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let name = "preprocessor_config.json";
    fs::copy(processor.join(name), to.join(name)).unwrap();
}
