//! Preprocessed pages.

use crate::{json, tensors};
use mm_vqa::document::DocumentProcessor;
use serde::Deserialize;
use std::path::Path;
use tch::Kind;

/// A case of `pages.json`.
#[derive(Deserialize)]
struct Case {
    page: String,
    size: (u32, u32),
    align: bool,
}

#[test]
fn pixels_equal_transformers_within_one_level() {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos");
    let levels = tensors("pages.safetensors");
    let cases: Vec<Case> = json("pages.json");
    assert!(cases.len() >= 12);
    for (index, Case { page, size, align }) in cases.iter().enumerate() {
        let bytes = std::fs::read(photos.join(format!("{page}.png"))).unwrap();
        let image = mm_image::decode(&bytes, [255; 3]).unwrap();
        let processor = DocumentProcessor::new(size.0, size.1).with_long_axis_aligned(*align);
        let pixels = processor.process_batch(&[image]).unwrap().get(0);
        let found = (pixels / 2.0 + 0.5) * 255.0;
        let expected = levels[&index.to_string()].to_kind(Kind::Float);
        assert_eq!(found.size(), expected.size());
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference <= 1.01, "{page} of {size:?}, aligned {align}: {difference} levels");
    }
}
