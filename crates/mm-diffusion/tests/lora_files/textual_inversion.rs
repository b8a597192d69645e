//! Textual inversion files.

use crate::common::{golden, json, stored};
use mm_core::checkpoint::Weights;
use mm_diffusion::textual_inversion::TextualInversion;
use std::path::Path;
use tch::Tensor;

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, tch::kind::FLOAT_CPU)
}

#[test]
fn several_vectors_become_the_tokens_that_diffusers_makes() {
    let inversion = TextualInversion::open(&golden("textual-inversion.safetensors"), None).unwrap();
    let expected = json("textual-inversion.json");
    assert_eq!(serde_json::json!(inversion.tokens()), expected["tokens"]);
    assert_eq!(inversion.expand(expected["prompt"].as_str().unwrap()), expected["expanded"]);
    assert_eq!(inversion.vectors().size(), [2, 8]);
    assert!(inversion.vectors_2().is_none());
}

#[test]
fn a_prompt_with_the_numbered_tokens_is_expanded_once() {
    let inversion = TextualInversion::new("<x>", ones(&[3, 4]), None).unwrap();
    let expanded = inversion.expand("<x>, <x>");
    assert_eq!(expanded, "<x> <x>_1 <x>_2, <x> <x>_1 <x>_2");
    let single = TextualInversion::new("<y>", ones(&[4]), None).unwrap();
    assert_eq!((single.expand("a <y>").as_str(), single.tokens().len()), ("a <y>", 1));
}

#[test]
fn files_are_written_as_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cat.safetensors");
    TextualInversion::new("<cat>", ones(&[2, 4]), None).unwrap().write(&file).unwrap();
    assert_eq!(Weights::open(&file).unwrap().shape("<cat>"), Some(&[2, 4][..]));
    assert_eq!(TextualInversion::open(&file, Some("<dog>")).unwrap().token(), "<dog>");
    TextualInversion::new("<cat>", ones(&[2, 4]), Some(ones(&[2, 6]))).unwrap().write(&file).unwrap();
    let both = TextualInversion::open(&file, None).unwrap();
    assert_eq!((both.token(), both.vectors().size()), ("cat", vec![2, 4]));
    assert_eq!(both.vectors_2().unwrap().size(), [2, 6]);
}

#[test]
fn what_is_no_textual_inversion_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| TextualInversion::open(path, None).unwrap_err().to_string();
    let message = |tensors: &[(&str, Tensor)]| open(&stored(folder.path(), tensors));
    assert!(message(&[("a", ones(&[2])), ("b", ones(&[2]))]).contains("it has 2 (a, b)"));
    assert!(message(&[]).contains("it has 0"));
    assert!(message(&[("a", ones(&[2, 3, 4]))]).contains("vectors are [d] or [n, d]"));
    assert!(message(&[("a", ones(&[0, 4]))]).contains("must be [d], or [n, d]"));
    assert!(message(&[("a b", ones(&[4]))]).contains("must be a word without spaces"));
    assert!(message(&[("a", ones(&[4]) * f64::NAN)]).contains("NaN or infinite"));
    assert!(message(&[("clip_g", ones(&[2, 4])), ("clip_l", ones(&[3, 4]))]).contains("of the other"));
    assert!(open(&folder.path().join("a.pt")).contains("string_to_param"));
    let infinite = TextualInversion::new("a", ones(&[4]) * f64::INFINITY, None);
    assert!(infinite.unwrap_err().to_string().contains("NaN or infinite"));
}
