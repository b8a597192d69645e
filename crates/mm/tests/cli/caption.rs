//! Captions of images by `mm caption`.

use crate::caption_training;
use crate::common::{failure, mm, success, write_config};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A path below `data/goldens`.
fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn captioner(name: &str) -> String {
    golden(&format!("caption/{name}"))
}

fn photo(name: &str) -> String {
    golden(&format!("images/photos/{name}.png"))
}

/// The JSON lines of `mm caption --json` with `arguments`.
fn captions(arguments: &[&str]) -> Vec<Value> {
    let printed = success(&[&["caption", "--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A copy of the golden `name`, with values of its config changed.
fn changed(folder: &Path, name: &str, changes: &Value) -> String {
    let copy = folder.join(name.replace('/', "-"));
    copy_folder(golden(name).as_ref(), &copy);
    let mut config: Value = serde_json::from_slice(&fs::read(copy.join("config.json")).unwrap()).unwrap();
    merge(&mut config, changes);
    fs::write(copy.join("config.json"), config.to_string()).unwrap();
    copy.to_str().unwrap().to_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn merge(config: &mut Value, changes: &Value) {
    match changes.as_object() {
        Some(fields) => fields.iter().for_each(|(key, value)| merge(&mut config[key], value)),
        None => *config = changes.clone(),
    }
}

#[test]
fn a_table_has_the_captions_and_marks_those_that_were_cut() {
    let (chelsea, coffee) = (photo("chelsea"), photo("coffee"));
    let arguments = ["caption", "--model", &captioner("blip"), "--max-new-tokens", "8", &chelsea, &coffee];
    let printed = success(&arguments);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{printed}");
    assert!(lines[0].starts_with("image") && lines[0].contains("caption") && lines[0].ends_with("score"));
    let expected = captions(&arguments[1..]);
    for (line, expected) in lines[2..].iter().zip(&expected) {
        let caption = &expected["captions"][0];
        assert!(line.starts_with(expected["image"].as_str().unwrap()), "{printed}");
        assert!(line.contains(caption["caption"].as_str().unwrap()), "{printed}");
        assert_eq!(line.contains(" ..."), caption["finished"] == false, "{printed}");
    }
    assert!(expected.iter().any(|image| image["captions"][0]["finished"] == true));
    assert!(expected.iter().any(|image| image["captions"][0]["finished"] == false));
}

#[test]
fn json_has_the_best_captions_with_the_probability_of_each_token() {
    let chelsea = photo("chelsea");
    for model in ["blip", "vit-gpt2"] {
        let model = captioner(model);
        let all = captions(&["--model", &model, "--num-captions", "3", "--max-new-tokens", "8", &chelsea]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["image"], chelsea.as_str());
        let found = all[0]["captions"].as_array().unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(all[0]["caption"], found[0]["caption"]);
        let scores: Vec<f64> = found.iter().map(|caption| caption["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        for caption in found {
            let tokens = caption["tokens"].as_array().unwrap();
            assert!((1..=8).contains(&tokens.len()));
            let log_probs = tokens.iter().map(|token| token["probability"].as_f64().unwrap().ln());
            let mean = log_probs.sum::<f64>() / tokens.len() as f64;
            assert!((mean - caption["score"].as_f64().unwrap()).abs() < 1e-4, "{caption}");
            assert!(tokens.iter().all(|token| token["token"].is_string()));
            assert_eq!(caption.get("clip_score"), None);
        }
    }
}

#[test]
fn a_caption_is_the_same_alone_and_in_a_batch() {
    let names = ["chelsea", "coffee", "rocket", "camera"];
    let photos: Vec<String> = names.iter().map(|name| photo(name)).collect();
    let photos: Vec<&str> = photos.iter().map(String::as_str).collect();
    for model in ["blip", "vit-gpt2"] {
        let options = ["--model", &captioner(model), "--num-captions", "2", "--max-new-tokens", "10"];
        let text = |image: &Value| -> Vec<String> {
            let captions = image["captions"].as_array().unwrap().iter();
            captions.map(|caption| caption["caption"].as_str().unwrap().to_owned()).collect()
        };
        let together: Vec<_> = captions(&[&options[..], &photos].concat()).iter().map(text).collect();
        assert_eq!(together.iter().collect::<BTreeSet<_>>().len(), names.len(), "{together:?}");
        let in_pairs = captions(&[&options[..], &["--batch-size", "3"], &photos].concat());
        assert_eq!(in_pairs.iter().map(text).collect::<Vec<_>>(), together);
        for (photo, expected) in photos.iter().zip(&together) {
            assert_eq!(text(&captions(&[&options[..], &[*photo]].concat())[0]), *expected);
        }
    }
}

#[test]
fn a_folder_is_captioned_and_unreadable_images_are_counted_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("photos")).unwrap();
    fs::copy(photo("chelsea"), path("photos/a.png")).unwrap();
    fs::write(path("photos/b.png"), &fs::read(photo("coffee")).unwrap()[..1000]).unwrap();
    fs::copy(photo("coffee"), path("photos/c.png")).unwrap();
    let caption = |arguments: &[&str]| {
        let output = mm(&[&["caption", "--json", "--model", &captioner("blip")], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (photos, none) = (path("photos"), path("none.png"));
    let (code, given, said) = caption(&[&photos, &none]);
    assert_eq!((code, given.lines().count()), (Some(1), 2), "{said}");
    assert!(said.contains("2 of 4 images cannot be read, more than --max-bad-samples 0"), "{said}");
    assert!(said.contains("b.png") && said.contains("none.png"), "{said}");
    let (code, _, said) = caption(&[&photos, &none, "--max-bad-samples", "2"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, given, said) = caption(&[&none, &path("photos/b.png"), "--max-bad-samples", "2"]);
    assert_eq!((code, given.as_str()), (Some(1), ""));
    assert!(said.contains("not one of 2 images can be read"), "{said}");
    fs::create_dir(path("empty")).unwrap();
    let (code, _, said) = caption(&[&path("empty")]);
    assert!(code == Some(1) && said.contains("the folder has no image"), "{said}");
}

#[test]
fn drawn_captions_depend_on_the_seed_and_the_place_of_the_image_alone() {
    let (chelsea, coffee) = (photo("chelsea"), photo("coffee"));
    let drawn = |seed: &str, batch_size: &str| {
        let model = captioner("vit-gpt2");
        let options = ["--sample", "--num-captions", "3", "--top-k", "0", "--temperature", "1.5"];
        let rest = ["--seed", seed, "--batch-size", batch_size, "--max-new-tokens", "12", &coffee, &chelsea];
        captions(&[&["--model", &model], &options[..], &rest, &[&coffee]].concat())
    };
    let first = drawn("1", "3");
    assert_eq!(first[0]["captions"].as_array().unwrap().len(), 3);
    let texts = |images: &[Value]| -> Vec<Value> {
        let captions = images.iter().flat_map(|image| image["captions"].as_array().unwrap());
        captions.map(|caption| caption["caption"].clone()).collect()
    };
    assert_eq!(texts(&drawn("1", "3")), texts(&first));
    assert_eq!(texts(&drawn("1", "1")), texts(&first));
    assert_ne!(texts(&drawn("2", "3")), texts(&first));
    assert_ne!(texts(&first[..1]), texts(&first[2..]), "the same image in another place");
}

#[test]
fn a_prompt_begins_every_caption() {
    let options = ["--model", &captioner("blip"), "--prompt", "a picture of", "--max-new-tokens", "5"];
    let found = captions(&[&options[..], &[&photo("chelsea"), &photo("coffee")]].concat());
    assert!(found.iter().all(|image| image["caption"].as_str().unwrap().starts_with("a picture of ")));
}

#[test]
fn attention_is_drawn_for_each_word_of_one_image() {
    let folder = tempfile::tempdir().unwrap();
    let strip = folder.path().join("strip.png");
    let (strip_name, chelsea) = (strip.to_str().unwrap(), photo("chelsea"));
    for model in ["blip", "vit-gpt2"] {
        let model = captioner(model);
        let options = ["--model", &model, "--attention", strip_name, "--max-new-tokens", "8"];
        let found = captions(&[&options[..], &[&chelsea]].concat());
        let words = found[0]["attention"].as_array().unwrap();
        let spelled: Vec<&str> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
        let caption = found[0]["caption"].as_str().unwrap();
        assert_eq!(spelled, caption.split_whitespace().collect::<Vec<_>>());
        for word in words {
            let values: Vec<f64> = serde_json::from_value(word["values"].clone()).unwrap();
            assert_eq!((word["columns"].as_u64(), values.len()), (Some(4), 16));
            let sum = values.iter().sum::<f64>();
            assert!((0.5..1.0).contains(&sum), "{sum}: the rest is of the class token");
        }
        let picture = mm_image::decode(&fs::read(&strip).unwrap(), [255; 3]).unwrap();
        assert_eq!(picture.dimensions(), (224 + 228 * words.len() as u32, 224 + 24));
    }
    let refused = |arguments: &[&str]| failure(&[&["caption", "--attention"], arguments].concat(), 1);
    let blip = ["--model", &captioner("blip")];
    assert!(refused(&[&["a.jpg"][..], &blip, &[&chelsea]].concat()).contains("name a file in .png"));
    assert!(
        refused(&[&[strip_name][..], &blip, &[&chelsea, &chelsea]].concat())
            .contains("--attention draws one image, and there are 2")
    );
}

/// A ClipCap of the goldens of its parts.
fn clip_cap(folder: &Path) -> String {
    let vision: Value =
        serde_json::from_slice(&fs::read(golden("clip/clip-vision/config.json")).unwrap()).unwrap();
    let config = json!({
        "model_type": "clip_prefix", "eos_token_id": 316, "pad_token_id": 316, "vision_config": vision,
    });
    let model = changed(folder, "caption/clip-prefix-mlp", &config);
    let preprocessing = "preprocessor_config.json";
    fs::copy(captioner("vit-gpt2") + "/" + preprocessing, PathBuf::from(&model).join(preprocessing)).unwrap();
    copy_folder(golden("clip/clip-vision").as_ref(), &Path::new(&model).join("clip"));
    model
}

#[test]
fn a_captioner_with_a_prefix_captions_but_has_no_attention_to_draw() {
    let folder = tempfile::tempdir().unwrap();
    let model = clip_cap(folder.path());
    let options = ["--model", &model, "--max-new-tokens", "6", &photo("chelsea")];
    assert_eq!(captions(&options)[0]["captions"].as_array().unwrap().len(), 1);
    let strip = folder.path().join("strip.png");
    let error = failure(&[&["caption", "--attention", strip.to_str().unwrap()], &options[..]].concat(), 1);
    assert!(error.contains("the captioner has no cross-attention"), "{error}");
    assert!(!strip.exists());
}

#[test]
fn captions_are_ordered_by_a_clip_and_filtered_by_its_scores() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = write_config(folder.path());
    let settings = ["--set", "train.steps=2", "--set", "train.warmup=1"];
    success(&[&["train", config.to_str().unwrap()], &settings[..]].concat());
    let clip = path("small/model");
    let photos = golden("images/photos");
    let options = ["--model", &captioner("blip"), "--num-captions", "3", "--max-new-tokens", "8"];
    let plain = captions(&[&options[..], &[&photos]].concat());
    let printed = success(&[&["caption", "--json"], &options[..], &["--rerank", &clip, &photos]].concat());
    let ranked: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts = |image: &Value| -> Vec<String> {
        let captions = image["captions"].as_array().unwrap().iter();
        captions.map(|caption| caption["caption"].as_str().unwrap().to_owned()).collect()
    };
    let mut best = Vec::new();
    for (ranked, plain) in ranked.iter().zip(&plain) {
        let scores = ranked["captions"].as_array().unwrap().iter();
        let scores: Vec<f64> = scores.map(|caption| caption["clip_score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        best.push(scores[0]);
        let sorted = |image: &Value| texts(image).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(ranked), sorted(plain));
    }
    assert!(ranked.iter().zip(&plain).any(|(ranked, plain)| texts(ranked) != texts(plain)));

    // The lines are a data set, whose filter has the same scores.
    best.sort_by(f64::total_cmp);
    let middle = best.len() / 2;
    let least = f64::midpoint(best[middle - 1], best[middle]);
    let file = path("captions.jsonl");
    fs::write(&file, printed).unwrap();
    let data = format!("kind = \"jsonl\", path = {file:?}");
    let filter = format!("clip_score={least}");
    let out = path("shards");
    let report = success(&[
        "data", "shards", "--json", "--data", &data, "--out", &out, "--filter", &filter, "--model", &clip,
    ]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["read"], &report["samples"]), (&json!(best.len()), &json!(best.len() - middle)));

    let table = success(&[&["caption"], &options[..], &["--rerank", &clip, &photo("chelsea")]].concat());
    assert!(table.lines().next().unwrap().ends_with("cosine"), "{table}");

    // The same CLIP measures the captions of an evaluation.
    let from = caption_training::golden("blip");
    let config = caption_training::write_config(folder.path(), &from, "");
    let (set, blip) = (format!("metrics.clip={clip}"), captioner("blip"));
    let arguments = ["eval", config.to_str().unwrap(), "--model", &blip, "--set", &set, "--json"];
    let report: Value = serde_json::from_str(&success(&arguments)).unwrap();
    for name in ["clip_score", "ref_clip_score"] {
        let score = report[0]["metrics"][name].as_f64().unwrap();
        assert!((0.0..=2.5).contains(&score), "{name} {score}");
    }
}

#[test]
fn what_cannot_be_captioned_with_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (blip, chelsea) = (captioner("blip"), photo("chelsea"));
    let refused = |model: &str, arguments: &[&str]| {
        failure(&[&["caption", "--model", model, &chelsea], arguments].concat(), 1)
    };
    let prompt = "a picture of two red circles and a blue star";
    for (arguments, expected) in [
        (&["--prompt", prompt, "--max-new-tokens", "14"][..], "set max_new_tokens to at most 13"),
        (
            &["--max-new-tokens", "25"],
            "a prompt of 1 tokens and max_new_tokens of 25 exceed the 24 positions",
        ),
        (&["--max-new-tokens", "0"], "max_new_tokens is 0: it must be from 1"),
        (&["--num-captions", "3", "--num-beams", "2"], "more than --num-beams 2"),
        (&["--top-k", "3"], "--top-k is for drawn captions: add --sample"),
        (&["--resolution", "64"], "--resolution is not for captioners"),
        (&["--rerank", "no/such/model"], "cannot open the model no/such/model"),
    ] {
        let error = refused(&blip, arguments);
        assert!(error.contains(expected), "{error}");
    }
    assert!(refused("no/such/model", &[]).contains("cannot open the model no/such/model"));
    let other = changed(folder.path(), "clip/clip-vision", &json!({}));
    let error = refused(&other, &[]);
    assert!(
        error.contains("config.json: model_type is clip_vision_model: captioners are of blip"),
        "{error}"
    );
    let endless = changed(folder.path(), "caption/blip", &json!({ "text_config": { "sep_token_id": 999 } }));
    let error = refused(&endless, &[]);
    assert!(error.contains("the tokenizer has no token 999, with which texts end"), "{error}");
}

#[test]
fn the_longest_caption_fills_the_positions_of_the_decoder() {
    let options = ["--model", &captioner("blip"), "--min-new-tokens", "24", "--max-new-tokens", "24"];
    let found = captions(&[&options[..], &[&photo("chelsea")]].concat());
    assert_eq!(found[0]["captions"][0]["tokens"].as_array().unwrap().len(), 24);
}
