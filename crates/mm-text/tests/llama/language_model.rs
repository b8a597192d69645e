//! Folders of text models: tokenizers, forms of files, and what is wrong with them.

use crate::{FOLDERS, golden, json, largest_difference, load, tensors};
use mm_core::checkpoint::{StoredType, TensorLayout, stored, write};
use mm_core::hf::HfFolder;
use mm_core::{OpenOptions, Precision};
use mm_text::LanguageModel;
use mm_text::decoder::TextDecoder;
use mm_text::generate::{GenerationConfig, Hypothesis};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A copy of the folder `name`, its weights in one file of `dtype`.
fn copy(name: &str, dtype: StoredType) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden(name).join(file), to.path().join(file)).unwrap();
    }
    let (vs, _model) = load(name);
    let weights = dtype.convert(stored(vs.variables(), &TensorLayout::HF));
    write(&to.path().join("model.safetensors"), &weights).unwrap();
    to
}

/// Changes fields of a JSON file of `folder`.
fn change(folder: &Path, file: &str, fields: Value) {
    let mut json: Value = json(&folder.join(file));
    for (name, value) in fields.as_object().unwrap() {
        json[name] = value.clone();
    }
    fs::write(folder.join(file), json.to_string()).unwrap();
}

fn open(folder: &Path) -> mm_text::Result<LanguageModel> {
    LanguageModel::open(folder.to_str().unwrap(), &OpenOptions::default())
}

/// Replaces the tensors of `folder` by what `to` makes of them.
fn rewrite(folder: &Path, to: impl FnOnce(&mut Vec<(String, Tensor)>)) {
    let file = folder.join("model.safetensors");
    let mut weights: Vec<(String, Tensor)> = tensors(&file).into_iter().collect();
    to(&mut weights);
    write(&file, &weights).unwrap();
}

fn logits(model: &LanguageModel) -> Tensor {
    let ids = Tensor::from_slice(&[2i64, 4, 14, 8, 18]).unsqueeze(0);
    tch::no_grad(|| model.decoder.logits(&model.decoder.forward(&ids, None))).to_kind(Kind::Float)
}

#[test]
fn prompts_and_texts_equal_transformers() {
    for folder in FOLDERS {
        let (_vs, model) = load(folder);
        let texts: Value = json(&golden(folder).join("texts.json"));
        for case in texts["encode"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(model.prompt(case["text"].as_str().unwrap(), 0).unwrap().tokens, ids, "{case}");
        }
        for case in texts["decode"].as_array().unwrap() {
            let tokens: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let text = model.decode(&Hypothesis { tokens, ..Hypothesis::default() }).unwrap();
            assert_eq!(text, case["text"].as_str().unwrap(), "{case}");
        }
        assert_eq!(model.begin.is_some(), folder != "qwen2");
        // The text of a chat template has its own begin token.
        let first = model.tokenizer.token(2).unwrap();
        let prompt = model.chat_prompt(&format!("{first} a star"), 5).unwrap();
        assert_eq!((prompt.tokens, prompt.seed), (vec![2, 4, 35], 5));
    }
}

#[test]
fn files_of_half_precision_and_shards_open_in_every_precision() {
    for folder in FOLDERS {
        let expected = logits(&load(folder).1);
        for (dtype, bound) in [(StoredType::F32, 1e-5), (StoredType::F16, 0.01), (StoredType::Bf16, 0.05)] {
            let copied = copy(folder, dtype);
            for (precision, own) in [(Precision::F32, 0.0), (Precision::Bf16, 0.05), (Precision::Int8, 0.1)] {
                let options = OpenOptions { precision, ..OpenOptions::default() };
                let model = LanguageModel::open(copied.path().to_str().unwrap(), &options).unwrap();
                let error = ((logits(&model) - &expected).norm() / expected.norm()).double_value(&[]);
                assert!(error < bound + own, "{folder}, {dtype:?}, {precision:?}: off by {error}");
            }
        }
    }
}

#[test]
fn a_tied_output_layer_is_read_from_every_form_of_file() {
    let copied = copy("llama", StoredType::F32);
    let expected = logits(&open(copied.path()).unwrap());
    let named = |weights: &[(String, Tensor)], name: &str| -> Tensor {
        weights.iter().find(|(found, _)| found == name).unwrap().1.copy()
    };
    // Also of old files, with buffers.
    rewrite(copied.path(), |weights| {
        let words = named(weights, "model.embed_tokens.weight");
        weights.push(("lm_head.weight".to_owned(), words));
        let buffer = Tensor::ones([4], (Kind::Float, Device::Cpu));
        weights.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), buffer));
    });
    let model = open(copied.path()).unwrap();
    assert!(model.config.tie_word_embeddings);
    assert_eq!(largest_difference(&logits(&model), &expected), 0.0);
    rewrite(copied.path(), |weights| weights.retain(|(name, _)| name != "model.embed_tokens.weight"));
    assert_eq!(largest_difference(&logits(&open(copied.path()).unwrap()), &expected), 0.0);
    // Tensors that differ are not tied, whatever the config says.
    rewrite(copied.path(), |weights| {
        let head = named(weights, "lm_head.weight");
        weights.push(("model.embed_tokens.weight".to_owned(), head));
        for (name, tensor) in weights.iter_mut().filter(|(name, _)| name == "lm_head.weight") {
            assert_eq!(name, "lm_head.weight");
            *tensor = &*tensor * 2.0;
        }
    });
    let model = open(copied.path()).unwrap();
    assert!(!model.config.tie_word_embeddings);
    assert!(largest_difference(&logits(&model), &(expected * 2.0)) < 1e-4);
}

#[test]
fn a_text_ends_at_each_of_several_end_tokens() {
    let copied = copy("qwen2", StoredType::F32);
    let greedy = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
    let model = open(copied.path()).unwrap();
    let prompts = [model.prompt("a picture of", 0).unwrap()];
    let text = model.generate(&prompts, &greedy).unwrap().remove(0).remove(0);
    let second = text.tokens[1];
    change(copied.path(), "generation_config.json", json!({"eos_token_id": [3, second], "top_k": 7}));
    let model = open(copied.path()).unwrap();
    assert_eq!((model.end.as_slice(), model.generation.top_k), ([3, second].as_slice(), 7));
    let cut = model.generate(&prompts, &greedy).unwrap().remove(0).remove(0);
    let end = text.tokens.iter().position(|&token| token == second).unwrap();
    assert_eq!((cut.tokens.as_slice(), cut.finished), (&text.tokens[..=end], true));
}

#[test]
fn text_models_are_told_from_others_by_their_config() {
    for folder in FOLDERS {
        assert!(LanguageModel::is_language_model(golden(folder).to_str().unwrap()));
    }
    let copied = copy("llama", StoredType::F32);
    for fields in [json!({"architectures": ["LlamaModel"]}), json!({"model_type": "clip"})] {
        change(copied.path(), "config.json", fields);
        assert!(!LanguageModel::is_language_model(copied.path().to_str().unwrap()));
    }
    assert!(!LanguageModel::is_language_model("/no/such/folder"));
}

/// Makes a folder one that cannot be opened.
type Spoil<'a> = &'a dyn Fn(&Path);

#[test]
fn what_is_wrong_with_a_folder_is_named_with_its_file() {
    let message = |spoil: Spoil| {
        let copied = copy("llama", StoredType::F32);
        spoil(copied.path());
        open(copied.path()).unwrap_err().to_string()
    };
    let config = |fields: Value| move |folder: &Path| change(folder, "config.json", fields.clone());
    let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).unwrap();
    let none = |folder: &Path| {
        change(folder, "config.json", json!({"eos_token_id": null}));
        change(folder, "generation_config.json", json!({"eos_token_id": null}));
    };
    let extra = |folder: &Path| {
        rewrite(folder, |weights| {
            weights.push(("model.extra.weight".to_owned(), Tensor::from_slice(&[1f32])))
        });
    };
    let cases: [(Spoil, &[&str]); 10] = [
        (&remove("config.json"), &["config.json"]),
        (&remove("model.safetensors"), &["model.safetensors"]),
        (&remove("tokenizer.json"), &["holds no tokenizer"]),
        (
            &config(json!({"architectures": ["LlamaForSequenceClassification"]})),
            &["config.json", "text models"],
        ),
        (&config(json!({"model_type": "gemma"})), &["config.json", "model_type is gemma"]),
        (&config(json!({"hidden_act": "relu"})), &["config.json", "hidden_act is \"relu\""]),
        (&config(json!({"vocab_size": 40})), &["its vocabulary has 56 tokens", "40 rows"]),
        (&config(json!({"intermediate_size": 50})), &["model.layers.0.mlp"]),
        (&none, &["config.json", "no eos_token_id"]),
        (&extra, &["model.extra.weight"]),
    ];
    for (spoil, expected) in cases {
        let message = message(spoil);
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
    let foreign = message(&|folder| change(folder, "generation_config.json", json!({"eos_token_id": 57})));
    assert!(foreign.contains("the tokenizer has no token 57"), "{foreign}");
    let vs = VarStore::new(Device::Cpu);
    assert!(LanguageModel::load(&HfFolder::at("/no/such/folder"), &vs).is_err());
}
