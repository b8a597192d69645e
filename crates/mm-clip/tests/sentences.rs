//! Sentence embeddings against sentence-transformers': what `xtask/goldens/sentences.py` saved.

use mm_clip::{OpenOptions, TextEmbedder};
use std::path::{Path, PathBuf};
use tch::Tensor;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/sentences").join(name)
}

#[test]
fn embeddings_equal_sentence_transformers() {
    let sentences = std::fs::read_to_string(golden("sentences.json")).unwrap();
    let sentences: Vec<String> = serde_json::from_str(&sentences).unwrap();
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    for (name, context_length) in [("mean", 12), ("cls", 16)] {
        let model = TextEmbedder::open(golden(name).to_str().unwrap(), &OpenOptions::default()).unwrap();
        assert_eq!(model.tokenizer.context_length(), context_length, "{name}");
        let [(_, expected)] =
            Tensor::read_safetensors(golden(name).join("expected.safetensors")).unwrap().try_into().unwrap();
        for batch_size in [1, sentences.len()] {
            let rows = model.embed(&sentences, batch_size).unwrap();
            assert_eq!(rows.size(), expected.size());
            let difference = (rows - &expected).abs().max().double_value(&[]);
            assert!(difference <= 1e-5, "{name}, {batch_size} at once: differs by {difference}");
        }
        assert!(model.tokenizer.over_long() > 0, "{name}: no sentence was cut");
    }
}
