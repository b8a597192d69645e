//! Ids, outputs and gradients equal transformers' (`data/goldens/text`, written by `xtask/goldens/text.py`).

use mm_core::checkpoint::{self, hf_names};
use mm_text::{
    BertConfig, BertPooling, ClipTextConfig, ClipTextVariant, TextClean, TextTowerConfig, TokenBatch,
    Tokenizer,
};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/text").join(name)
}

fn json<T: DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn assert_ids_equal(folder: &str) {
    assert_tokenizer_equals(&Tokenizer::from_dir(&golden(folder)).unwrap(), folder, |_| false);
}

fn assert_tokenizer_equals(tokenizer: &Tokenizer, folder: &str, is_known_to_differ: impl Fn(&str) -> bool) {
    let captions: Vec<String> = json(&golden("captions.json"));
    let expected: Vec<Vec<u32>> = json(&golden(folder).join("ids.json"));
    assert_eq!(captions.len(), 1000);
    let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
    let ids = tokenizer.encode_all(&texts).unwrap();
    for ((text, expected), ids) in texts.iter().zip(&expected).zip(&ids) {
        if is_known_to_differ(text) {
            assert_ne!(ids, expected, "{text:?} does not differ any more");
            continue;
        }
        assert_eq!(ids, expected, "{text:?}");
        assert_eq!(&tokenizer.encode(text).unwrap(), expected, "{text:?}");
    }
    assert!(tokenizer.over_long() > 0);
}

#[test]
fn clip_ids_of_1000_captions_equal_transformers() {
    assert_ids_equal("clip_tokenizer");
}

#[test]
fn bert_ids_of_1000_captions_equal_transformers() {
    assert_ids_equal("bert_tokenizer");
}

#[test]
fn ids_of_a_cased_vocab_txt_equal_transformers() {
    assert_ids_equal("bert_vocab_txt");
}

#[test]
fn ids_of_siglips_sentencepiece_model_equal_transformers() {
    let tokenizer = Tokenizer::from_dir(&golden("siglip_spiece")).unwrap();
    // Of splits that are equally likely each takes another; and the library normalizes no letter under three
    // accents.
    let is_repeated = |text: &str, letter: char| text.len() > 9 && text.chars().all(|other| other == letter);
    assert_tokenizer_equals(&tokenizer, "siglip_spiece", |text| {
        is_repeated(text, 'x') || is_repeated(text, '😀') || text == "a\u{300}\u{301}\u{302} stacked"
    });
}

#[test]
fn ids_of_siglip_2_equal_transformers() {
    assert_ids_equal("siglip2_tokenizer");
}

#[test]
fn ids_of_openais_own_tokenizer_equal_open_clips() {
    // As in transformers, a special token that is written out is that token, and a sigma at a word's end is
    // like any other.
    assert_tokenizer_equals(&Tokenizer::openai_clip().unwrap(), "openai_tokenizer", |text| {
        text.contains("<|startoftext|>") || text.contains("<|endoftext|>") || text.contains("ΟΔΟΣ")
    });
}

#[test]
fn cleaned_texts_and_their_ids_equal_open_clips() {
    let rows: Vec<serde_json::Value> = json(&golden("cleaned.json"));
    assert!(rows.len() > 350);
    let openais = || Tokenizer::openai_clip().unwrap();
    let tokenizers = [
        openais().with_case_kept().and_then(|tokenizer| tokenizer.with_text_clean(TextClean::Whitespace)),
        openais().with_text_clean(TextClean::Lower),
        openais().with_text_clean(TextClean::Canonicalize),
    ];
    for tokenizer in tokenizers.map(Result::unwrap) {
        let clean = tokenizer.text_clean();
        let texts: Vec<&str> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
        let together = tokenizer.encode_all(&texts).unwrap();
        for ((row, text), together) in rows.iter().zip(texts).zip(together) {
            let expected = &row[clean.name()];
            assert_eq!(clean.clean(text), expected["text"].as_str().unwrap(), "{text:?}, {clean:?}");
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids, together);
            assert_eq!(serde_json::json!(ids[1..ids.len() - 1]), expected["ids"], "{text:?}, {clean:?}");
        }
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn assert_tower_equals(folder: &str, config: &TextTowerConfig) {
    let vs = VarStore::new(Device::Cpu);
    let tower = config.build(&vs.root()).unwrap();
    checkpoint::load(&vs, &golden(folder).join("model.safetensors"), hf_names).unwrap();
    let mut expected: HashMap<String, Tensor> =
        Tensor::read_safetensors(golden(folder).join("expected.safetensors")).unwrap().into_iter().collect();
    let mut take = |name: &str| expected.remove(name).unwrap();
    let tokens = TokenBatch { input_ids: take("input_ids"), attention_mask: take("attention_mask") };
    let (output, direction) = (take("output"), take("direction"));

    let y = tower.forward(&tokens);
    assert!(largest_difference(&y, &output) <= 1e-4, "{folder}: {}", largest_difference(&y, &output));
    (y * direction).sum(Kind::Float).backward();
    let mut gradients = HashMap::new();
    for (name, variable) in vs.variables() {
        let parts = hf_names(&name);
        let rows = variable.grad().chunk(parts.len() as i64, 0);
        gradients.extend(parts.into_iter().zip(rows));
    }
    assert!(!expected.is_empty());
    for (name, expected) in &expected {
        let gradient = &gradients[name.strip_prefix("grad.").unwrap()];
        let relative = largest_difference(gradient, expected) / expected.abs().max().double_value(&[]);
        assert!(relative <= 1e-3, "{folder}: {name}: {relative}");
    }
}

fn clip_config(folder: &str, variant: ClipTextVariant) -> TextTowerConfig {
    TextTowerConfig::Clip(
        ClipTextConfig::from_hf(&json(&golden(folder).join("config.json")), variant).unwrap(),
    )
}

#[test]
fn clip_towers_equal_transformers() {
    for folder in ["clip_quick_gelu", "clip_gelu", "clip_legacy_eos"] {
        assert_tower_equals(folder, &clip_config(folder, ClipTextVariant::Clip));
    }
}

#[test]
fn siglip_tower_equals_transformers() {
    assert_tower_equals("siglip", &clip_config("siglip", ClipTextVariant::Siglip));
}

#[test]
fn bert_towers_equal_transformers_in_each_pooling() {
    let cases = [
        ("bert_cls", BertPooling::Cls),
        ("bert_mean", BertPooling::Mean),
        ("bert_pooler", BertPooling::Pooler),
    ];
    for (folder, pooling) in cases {
        let config = BertConfig::from_hf(&json(&golden(folder).join("config.json")), pooling).unwrap();
        assert_tower_equals(folder, &TextTowerConfig::Bert(config));
    }
}
