//! Whatever a user gives: one line that says what, where and what to do, the right exit code, and never a
//! panic.

use crate::common::{command, failure, mm, success, trained_clip, write_config, write_png};
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn configurations_that_cannot_run_name_file_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path());
    let config = file.to_str().unwrap();
    let with = |key_value: &str| failure(&["train", config, "--set", key_value], 2);
    assert!(with("train.batchsize=8").contains("unknown key `train.batchsize`; did you mean `batch_size`?"));
    assert!(with("train.lr=fast").contains("--set train.lr=fast"));
    assert!(with("train.batch_size=-4").contains("`train.batch_size`: "));
    assert!(with("train.accumulate=3").contains("3 does not divide batch_size 16"));
    assert!(with("model.text.num_attention_heads=5").contains("num_attention_heads"));
    assert!(with("model.image.num_attention_heads=5").contains("num_attention_heads"));
    assert!(with("run.task=clap").contains("unknown task \"clap\"; did you mean \"clip\"? tasks are clip"));
    assert!(with("train.epochs=2").contains("`train.epochs`: `train.steps` is set as well"));
    assert!(with("prepare=3").contains("`prepare`: must be a list of names"));
    assert!(with("lora.rank=0").contains("lora"));

    let text = std::fs::read_to_string(&file).unwrap().replace("batch_size", "batchsize");
    std::fs::write(&file, &text).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("batchsize")).unwrap();
    assert!(
        failure(&["train", config], 2).contains(&format!("small.toml:{line}: unknown key `train.batchsize`"))
    );
    assert!(failure(&["train", "no/such.toml"], 2).contains("no/such.toml: there is no such configuration"));
    failure(&["train"], 2);
}

#[test]
fn a_run_folder_is_never_taken_and_never_invented() {
    let folder = tempfile::tempdir().unwrap();
    trained_clip(folder.path(), &[]);
    let file = folder.path().join("small.toml");
    let config = file.to_str().unwrap();
    assert!(failure(&["train", config], 1).contains("--resume latest"));
    let missing = folder.path().join("small/checkpoints/step-7");
    let resume = ["train", config, "--set", "run.name=other", "--resume", missing.to_str().unwrap()];
    assert!(failure(&resume, 1).contains("step-7: is missing"));
    let eval = failure(&["eval", config, "--set", "run.name=other"], 1);
    assert!(eval.contains("there is no run") && eval.contains("other"), "{eval}");
    assert!(!folder.path().join("other").exists());
}

#[test]
fn models_that_do_not_fit_their_folder_are_refused_with_the_first_three_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let image = folder.path().join("image.png");
    write_png(&image, 90);
    let classify = ["classify", "--model", &model, "--labels", "cat,dog", image.to_str().unwrap()];
    assert!(success(&classify).contains("cat"));

    let config = Path::new(&model).join("config.json");
    let original = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&original).unwrap();
    json["vision_config"]["num_hidden_layers"] = 3.into();
    json["text_config"]["intermediate_size"] = 48.into();
    std::fs::write(&config, json.to_string()).unwrap();
    let error = failure(&classify, 1);
    assert!(error.contains("missing (vision_model.encoder.layers.2."), "{error}");
    assert!(
        error.contains("misshapen (text_model.encoder.layers.0.mlp.fc1.bias is [64], the model's [48]"),
        "{error}"
    );
    std::fs::write(&config, original.replace("\"clip\"", "\"llava\"")).unwrap();
    assert!(failure(&classify, 1).contains("model_type llava is not supported; supported are clip, siglip"));
    std::fs::write(&config, original).unwrap();

    let weights = Path::new(&model).join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(failure(&classify, 1).contains("not a complete safetensors file"));
    std::fs::remove_file(&weights).unwrap();
    assert!(failure(&classify, 1).contains("model.safetensors"));
}

/// A golden of mm-clip, or another of data/goldens.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens").join(name)
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn each_file_that_a_models_folder_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let image = folder.path().join("image.png");
    write_png(&image, 90);
    let classify = ["classify", "--model", &model, "--labels", "cat,dog", image.to_str().unwrap()];
    let without = |names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| Path::new(&model).join(name)).collect();
        let kept: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        let error = failure(&classify, 1);
        files.iter().zip(kept).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
        error
    };
    assert!(without(&["preprocessor_config.json"]).contains("preprocessor_config.json"));
    assert!(without(&["tokenizer.json"]).contains("holds no tokenizer: expected tokenizer.json, vocab.json"));
    assert!(without(&["model.safetensors"]).contains("there are no weights here"));
    assert!(without(&["config.json"]).contains("neither config.json nor open_clip_config.json is here"));
    success(&classify);

    let sharded = folder.path().join("sharded");
    copy_files(&golden("clip/clip-sharded"), &sharded);
    std::fs::remove_file(sharded.join("model-00003-of-00004.safetensors")).unwrap();
    let error = failure(&["inspect", sharded.to_str().unwrap()], 1);
    assert!(error.contains("the shard model-00003-of-00004.safetensors is missing"), "{error}");
}

#[test]
fn unsupported_architectures_are_named_beside_the_supported_ones() {
    let folder = tempfile::tempdir().unwrap();
    let changed = |model: &str, config: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let _ = std::fs::remove_dir_all(folder.path().join(model));
        copy_files(&golden("clip").join(model), &folder.path().join(model));
        let file = folder.path().join(model).join(config);
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&file, json.to_string()).unwrap();
        failure(&["inspect", folder.path().join(model).to_str().unwrap()], 1)
    };
    for (model_type, expected) in [
        ("chinese_clip", "model_type chinese_clip is not supported; supported are clip, siglip"),
        ("siglip2", "NaFlex"),
        ("blip-2", "model_type blip-2 is not supported; supported are clip, siglip"),
    ] {
        let error = changed("clip", "config.json", &|json| json["model_type"] = model_type.into());
        assert!(error.contains(expected), "{error}");
    }
    let open_clip = |place: &str, value: serde_json::Value| {
        changed("open-clip-vit", "open_clip_config.json", &|json| {
            *json["model_cfg"].pointer_mut(place).unwrap() = value.clone();
        })
    };
    let vision = serde_json::json!({ "timm_model_name": "vitamin_base", "image_size": 32 });
    let error = open_clip("/vision_cfg", vision);
    assert!(error.contains("timm_model_name = vitamin_base with a text tower of open_clip's own"), "{error}");
    let text = serde_json::json!({ "hf_model_name": "roberta-base" });
    let error = open_clip("/text_cfg", text);
    assert!(error.contains("hf_model_name = roberta-base with an image tower of open_clip's own"), "{error}");
    let coca = changed("open-clip-vit", "open_clip_config.json", &|json| {
        json["model_cfg"]["multimodal_cfg"] = serde_json::json!({ "layers": 2 });
    });
    assert!(coca.contains("CoCa (multimodal_cfg) is not supported"), "{coca}");
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::remove_file(Path::new(&model).join(file)).unwrap();
    }
    for file in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden("text/clip_tokenizer").join(file), Path::new(&model).join(file)).unwrap();
    }
    let texts = folder.path().join("texts.txt");
    std::fs::write(&texts, "a cat\n").unwrap();
    let out = folder.path().join("rows.safetensors");
    let embed =
        ["embed", "--model", &model, "--texts", texts.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let error = failure(&embed, 1);
    assert!(error.contains("its vocabulary has 4514 tokens, the tower's embedding"), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let model = golden("clip/clip");
    let inspect = ["inspect", "--tensors", model.to_str().unwrap()];
    let mut child = command(&inspect).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_and_labels_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let (good, broken) = (folder.path().join("good.png"), folder.path().join("broken.png"));
    write_png(&good, 10);
    std::fs::write(&broken, &std::fs::read(&good).unwrap()[..60]).unwrap();
    let classify = |labels: &str, image: &Path| {
        failure(&["classify", "--model", &model, "--labels", labels, image.to_str().unwrap()], 1)
    };
    assert!(classify("a,b", &broken).contains("broken.png"));
    assert!(classify("a,b", &folder.path().join("none.png")).contains("none.png"));
    assert!(classify("a,a", &good).contains("given twice"));
    let heat = folder.path().join("heat.png");
    let heat = heat.to_str().unwrap();
    let packed =
        ["attention", "--model", &model, "--precision", "bf16", good.to_str().unwrap(), "cat", "--out", heat];
    assert!(failure(&packed, 1).contains("use --precision f32"));
}

#[test]
fn broken_images_in_a_folder_are_skipped_counted_and_limited() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for shade in 0..5 {
        write_png(&images.join(format!("{shade}.png")), shade * 40);
    }
    std::fs::write(images.join("broken.png"), b"\x89PNG\r\n\x1a\nno picture").unwrap();
    let out = folder.path().join("rows.safetensors");
    let embed = |more: &[&str]| {
        let images = images.to_str().unwrap();
        let base = ["embed", "--model", &model, "--images", images, "--out", out.to_str().unwrap(), "--json"];
        [&base[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let strict: Vec<String> = embed(&[]);
    let error = failure(&strict.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    assert!(error.contains("1 of 6 images cannot be read, more than --max-bad-samples 0 ("), "{error}");
    assert!(error.contains("broken.png: cannot decode the image"), "{error}");
    assert!(error.contains("the 5 others are in") && error.ends_with("--max-bad-samples 1"), "{error}");
    let given = std::fs::read(&out).unwrap();
    let lenient: Vec<String> = embed(&["--max-bad-samples", "1"]);
    let output = mm(&lenient.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("broken"));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["rows"], &result["bad_samples"]), (&5.into(), &1.into()));
    assert_eq!(
        std::fs::read(&out).unwrap(),
        given,
        "what could be read is given either way, in the same bytes"
    );
}

#[test]
fn data_that_is_empty_or_not_there_is_named_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path());
    let train = |source: &str, code: i32| {
        let set = format!("data.train={source}");
        failure(&["train", file.to_str().unwrap(), "--set", &set], code)
    };
    let empty = folder.path().join("empty.csv");
    std::fs::write(&empty, "image,caption\n").unwrap();
    let table = |path: &Path| format!("{{ kind = \"csv\", path = {path:?} }}");
    assert!(train(&table(&empty), 1).contains("empty.csv"));
    assert!(train(&table(&folder.path().join("none.csv")), 1).contains("none.csv"));
    assert!(train("{ kind = \"emoji\", split = \"held-out\" }", 2).contains("held_out"));
    assert!(!folder.path().join("small").exists(), "a run that cannot start leaves no folder");
}
