//! Images by `mm generate` and `mm edit`, from the small random pipelines of `data/goldens/diffusion`.

use crate::common::{failure, mm, success};
use mm_image::RgbImage;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const CIRCLE: &str = "a red circle above a blue square";

fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn model(name: &str) -> String {
    golden(&format!("diffusion/{name}"))
}

fn decode(path: &Path) -> RgbImage {
    mm_image::decode(&fs::read(path).unwrap(), [255; 3]).unwrap()
}

/// A folder for results.
struct Out(tempfile::TempDir);

impl Out {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Generates to `name` and gives the objects that are printed.
    fn generate(&self, pipeline: &str, name: &str, more: &[&str]) -> Vec<Value> {
        let (model, out) = (model(pipeline), self.text(name));
        let arguments = ["generate", "--model", &model, "--out", &out, "--json", "--steps", "3"];
        json_lines(&success(&[&arguments[..], more].concat()))
    }

    /// Edits `image` to `name` with a prompt and gives the object that is printed.
    fn edit(&self, pipeline: &str, image: &str, name: &str, more: &[&str]) -> Value {
        let (model, out) = (model(pipeline), self.text(name));
        let arguments = ["edit", "--model", &model, image, CIRCLE, "--out", &out, "--json", "--steps", "5"];
        json_lines(&success(&[&arguments[..], more].concat())).remove(0)
    }

    /// The error of a command on the pipeline.
    fn refused(&self, command: &[&str], pipeline: &str, more: &[&str], code: i32) -> String {
        let (model, out) = (model(pipeline), self.text("refused.png"));
        failure(&[command, &["--model", &model, "--out", &out], more].concat(), code)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn json_lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that no level of two images differs by more than the rounding of one.
fn assert_equal(what: &str, left: &RgbImage, right: &RgbImage) {
    assert_eq!(left.dimensions(), right.dimensions(), "{what}");
    let off = left.as_raw().iter().zip(right.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{what} is off by {off:?}");
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    for pipeline in ["sd1", "sdxl", "sd3"] {
        let out = Out::new();
        let prompts = [CIRCLE, "two green stars", "--count", "2", "--seed", "7", "--negative", "blurry"];
        let alone = out.generate(pipeline, "alone", &[&prompts[..], &["--batch", "1"]].concat());
        let together = out.generate(pipeline, "four", &[&prompts[..], &["--batch", "4"]].concat());
        assert_eq!((alone.len(), together.len()), (4, 4));
        for (index, (left, right)) in alone.iter().zip(&together).enumerate() {
            let name = format!("{index:04}.png");
            let pictures = ["alone", "four"].map(|folder| decode(&out.path(folder).join(&name)));
            assert_equal(pipeline, &pictures[0], &pictures[1]);
            assert_eq!(left["seed"], 7 + index as u64 % 2);
            assert_eq!((&left["prompt"], &left["seed"]), (&right["prompt"], &right["seed"]));
        }
        let first = decode(&out.path("alone/0000.png"));
        assert_ne!(first, decode(&out.path("alone/0001.png")), "another seed is another image");
        assert_eq!(out.names("alone"), ["0000.png", "0001.png", "0002.png", "0003.png", "sheet.png"]);
        // Two rows of two pictures of 160 pixels, each with its text.
        let sheet = decode(&out.path("alone/sheet.png"));
        assert!(sheet.width() == 2 * 168 + 8 && sheet.height() > 2 * 168, "{:?}", sheet.dimensions());
    }
}

#[test]
fn an_image_says_how_it_was_made() {
    let out = Out::new();
    let more = ["--negative", "blurry, dark", "--seed", "5", "--guidance", "4.5", "--scheduler", "euler_a"];
    let more = [&[CIRCLE][..], &more, &["--size", "24x16", "--clip-skip", "1"]].concat();
    let printed = out.generate("sd1", "a.png", &more);
    assert_eq!(printed[0]["image"], out.text("a.png"));
    let inspected: Value =
        serde_json::from_str(&success(&["inspect", "--json", &out.text("a.png")])).unwrap();
    assert_eq!(
        (&inspected["prompt"], &inspected["negative_prompt"]),
        (&CIRCLE.into(), &"blurry, dark".into())
    );
    let expected = [
        ("Steps", "3"),
        ("Sampler", "Euler a"),
        ("CFG scale", "4.5"),
        ("Seed", "5"),
        ("Size", "24x16"),
        ("Model", "sd1"),
        ("Clip skip", "2"),
    ];
    for (name, value) in expected {
        assert_eq!(inspected["parameters"][name], value, "{name}");
    }
    let record = &inspected["mm"];
    assert_eq!(
        (&record["seed"], &record["precision"], &record["model"]),
        (&5.into(), &"f32".into(), &"sd1".into())
    );
    assert_eq!(record["settings"], printed[0]["settings"]);
    assert_eq!(record["settings"]["scheduler"]["_class_name"], "EulerAncestralDiscreteScheduler");
    assert_eq!(decode(&out.path("a.png")).dimensions(), (24, 16));
    let table = success(&["inspect", &out.text("a.png")]);
    for part in [CIRCLE, "blurry, dark", "Euler a", "scheduler.prediction_type"] {
        assert!(table.contains(part), "{table}");
    }
    // Text of another program.
    let png = mm_image::write_png_with_text(
        &RgbImage::new(4, 4),
        &[("parameters", "a, b\nSteps: 1, Sampler: Euler, Lora hashes: \"x: 1, y: 2\""), ("workflow", "{}")],
    );
    fs::write(out.path("other.png"), png.unwrap()).unwrap();
    let table = success(&["inspect", &out.text("other.png")]);
    assert!(table.contains("x: 1, y: 2") && table.contains("workflow"), "{table}");
    RgbImage::new(4, 4).save(out.path("none.png")).unwrap();
    assert!(failure(&["inspect", &out.text("none.png")], 1).contains("does not say how it was made"));
}

#[test]
fn a_lora_changes_images_by_its_weight_and_one_of_another_model_is_refused() {
    let out = Out::new();
    let unet = Path::new(&model("sd1")).join("unet/diffusion_pytorch_model.safetensors");
    let weights = tch::Tensor::read_safetensors(unet).unwrap();
    let is_query = |(name, _): &&(String, tch::Tensor)| name.ends_with("attn1.to_q.weight");
    let (name, weight) = weights.iter().find(is_query).unwrap();
    let (rows, columns) = weight.size2().unwrap();
    let layer = format!("unet.{}", name.trim_end_matches(".weight"));
    let ones = |size: [i64; 2]| tch::Tensor::ones(size, (tch::Kind::Float, tch::Device::Cpu));
    let pair = [
        (format!("{layer}.lora_A.weight"), ones([2, columns])),
        (format!("{layer}.lora_B.weight"), ones([rows, 2])),
    ];
    let lora = out.text("style.safetensors");
    tch::Tensor::write_safetensors(&pair, &lora).unwrap();
    let [none, off, on] =
        [("none.png", None), ("off.png", Some(0.0)), ("on.png", Some(0.5))].map(|(name, weight)| {
            let weighted = weight.map(|weight| format!("{lora}:{weight}"));
            let more: Vec<&str> = weighted.iter().flat_map(|lora| ["--lora", lora]).collect();
            let printed = out.generate("sd1", name, &[&[CIRCLE], &more[..]].concat());
            if let Some(weight) = weight {
                let stored = &printed[0]["loras"][0];
                assert_eq!(
                    (&stored["file"], &stored["weight"]),
                    (&"style.safetensors".into(), &weight.into())
                );
            }
            decode(&out.path(name))
        });
    assert_equal("a LoRA of weight 0", &none, &off);
    assert_ne!(none, on);
    let other = golden("diffusion-lora/kohya.safetensors");
    let refused = out.refused(&["generate", "a"], "sd1", &["--lora", &other], 1);
    assert!(refused.contains("kohya.safetensors") && refused.contains("another model"), "{refused}");
}

#[test]
fn a_token_of_an_embedding_is_stored_with_the_image() {
    let out = Out::new();
    let file = golden("diffusion/inversions/two.safetensors");
    let printed = out.generate("sd1", "a.png", &["a <two-rings>", "--embedding", &file]);
    let stored = &printed[0]["embeddings"][0];
    assert_eq!((&stored["file"], &stored["token"]), (&"two.safetensors".into(), &"<two-rings>".into()));
    let inspected = success(&["inspect", &out.text("a.png")]);
    assert!(inspected.contains("two.safetensors: <two-rings>"), "{inspected}");
    let renamed = format!("{file}:<r>");
    out.generate("sd1", "b.png", &["a <r>", "--embedding", &renamed]);
    assert_equal("another token", &decode(&out.path("a.png")), &decode(&out.path("b.png")));
    out.generate("sd1", "c.png", &["a <two-rings>"]);
    assert_ne!(decode(&out.path("a.png")), decode(&out.path("c.png")));
    let refused = out.refused(&["generate", "a"], "sdxl", &["--embedding", &file], 1);
    assert!(refused.contains("two.safetensors") && refused.contains("the model has two"), "{refused}");
}

#[test]
fn flagged_images_are_named_by_their_seeds_and_a_checker_may_be_left_out() {
    let out = Out::new();
    let folder = out.path("checked");
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(folder.join(to)).unwrap();
        for entry in fs::read_dir(model(from)).unwrap().map(|entry| entry.unwrap()) {
            if entry.path().is_file() {
                fs::copy(entry.path(), folder.join(to).join(entry.file_name())).unwrap();
            }
        }
    };
    for part in ["", "scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        copy(&format!("sd1/{part}"), part);
    }
    for part in ["safety_checker", "feature_extractor"] {
        copy(&format!("safety/{part}"), part);
    }
    let index = folder.join("model_index.json");
    let mut parts: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    parts["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    fs::write(&index, parts.to_string()).unwrap();
    let run = |name: &str, more: &[&str]| {
        let (model, out) = (folder.to_str().unwrap(), out.text(name));
        let arguments = ["generate", "--model", model, "a star", "--count", "12", "--steps", "2", "--json"];
        let output = mm(&[&arguments[..], &["--out", &out], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        (json_lines(&String::from_utf8(output.stdout).unwrap()), said)
    };
    let (lines, said) = run("checked-images", &[]);
    let flagged: Vec<&Value> = lines.iter().filter(|line| line["flagged"] == true).collect();
    assert!(!flagged.is_empty() && flagged.len() < 12 && lines.len() == 12);
    let seeds: Vec<String> = flagged.iter().map(|line| line["seed"].to_string()).collect();
    let expected =
        format!("found {} of the images unsafe: they are black (seed {})", seeds.len(), seeds.join(", "));
    assert!(said.contains(&expected) && !said.contains("not filtered"), "{said}");
    let picture = decode(Path::new(flagged[0]["image"].as_str().unwrap()));
    assert!(picture.as_raw().iter().all(|&level| level == 0));
    let (lines, said) = run("all-images", &["--no-safety-checker"]);
    assert!(lines.iter().all(|line| line.get("flagged").is_none()));
    assert_eq!(said.matches("the safety checker is left out: images are not filtered").count(), 1, "{said}");
}

#[test]
fn a_file_of_prompts_has_seeds_and_negative_prompts_of_its_own() {
    let out = Out::new();
    fs::write(out.path("p.jsonl"), "{\"prompt\": \"a star\", \"seed\": 9}\n{\"prompt\": \"a cat\"}\n")
        .unwrap();
    let printed =
        out.generate("sd1", "new/a.png", &["--prompts", &out.text("p.jsonl"), "--preview-every", "1"]);
    let found: Vec<_> = printed.iter().map(|line| (line["prompt"].clone(), line["seed"].clone())).collect();
    assert_eq!(found, [("a star".into(), 9.into()), ("a cat".into(), 0.into())]);
    let expected = ["a-0000.png", "a-0001.png", "a-sheet.png", "a.preview.png"];
    assert_eq!(out.names("new"), expected);
    let preview = decode(&out.path("new/a.preview.png"));
    assert_eq!(preview.dimensions(), (2 * (256 + 8) + 8, 256 + 2 * 8));
}

#[test]
fn attention_to_the_words_is_drawn_beside_the_image() {
    let out = Out::new();
    let strip = out.text("maps.png");
    let line = out.generate("sd1", "a.png", &["a red star", "--attention", &strip]).remove(0);
    let words: Vec<_> = line["attention"].as_array().unwrap().iter().map(|map| map["word"].clone()).collect();
    assert_eq!(words, ["a", "red", "star"]);
    assert_eq!(decode(Path::new(&strip)).dimensions(), (4 * (224 + 4) - 4, 224 + 24));
    assert_equal("the image", &decode(&out.path("a.png")), &{
        out.generate("sd1", "b.png", &["a red star"]);
        decode(&out.path("b.png"))
    });
    let two = out.refused(&["generate", "a"], "sd1", &["--count", "2", "--attention", &strip], 1);
    assert!(two.contains("--attention draws one image, and 2 are to be made"), "{two}");
}

#[test]
fn images_are_edited_by_strength_by_mask_and_by_instruction() {
    let out = Out::new();
    let (image, mask) = (model("images/image.png"), model("images/mask.png"));
    let line = out.edit("sd1", &image, "a.png", &["--strength", "0.6"]);
    // Three of five steps; PNDM calls the model once more.
    assert_eq!((&line["settings"]["strength"], &line["settings"]["calls"]), (&0.6.into(), &4.into()));
    assert_eq!(line["edit"]["image"], "image.png");
    let inspected: Value =
        serde_json::from_str(&success(&["inspect", "--json", &out.text("a.png")])).unwrap();
    assert_eq!(inspected["parameters"]["Denoising strength"], "0.6");
    let line = out.edit("sd1", &image, "e.png", &["--strength", "0.5", "--exact-steps"]);
    assert_eq!((&line["settings"]["steps"], &line["edit"]["exact_steps"]), (&10.into(), &true.into()));
    for pipeline in ["sd1", "inpaint"] {
        let line = out.edit(pipeline, &image, "i.png", &["--mask", &mask]);
        assert_eq!((&line["settings"]["strength"], &line["edit"]["mask"]), (&1.0.into(), &"mask.png".into()));
    }
    let line = out.edit("pix2pix", &image, "p.png", &["--image-guidance", "1.2"]);
    assert_eq!(line["settings"]["image_guidance_scale"], 1.2);
    assert_eq!(decode(&out.path("p.png")).dimensions(), decode(Path::new(&image)).dimensions());
}

#[test]
fn an_image_that_cannot_be_written_is_an_error_that_names_the_saved_ones() {
    let out = Out::new();
    fs::create_dir(out.path("a-0001.png")).unwrap();
    let (model, file) = (model("sd1"), out.text("a.png"));
    let arguments =
        ["generate", "--model", &model, "a", "--count", "3", "--batch", "1", "--steps", "2", "--out"];
    let error = failure(&[&arguments[..], &[&file]].concat(), 1);
    for part in ["a-0001.png: it is a folder", "1 image is saved", "a-0000.png", "--retry-dir"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(out.names("."), ["a-0000.png", "a-0001.png"]);
    success(&[&arguments[..], &[&file, "--retry-dir", &out.text("retry")]].concat());
    assert_eq!(out.names("retry"), ["a-0001.png"]);
    assert!(out.path("a-0002.png").exists() && out.path("a-sheet.png").exists());
    // Where nothing can be written, before the model is opened.
    fs::write(out.path("file"), "").unwrap();
    let nowhere = ["generate", "--model", "no/such/model", "a", "--out"];
    let below = out.text("file/a.png");
    assert!(failure(&[&nowhere[..], &[&below]].concat(), 1).contains("cannot write"));
    assert!(failure(&[&nowhere[..], &["a.jpg"]].concat(), 1).contains("name a file in .png"));
    success(&[&arguments[..], &[&below, "--retry-dir", &out.text("all")]].concat());
    assert_eq!(out.names("all"), ["a-0000.png", "a-0001.png", "a-0002.png", "a-sheet.png"]);
}

#[test]
fn what_cannot_be_made_is_refused_with_what_can() {
    let out = Out::new();
    let image = model("images/image.png");
    let generate = |more: &[&str], code| out.refused(&["generate", "a"], "sd1", more, code);
    let cases: [(&[&str], &str); 7] = [
        (&["--size", "17x16"], "width 17: it must be a multiple of 2, e.g. 16 or 18"),
        (&["--height", "0"], "height 0"),
        (&["--guidance-interval", "0.8,0.2"], "ends before it begins"),
        (&["--guidance", "nan"], "guidance_scale NaN"),
        (&["--lora", &image], "image.png"),
        (&["--lora", "none.safetensors:0.5"], "none.safetensors"),
        (&["--resolution", "64"], "use --size"),
    ];
    for (more, expected) in cases {
        let error = generate(more, 1);
        assert!(error.contains(expected), "{more:?}: {error}");
    }
    let unknown = generate(&["--scheduler", "magic"], 2);
    assert!(
        unknown.contains("magic") && unknown.contains("ddpm, ddim") && unknown.contains("unipc"),
        "{unknown}"
    );
    assert!(generate(&["--size", "512"], 2).contains("512x768"));
    let edit = |pipeline: &str, more: &[&str]| out.refused(&["edit", &image, "a"], pipeline, more, 1);
    let least = edit("sd1", &["--strength", "0.01", "--steps", "20"]);
    assert!(least.contains("it must be at least 0.050"), "{least}");
    assert!(edit("sd1", &[]).contains("edit with a strength, or with a mask"));
    RgbImage::new(8, 16).save(out.path("mask.png")).unwrap();
    let sizes = edit("sd1", &["--mask", &out.text("mask.png")]);
    assert!(sizes.contains("8 x 16 pixels") && sizes.contains("16 x 16"), "{sizes}");
    assert!(out.refused(&["generate", "a"], "pix2pix", &[], 1).contains("give it an image"));
    assert_eq!(out.names("."), ["mask.png"]);
}

#[test]
fn help_has_examples_and_a_run_says_its_settings_and_that_nothing_is_filtered() {
    for command in ["generate", "edit"] {
        let help = success(&[command, "--help"]);
        assert!(help.contains("Examples:") && !help.contains("resolution"), "{help}");
    }
    let out = Out::new();
    let arguments = ["generate", "--model", &model("sd1"), "a star", "--out", &out.text("a.png")];
    let output = mm(&[&arguments[..], &["--steps", "2", "--guidance", "1", "--negative", "b"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    for part in
        ["no safety checker", "2 steps in 3 calls", "PNDMScheduler: prediction_type epsilon", "is off"]
    {
        assert_eq!(said.matches(part).count(), 1, "{said}");
    }
    assert!(String::from_utf8(output.stdout).unwrap().contains("a star"));
}

#[test]
fn pipelines_and_loras_are_described() {
    let printed = success(&["inspect", &model("sdxl")]);
    for part in
        ["StableDiffusionXLPipeline", "unet", "text_encoder_2", "16 x 16 pixels", "safety checker  none"]
    {
        assert!(printed.contains(part), "{printed}");
    }
    let json: Value = serde_json::from_str(&success(&["inspect", "--json", &model("sd1")])).unwrap();
    assert_eq!(json["scheduler"]["timestep_spacing"], "leading");
    assert_eq!(json["safety_checker"], false);
    assert!(json["parameters"].as_u64().unwrap() > 10_000);
    let printed = success(&["inspect", &golden("diffusion-lora/kohya.safetensors")]);
    assert!(printed.contains("kohya") && printed.contains("unet") && printed.contains("ranks"), "{printed}");
    let lora = success(&["inspect", "--json", &golden("diffusion-lora/peft-folder")]);
    assert_eq!(serde_json::from_str::<Value>(&lora).unwrap()["form"], "lora");
    let printed = success(&["inspect", &golden("diffusion-lora/ldm-sd1.safetensors")]);
    assert!(printed.contains("checkpoint in one file"), "{printed}");
    let printed = success(&["inspect", &golden("diffusion-lora/textual-inversion.safetensors")]);
    assert!(printed.contains("textual inversion"), "{printed}");
}
