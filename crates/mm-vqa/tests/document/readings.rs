//! Pages that are read.

use crate::{MODELS, expected, pipeline};
use mm_data::DocumentValue;
use mm_image::RgbImage;
use mm_image::image::Rgb;
use mm_text::generate::GenerationConfig;

/// Pages of several shapes.
fn pages() -> Vec<RgbImage> {
    let page = |width: u32, height: u32, step: u32| {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * step % 251) as u8, (y * step * 3 % 255) as u8, ((x + y) * 7 % 200) as u8])
        })
    };
    vec![page(54, 72, 5), page(90, 40, 11), page(27, 36, 3), page(200, 200, 1)]
}

#[test]
fn a_page_is_read_the_same_alone_and_among_others() {
    for name in MODELS {
        let pipeline = pipeline(name);
        let pages = pages();
        for num_beams in [1, 3] {
            let generation =
                GenerationConfig { num_beams, max_new_tokens: 12, ..GenerationConfig::default() };
            let together = pipeline.read(&pages, Some("<s_cord>"), &generation).unwrap();
            for (page, expected) in pages.iter().zip(&together) {
                let alone = pipeline.read(std::slice::from_ref(page), Some("<s_cord>"), &generation).unwrap();
                assert_eq!((&alone[0].json, alone[0].finished), (&expected.json, expected.finished));
                for (field, expected) in alone[0].fields.iter().zip(&expected.fields) {
                    assert!((field.confidence - expected.confidence).abs() < 1e-4);
                    assert_eq!((&field.path, &field.text), (&expected.path, &expected.text));
                }
            }
        }
    }
}

#[test]
fn fields_have_confidences_and_places_on_the_page() {
    let pipeline = pipeline("equal");
    let pages = pages();
    let generation = GenerationConfig { max_new_tokens: 12, ..GenerationConfig::default() };
    let mut places = 0;
    for (page, reading) in pages.iter().zip(pipeline.read(&pages, Some("<s_cord>"), &generation).unwrap()) {
        assert_ne!(reading.json, DocumentValue::Text(String::new()));
        for field in &reading.fields {
            assert!((0.0..=1.0).contains(&field.confidence), "{field:?}");
            if let Some([x0, y0, x1, y1]) = field.place {
                let (width, height) = (f64::from(page.width()), f64::from(page.height()));
                assert!(0.0 <= x0 && x0 < x1 && x1 <= width && 0.0 <= y0 && y0 < y1 && y1 <= height);
                places += 1;
            }
        }
    }
    assert!(places > 0);
    let states = &expected("equal")["states"];
    let prompt = pipeline.prompt_tokens(Some("<s_cord>")).unwrap();
    let readings = pipeline.read_encoded(states, &prompt, &generation, None).unwrap();
    assert!(readings.iter().flat_map(|reading| &reading.fields).all(|field| field.place.is_none()));
}

#[test]
fn a_limit_beyond_the_positions_of_the_decoder_is_cut_to_them() {
    let pipeline = pipeline("projected");
    let generation = GenerationConfig { max_new_tokens: 500, ..GenerationConfig::default() };
    assert_eq!(pipeline.generation.max_new_tokens, 24);
    for prompt in ["<s_cord>", "<s_cord><s_nm>coffee</s_nm><s_cnt>"] {
        let readings = pipeline.read(&pages(), Some(prompt), &generation).unwrap();
        assert_eq!(readings.len(), 4);
    }
}
