//! Models from one form to another, between two, at another resolution, and training that begins from one.

use crate::common::{failure, success, trained_clip, write_png};
use std::path::{Path, PathBuf};

struct Models {
    folder: tempfile::TempDir,
    model: String,
}

impl Models {
    /// A model of two steps.
    fn new() -> Self {
        Self::with(&[])
    }

    /// As [`Models::new`], with `KEY=VALUE`s that change the config.
    fn with(changes: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = trained_clip(folder.path(), changes);
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Converts `from` with `options` to the folder `to`.
    fn convert(&self, from: &str, to: &str, options: &[&str]) -> String {
        let to = self.text(to);
        success(&[&["convert", "--from", from, "--to", &to], options].concat());
        to
    }

    /// The rows that `mm embed` makes of a few images, with `options`.
    fn rows(&self, model: &str, options: &[&str]) -> Vec<f32> {
        let (images, out) = (self.path("images"), self.text("rows.safetensors"));
        if !images.exists() {
            std::fs::create_dir(&images).unwrap();
            for shade in 0..3 {
                write_png(&images.join(format!("{shade}.png")), shade * 100);
            }
        }
        let images = images.to_str().unwrap();
        success(&[&["embed", "--model", model, "--images", images, "--out", &out], options].concat());
        let rows = tch::Tensor::read_safetensors(&out).unwrap().remove(0).1;
        Vec::try_from(rows.contiguous().view(-1)).unwrap()
    }

    fn logits(&self, model: &str) -> String {
        let image = self.path("image.png");
        write_png(&image, 200);
        success(&[
            "classify",
            "--model",
            model,
            "--labels",
            "cat,red heart",
            "--json",
            image.to_str().unwrap(),
        ])
    }
}

fn bytes(folder: &str) -> Vec<u8> {
    std::fs::read(Path::new(folder).join("model.safetensors")).unwrap()
}

fn json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// What OpenAI's form takes for granted: heads of 64, an MLP four times as wide.
const OPENAIS_SHAPE: [&str; 6] = [
    "model.image.hidden_size=64",
    "model.image.num_attention_heads=1",
    "model.image.intermediate_size=256",
    "model.text.hidden_size=64",
    "model.text.num_attention_heads=1",
    "model.text.intermediate_size=256",
];

#[test]
fn a_model_goes_through_open_clips_and_openais_forms_and_comes_back_bit_for_bit() {
    let models = Models::with(&OPENAIS_SHAPE);
    let expected = models.logits(&models.model);
    let mut model = models.model.clone();
    for (form, file) in [("open_clip", "open_clip_model"), ("openai", "model"), ("hf", "model")] {
        model = models.convert(&model, form, &["--format", form]);
        assert!(Path::new(&model).join(format!("{file}.safetensors")).exists());
        assert_eq!(models.logits(&model), expected, "{form}");
    }
    assert_eq!(bytes(&model), bytes(&models.model));
    let config = |folder: &str| json(&Path::new(folder).join("config.json"));
    assert_eq!(config(&model), config(&models.model));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_text() {
    let models = Models::new();
    let (texts, out) = (models.text("texts.txt"), models.text("texts.safetensors"));
    let rows = |bytes: &[u8]| -> Vec<f32> {
        std::fs::write(&texts, bytes).unwrap();
        success(&["embed", "--model", &models.model, "--texts", &texts, "--out", &out]);
        let rows = tch::Tensor::read_safetensors(&out).unwrap().remove(0).1;
        assert_eq!(rows.size()[0], 2);
        Vec::try_from(rows.contiguous().view(-1)).unwrap()
    };
    let plain = rows(b"red heart\ncat\n");
    assert_eq!(rows(b"\xef\xbb\xbfred heart\r\ncat\r\n"), plain);
    let utf_16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain("red heart\r\ncat\r\n".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    assert_eq!(rows(&utf_16), plain);
    std::fs::write(&texts, b"red heart\ncaf\xe9\n").unwrap();
    let error = failure(&["embed", "--model", &models.model, "--texts", &texts, "--out", &out], 1);
    assert!(error.contains("texts.txt:2: column 4: not UTF-8 text"), "{error}");
}

#[test]
fn a_form_that_cannot_tell_a_models_config_refuses_it_and_leaves_nothing() {
    let models = Models::new();
    let to = models.text("openai");
    let error = failure(&["convert", "--from", &models.model, "--to", &to, "--format", "openai"], 1);
    assert!(error.contains("vision_cfg.head_width is 16, and readers would use 64"), "{error}");
    assert!(!Path::new(&to).exists());
    let gelu = Models::with(
        &[&OPENAIS_SHAPE[..], &["model.image.hidden_act=gelu", "model.text.hidden_act=gelu"]].concat(),
    );
    let error = failure(&["convert", "--from", &gelu.model, "--to", &to, "--format", "openai"], 1);
    assert!(error.contains("quick_gelu is false, and readers would use true"), "{error}");
}

#[test]
fn open_clip_is_warned_of_a_tokenizer_that_is_not_its_own() {
    let models = Models::new();
    let open_clip = models.convert(&models.model, "open_clip", &["--format", "open_clip"]);
    let folder = Path::new(&open_clip);
    let config = json(&folder.join("open_clip_config.json"));
    assert_eq!(config["model_cfg"]["text_cfg"]["hf_tokenizer_name"], "local-dir");
    let classify = ["classify", "--model", &open_clip, "--labels", "cat,dog", &models.text("image.png")];
    let expected = models.logits(&models.model);
    assert_eq!(models.logits(&open_clip), expected);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    let error = failure(&classify, 1);
    assert!(
        error.contains("open_clip_config.json: the tokenizer is local-dir, whose files are not here"),
        "{error}"
    );
}

#[test]
fn preprocessing_may_stand_in_the_file_of_the_whole_processor() {
    let models = Models::new();
    let expected = models.logits(&models.model);
    let file = Path::new(&models.model).join("preprocessor_config.json");
    let whole = serde_json::json!({ "image_processor": json(&file), "processor_class": "CLIPProcessor" });
    std::fs::write(file.with_file_name("processor_config.json"), whole.to_string()).unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(models.logits(&models.model), expected);
}

#[test]
fn any_checkpoint_of_a_run_is_a_model_with_the_averaged_weights() {
    let models = Models::with(&["train.checkpoint_every=1"]);
    let latest = models.text("small/checkpoints/latest");
    let converted = models.convert(&latest, "converted", &[]);
    assert_eq!(bytes(&converted), bytes(&models.model), "the last step's averages");
    assert_eq!(models.rows(&latest, &[]), models.rows(&models.model, &[]));
    assert_eq!(models.logits(&converted), models.logits(&models.model));
    let first = models.convert(&models.text("small/checkpoints/step-1"), "first", &["--format", "open_clip"]);
    assert_ne!(models.rows(&first, &[]), models.rows(&models.model, &[]));
    assert!(success(&["inspect", &latest]).contains("checkpoint"));

    // A run that has not ended is measured as it is.
    let run = models.text("small");
    let measured = success(&["eval", &run, "--json"]);
    std::fs::rename(&models.model, models.path("model")).unwrap();
    assert_eq!(success(&["eval", &run, "--json"]), measured);
    let message = failure(&["convert", "--from", &run, "--to", &models.text("to")], 1);
    assert!(
        message.contains("is a run's folder: its model is") && message.contains("checkpoints/latest"),
        "{message}"
    );
}

#[test]
fn narrower_weights_are_smaller_and_point_the_same_way() {
    let models = Models::new();
    let exact = models.rows(&models.model, &[]);
    let size =
        |file: &Path| std::fs::metadata(file).unwrap().len() as f64 / bytes(&models.model).len() as f64;
    for (options, file, dtype, smaller_than) in [
        (["--dtype", "f16"].as_slice(), "model.safetensors", "float16", 0.55),
        (&["--dtype", "bf16"], "model.safetensors", "bfloat16", 0.55),
        // transformers would take the integers for weights: it does not find them.
        (&["--int8"], "model.int8.safetensors", "float32", 0.9),
    ] {
        let narrow = models.convert(&models.model, options.last().unwrap(), options);
        let folder = Path::new(&narrow);
        assert!(size(&folder.join(file)) < smaller_than, "{options:?}: {}", size(&folder.join(file)));
        assert_eq!(folder.join("model.safetensors").exists(), file == "model.safetensors");
        assert_eq!(json(&folder.join("config.json"))["dtype"], dtype);
        let rows = models.rows(&narrow, &[]);
        for (a, b) in exact.chunks(32).zip(rows.chunks(32)) {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert!(cosine > 0.999, "{options:?}: {cosine}");
        }
    }
    let (stored, at_run_time) = (models.text("--int8"), models.model.clone());
    assert_eq!(
        models.rows(&stored, &["--precision", "int8"]),
        models.rows(&at_run_time, &["--precision", "int8"])
    );
}

#[test]
fn two_models_are_averaged_weight_by_weight() {
    let models = Models::new();
    let config = models.text("small.toml");
    success(&[
        "train",
        &config,
        "--set",
        "run.name=other",
        "--set",
        "train.steps=3",
        "--set",
        "train.warmup=1",
    ]);
    let other = models.text("other/model");
    let wise = |alpha: &str| {
        let to = models.text(&format!("wise-{alpha}"));
        success(&["convert", "--wise-ft", &models.model, &other, "--alpha", alpha, "--to", &to]);
        to
    };
    assert_eq!(bytes(&wise("0")), bytes(&models.model));
    assert_eq!(bytes(&wise("1")), bytes(&other));
    let half = wise("0.5");
    assert!(bytes(&half) != bytes(&other) && bytes(&half) != bytes(&models.model));
    assert!(
        failure(&["convert", "--wise-ft", &models.model, &other, "--to", "x"], 2)
            .contains("required arguments")
    );
}

#[test]
fn a_model_takes_images_of_another_resolution() {
    let models = Models::new();
    let larger = models.convert(&models.model, "larger", &["--resolution", "64"]);
    assert!(success(&["inspect", &larger]).contains("64 px in patches of 16"));
    let (converted, asked) = (models.rows(&larger, &[]), models.rows(&models.model, &["--resolution", "64"]));
    assert_eq!(converted, asked);
    assert_ne!(converted, models.rows(&models.model, &[]));
}

#[test]
fn a_run_begins_from_a_model_and_keeps_what_is_locked() {
    let models = Models::new();
    let file = models.path("tuned.toml");
    let data = "[data]\ntrain = { kind = \"emoji\", split = \"train\" }\neval.held_out = { kind = \
    \"emoji\", split = \"held_out\" }\n";
    let train = "[train]\nsteps = 3\nbatch_size = 16\nlr = 1e-3\nlayer_decay = 0.5\n";
    let run = format!("[run]\ntask = \"clip\"\nname = \"NAME\"\nout = {:?}\n", models.folder.path());
    let tune = |name: &str, model: &str| {
        std::fs::write(&file, format!("{}\n[model]\n{model}\n{data}{train}", run.replace("NAME", name)))
            .unwrap();
        success(&["train", file.to_str().unwrap()]);
        let read = |folder: &str| -> std::collections::BTreeMap<String, tch::Tensor> {
            let file = Path::new(folder).join("model.safetensors");
            tch::Tensor::read_safetensors(file).unwrap().into_iter().collect()
        };
        let (before, after) = (read(&models.model), read(&models.text(&format!("{name}/model"))));
        move |tensor: &str| before[tensor] != after[tensor]
    };
    let from = format!("from = {:?}", models.model);
    let changed =
        tune("locked", &format!("{from}\nlock_text = {{}}\nlock_image = {{ unlocked_groups = 2 }}"));
    assert!(!changed("text_model.encoder.layers.0.mlp.fc1.weight") && !changed("text_projection.weight"));
    assert!(
        !changed("vision_model.encoder.layers.0.mlp.fc1.weight")
            && !changed("vision_model.embeddings.class_embedding")
    );
    assert!(changed("vision_model.encoder.layers.1.mlp.fc1.weight") && changed("visual_projection.weight"));
    let changed = tune("larger", &format!("{from}\nresolution = 64"));
    assert!(
        changed("text_projection.weight") && changed("vision_model.embeddings.position_embedding.weight")
    );

    let lit = "embed_dim = 32\nimage_projection = true\nlock_text = { unlocked_groups = 1 }\n";
    let image = "image = { kind = \"vit\", image_size = 32, patch_size = 16, hidden_size = 32, \
    intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2 }";
    let changed = tune("lit", &format!("{lit}text_from = {:?}\n{image}", models.model));
    assert!(!changed("text_model.encoder.layers.0.mlp.fc1.weight") && changed("text_projection.weight"));
}

#[test]
fn locked_weights_are_stored_once_a_run_and_every_checkpoint_has_them() {
    let models = Models::new();
    let file = models.path("tuned.toml");
    let config = format!(
        "[run]\ntask = \"clip\"\nname = \"tuned\"\nout = {:?}\n[model]\nfrom = {:?}\nlock_text = {{}}\n\
         [data]\ntrain = {{ kind = \"emoji\", split = \"held_out\" }}\n\
         [train]\nsteps = 4\nbatch_size = 16\nlr = 1e-3\nema = 0.9\ncheckpoint_every = 2\n",
        models.folder.path(),
        models.model
    );
    std::fs::write(&file, config).unwrap();
    let train = |more: &[&str]| success(&[&["train", file.to_str().unwrap()], more].concat());
    train(&[]);
    let run = models.path("tuned");
    let names = |file: &str| -> Vec<String> {
        let tensors = tch::Tensor::read_safetensors(run.join(file)).unwrap();
        tensors.into_iter().map(|(name, _)| name).collect()
    };
    let is_text = |name: &String| name.starts_with("text_model.");
    assert!(
        names("frozen.safetensors").iter().all(|name| is_text(name) || name.starts_with("text_projection"))
    );
    for part in ["model.safetensors", "ema.safetensors"] {
        assert!(!names(&format!("checkpoints/step-2/{part}")).iter().any(is_text), "{part}");
    }
    assert!(names("model/model.safetensors").iter().any(is_text));
    let model = || std::fs::read(run.join("model/model.safetensors")).unwrap();
    let straight = model();
    // A checkpoint is a model, and the run continues from it without the model that it began from.
    assert_eq!(models.rows(models.text("tuned/checkpoints/step-2").as_str(), &[]).len(), 3 * 32);
    for folder in ["model", "checkpoints/step-4"] {
        std::fs::remove_dir_all(run.join(folder)).unwrap();
    }
    std::fs::remove_file(run.join("checkpoints/latest")).unwrap();
    std::fs::remove_dir_all(&models.model).unwrap();
    train(&["--resume", "latest"]);
    assert!(straight == model(), "resumed at step 2 and unbroken");
}

#[test]
fn a_linear_probe_tells_classes_apart_and_is_written() {
    let models = Models::new();
    for (set, shift) in [("train", 0), ("test", 3)] {
        for class in ["dark", "light"] {
            let folder = models.path(set).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for shade in 0..6 {
                let base = if class == "dark" { 20 } else { 200 };
                write_png(&folder.join(format!("{shade}.png")), base + 4 * shade + shift);
            }
        }
    }
    let (train, test, out) = (models.text("train"), models.text("test"), models.text("probe.safetensors"));
    let probe = ["probe", "--model", &models.model, "--train", &train, "--test", &test];
    let report = success(&[&probe[..], &["--json", "--out", &out]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["accuracy"], &report["classes"]),
        (&1.0.into(), &serde_json::json!(["dark", "light"]))
    );
    assert!(report["sweep"].as_array().unwrap().len() > 7);
    let written: Vec<String> =
        tch::Tensor::read_safetensors(&out).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(written.contains(&"weight".to_owned()) && written.contains(&"bias".to_owned()));
    assert!(success(&[&probe[..], &["--c", "0.316"]].concat()).contains("100.0%"));

    std::fs::rename(models.path("test/dark"), models.path("test/grey")).unwrap();
    assert!(failure(&probe, 1).contains("class grey"));
    assert!(failure(&[&probe[..], &["--c", "-1"]].concat(), 2).contains("unexpected argument"));
}

#[test]
fn what_cannot_be_converted_or_begun_from_is_refused_in_words() {
    let models = Models::new();
    let convert = |more: &[&str]| {
        let to = models.text("to");
        failure(&[&["convert", "--to", &to], more].concat(), 1)
    };
    let from = ["--from", models.model.as_str()];
    assert!(convert(&["--from", "no/such/model"]).contains("no/such/model"));
    assert!(convert(&[&from[..], &["--format", "open_clip", "--int8"]].concat()).contains("--format hf"));
    assert!(
        failure(&["convert", "--from", &models.model, "--to", &models.model], 1).contains("exists already")
    );
    assert!(!models.path("to").exists());

    let pickle = models.path("pickle");
    std::fs::create_dir(&pickle).unwrap();
    std::fs::copy(Path::new(&models.model).join("config.json"), pickle.join("config.json")).unwrap();
    std::fs::write(pickle.join("pytorch_model.bin"), "PK").unwrap();
    assert!(convert(&["--from", pickle.to_str().unwrap()]).contains("pytorch_model.bin, a pickle"));

    let config = models.text("small.toml");
    let with = |key_value: &str| failure(&["train", &config, "--set", key_value], 2);
    assert!(with("model.from=x").contains("the checkpoint that `model.from` names has it already"));
    assert!(with("model.image_from=x").contains("keep one"));
    assert!(with("train.layer_decay=2").contains("at most 1"));
    assert!(with("model.lock_text={ unlocked = 1 }").contains("unlocked_groups"));
}

#[test]
fn a_captioner_is_converted_and_inspected() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/goldens/caption/vit-gpt2-projected");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let to = path("bf16");
    success(&["convert", "--from", golden, "--to", &to, "--dtype", "bf16"]);
    let shown = success(&["inspect", &to]);
    for part in
        ["cross-attention over the image's tokens", "special tokens  begin ", "enc_to_dec_proj", "BF16"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let facts = |model: &str| -> serde_json::Value {
        serde_json::from_str(&success(&["inspect", "--json", model])).unwrap()
    };
    let (golden_facts, facts) = (facts(golden), facts(&to));
    for name in ["architecture", "parameters", "special_tokens"] {
        assert_eq!(facts[name], golden_facts[name], "{name}");
    }
    assert!(facts["architecture"]["variant"] == "encoder_decoder" && facts["parameters"].is_u64());

    let to = path("other");
    let refused =
        |options: &[&str]| failure(&[&["convert", "--from", golden, "--to", &to], options].concat(), 1);
    assert!(refused(&["--int8"]).contains("`--dtype bf16`"));
    assert!(refused(&["--format", "open_clip"]).contains("--format hf"));
    assert!(refused(&["--resolution", "64"]).contains("this is a captioner"));
    assert!(!Path::new(&to).exists());
}
