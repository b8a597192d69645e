//! Sequences of tags and texts.

use crate::json;
use mm_vqa::document::from_tokens;
use serde::Deserialize;
use serde_json::Value;

/// `token2json.json`.
#[derive(Deserialize)]
struct Sequences {
    added: Vec<String>,
    cases: Vec<(String, Value)>,
}

#[test]
fn documents_of_sequences_equal_transformers() {
    let Sequences { added, cases } = json("token2json.json");
    assert!(cases.len() >= 150);
    for (sequence, expected) in cases {
        let found = from_tokens(&sequence, &|token| added.iter().any(|added| added == token)).to_json();
        assert_eq!(found, expected, "{sequence:?}");
    }
}
