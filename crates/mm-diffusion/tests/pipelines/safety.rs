//! The safety checker equals diffusers', and pipelines apply it.

use crate::refusals::copy;
use crate::{assert_equal, expected, golden};
use mm_diffusion::{
    DiffusionPipeline, GenerateOptions, GeneratedImage, ImageRequest, PipelineOptions, SafetyChecker,
};
use mm_image::RgbImage;
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn pictures(images: &Tensor) -> Vec<RgbImage> {
    let (count, height, width, _) = images.size4().unwrap();
    let picture = |index| {
        let bytes = Vec::<u8>::try_from(images.get(index).contiguous().view([-1])).unwrap();
        RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()
    };
    (0..count).map(picture).collect()
}

#[test]
fn scores_and_verdicts_equal_diffusers() {
    let expected = expected("safety");
    let checker = SafetyChecker::open(&golden("safety"), Device::Cpu).unwrap();
    let verdicts = checker.check(&pictures(&expected["images"])).unwrap();
    let rows = |name: &str, row: fn(&mm_diffusion::SafetyVerdict) -> &[f32]| {
        let found: Vec<Tensor> = verdicts.iter().map(|verdict| Tensor::from_slice(row(verdict))).collect();
        assert_equal(name, &Tensor::stack(&found, 0), &expected[name].to_kind(Kind::Float), 1e-4);
    };
    rows("concept_scores", |verdict| &verdict.concept_scores);
    rows("special_scores", |verdict| &verdict.special_scores);
    let flagged: Vec<u8> = verdicts.iter().map(|verdict| verdict.is_flagged().into()).collect();
    assert_eq!(flagged, Vec::<u8>::try_from(&expected["is_flagged"]).unwrap());
    assert!(checker.check(&[]).unwrap().is_empty());
}

/// sd1 with the checker.
fn write_pipeline(folder: &Path) {
    copy(&golden("sd1"), folder);
    for part in ["safety_checker", "feature_extractor"] {
        copy(&golden("safety").join(part), &folder.join(part));
    }
    let index = folder.join("model_index.json");
    let mut parts: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    parts["safety_checker"] = serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    fs::write(&index, parts.to_string()).unwrap();
}

#[test]
fn a_flagged_image_is_black_and_the_others_are_as_without_the_checker() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pipeline");
    write_pipeline(&folder);
    let images = |skip_safety_checker| -> Vec<GeneratedImage> {
        let options = PipelineOptions { skip_safety_checker, ..PipelineOptions::default() };
        let pipeline = DiffusionPipeline::open(folder.to_str().unwrap(), &options).unwrap();
        assert!(pipeline.has_safety_checker());
        let request = |seed| ImageRequest { prompt: "a star".to_owned(), negative_prompt: None, seed };
        let requests: Vec<_> = (0..12).map(request).collect();
        let options = GenerateOptions { steps: Some(2), ..GenerateOptions::default() };
        pipeline.generate(&requests, None, &options, &mut |_| Ok(())).unwrap()
    };
    let (plain, checked) = (images(true), images(false));
    let checker = SafetyChecker::open(&folder, Device::Cpu).unwrap();
    let pictures: Vec<RgbImage> = plain.iter().map(|image| image.picture.clone()).collect();
    let verdicts = checker.check(&pictures).unwrap();
    for ((plain, checked), verdict) in plain.iter().zip(&checked).zip(verdicts) {
        assert_eq!((plain.is_flagged, checked.is_flagged), (None, Some(verdict.is_flagged())));
        let is_black = checked.picture.as_raw().iter().all(|&level| level == 0);
        assert_eq!(is_black, verdict.is_flagged());
        assert!(is_black || checked.picture == plain.picture);
    }
    let flagged = checked.iter().filter(|image| image.is_flagged == Some(true)).count();
    assert!((1..12).contains(&flagged), "{flagged} of 12 are flagged");
    // A checker that does not open is an error that says how to go on.
    fs::remove_file(folder.join("safety_checker/model.safetensors")).unwrap();
    let opened = DiffusionPipeline::open(folder.to_str().unwrap(), &PipelineOptions::default());
    let message = opened.unwrap_err().to_string();
    assert!(message.contains("--no-safety-checker") && message.lines().count() == 1, "{message}");
}
