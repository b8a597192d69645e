//! What cannot be made is refused in one line that says what to do.

use crate::{golden, open};
use mm_diffusion::{DiffusionPipeline, Edit, EditKind, GenerateOptions, PipelineOptions};
use mm_image::RgbImage;
use std::fs;
use std::path::Path;

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => fs::copy(&path, to.join(name)).map(drop).unwrap(),
        }
    }
}

fn message_of(folder: &Path) -> String {
    let message = DiffusionPipeline::open(folder.to_str().unwrap(), &PipelineOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn a_folder_that_lacks_a_part_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message_of(folder.path()).contains("model_index.json"));
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        let folder = folder.path().join(part);
        copy(&golden("sd1"), &folder);
        fs::remove_dir_all(folder.join(part)).unwrap();
        assert!(message_of(&folder).contains(&format!("has no {part}/")));
    }
}

#[test]
fn an_unknown_class_or_scheduler_is_refused_with_the_known() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pipeline");
    copy(&golden("sd1"), &folder);
    let replace = |file: &str, old: &str, new: &str| {
        let path = folder.join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(old, new)).unwrap();
    };
    replace("scheduler/scheduler_config.json", "PNDMScheduler", "MagicScheduler");
    let message = message_of(&folder);
    assert!(message.contains("MagicScheduler") && message.contains("DDIMScheduler"), "{message}");
    replace("model_index.json", "StableDiffusionPipeline", "WuerstchenPipeline");
    let message = message_of(&folder);
    assert!(
        message.contains("WuerstchenPipeline") && message.contains("StableDiffusionXLPipeline"),
        "{message}"
    );
}

#[test]
fn a_damaged_or_foreign_part_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pipeline");
    copy(&golden("sd1"), &folder);
    let file = folder.join("unet/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message_of(&folder).contains("copy it again"));
    copy(&golden("inpaint/unet"), &folder.join("unet"));
    fs::write(folder.join("vae/config.json"), r#"{"latent_channels": 3}"#).unwrap();
    assert!(!message_of(&folder).is_empty());
}

#[test]
fn an_edit_that_the_model_is_not_made_for_is_refused() {
    let (sd1, inpaint, pix2pix) = (
        open("sd1", &PipelineOptions::default()),
        open("inpaint", &PipelineOptions::default()),
        open("pix2pix", &PipelineOptions::default()),
    );
    let image = RgbImage::new(16, 16);
    let edit = |kind: EditKind| Some(Edit { image: image.clone(), kind });
    let strength = |strength| edit(EditKind::ImageToImage { strength, exact_steps: false });
    let mask = |side| edit(EditKind::Inpaint { mask: RgbImage::new(side, 16), strength: 1.0 });
    let message = |pipeline: &DiffusionPipeline, edit: Option<Edit>| {
        let options = GenerateOptions { steps: Some(5), ..GenerateOptions::default() };
        pipeline.settings(&options, edit.as_ref()).unwrap_err().to_string()
    };
    assert!(message(&sd1, edit(EditKind::Instruct)).contains("not made for instructions"));
    assert!(message(&sd1, strength(0.1)).contains("at least 0.200"));
    assert!(message(&sd1, mask(8)).contains("8 x 16"));
    assert!(message(&inpaint, None).contains("an image and a mask"));
    assert!(message(&inpaint, strength(0.5)).contains("no strength alone"));
    assert!(message(&pix2pix, None).contains("give it an image"));
    assert!(message(&pix2pix, mask(16)).contains("no mask"));
    let size = GenerateOptions { width: Some(17), ..GenerateOptions::default() };
    let error = sd1.settings(&size, None).unwrap_err().to_string();
    assert!(error.contains("width 17") && error.contains("16 or 18"), "{error}");
}
