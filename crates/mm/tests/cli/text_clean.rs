//! Texts that open_clip cleans, through the forms of folders and through training.

use crate::common::{success, write_config};
use serde_json::Value;
use std::path::Path;

fn rows(model: &str, folder: &Path, texts: &[&str]) -> Vec<Vec<f32>> {
    let (file, out) = (folder.join("texts.txt"), folder.join("rows.safetensors"));
    std::fs::write(&file, texts.join("\n")).unwrap();
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    success(&["embed", "--model", model, "--texts", file, "--out", out]);
    let rows = tch::Tensor::read_safetensors(out).unwrap().remove(0).1;
    (0..texts.len() as i64).map(|row| Vec::try_from(rows.get(row).contiguous()).unwrap()).collect()
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Changes a JSON file.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json(file);
    change(&mut value);
    std::fs::write(file, value.to_string()).unwrap();
}

/// A text as it is found, cleaned, and without its punctuation.
const TEXTS: [&str; 3] = ["“Red” ﬁsh &amp; heart!", "\"red\" fish & heart!", "red fish heart"];

/// Which of [`TEXTS`] but the first have the row of the first.
fn same(model: &str, folder: &Path) -> [bool; 2] {
    let rows = rows(model, folder, &TEXTS);
    let distance = |other: &[f32]| rows[0].iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    [distance(&rows[1]) < 1e-5, distance(&rows[2]) < 1e-5]
}

#[test]
fn a_folder_says_how_texts_are_cleaned_and_every_form_of_it_does_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path());
    let train = |name: &str, more: &[&str]| {
        let name = format!("run.name={name}");
        let base = [
            "train",
            config.to_str().unwrap(),
            "--set",
            &name,
            "--set",
            "train.steps=2",
            "--set",
            "train.warmup=1",
        ];
        success(&[&base[..], more].concat());
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let convert = |from: &str, to: &str, form: &str| {
        success(&["convert", "--from", &path(from), "--to", &path(to), "--format", form]);
    };
    train("plain", &[]);
    assert_eq!(same(&path("plain/model"), dir.path()), [false, false]);
    convert("plain/model", "plain-open", "open_clip");
    assert_eq!(same(&path("plain-open"), dir.path()), [false, false], "a conversion changes no rows");

    // What others write says nothing: open_clip cleans.
    let (open_clip, tokenizer) = (
        dir.path().join("plain-open/open_clip_config.json"),
        dir.path().join("plain-open/tokenizer_config.json"),
    );
    edit(&tokenizer, |config| drop(config.as_object_mut().unwrap().remove("text_clean")));
    assert_eq!(same(&path("plain-open"), dir.path()), [true, false]);
    edit(&open_clip, |config| {
        config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = serde_json::json!({ "clean": "canonicalize" })
    });
    assert_eq!(same(&path("plain-open"), dir.path()), [true, true]);
    assert!(success(&["inspect", &path("plain-open")]).contains("cleaned first (canonicalize)"));

    convert("plain-open", "canonical", "hf");
    assert_eq!(same(&path("canonical"), dir.path()), [true, true]);
    convert("canonical", "canonical-open", "open_clip");
    let config_of = |name: &str| json(&dir.path().join(name).join("open_clip_config.json"));
    assert_eq!(
        config_of("canonical-open")["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["clean"],
        "canonicalize"
    );
    assert_eq!(same(&path("canonical-open"), dir.path()), [true, true]);

    train("cleaned", &["--set", "tokenizer.text_clean=lower"]);
    assert_eq!(json(&dir.path().join("cleaned/model/tokenizer_config.json"))["text_clean"], "lower");
    assert_eq!(same(&path("cleaned/model"), dir.path()), [true, false]);
    let from = format!("model={{ from = {:?} }}", path("cleaned/model"));
    let tuned = |name: &str, tokenizer: &str| {
        train(name, &["--set", &from, "--set", &format!("tokenizer={tokenizer}")]);
        same(&path(&format!("{name}/model")), dir.path())
    };
    assert_eq!(tuned("tuned", "{}"), [true, false], "the checkpoint's");
    assert_eq!(tuned("as-it-is", "{ text_clean = \"none\" }"), [false, false]);
}
