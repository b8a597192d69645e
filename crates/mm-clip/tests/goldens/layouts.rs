//! Folders as other programs lay them out, and what is said of those that are not models.

use crate::folders::{Variant, Whole, assert_same, copy, rows};
use mm_clip::{
    CheckpointFormat, ClipPipeline, ImageEmbedder, ModelFolder, OpenOptions, StoredType, TextEmbedder,
};
use serde_json::json;
use std::fs;
use std::path::Path;

fn error(folder: &Path) -> String {
    ModelFolder::open(folder.to_str().unwrap()).unwrap_err().to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_towers_config_beside_the_weights_of_a_pair_leaves_the_other_tower_aside() {
    for name in ["clip", "siglip"] {
        let pair = Whole::new(&format!("clip/{name}"), Variant::Plain).unwrap();
        let expected = rows(pair.path());
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(pair.folder.path().join("config.json")).unwrap()).unwrap();
        for (side, index) in [("vision", 0), ("text", 1)] {
            let mut own = config[format!("{side}_config")].clone();
            own["model_type"] = format!("{name}_{side}_model").into();
            fs::write(pair.folder.path().join("config.json"), own.to_string()).unwrap();
            assert_same(&expected[index..=index], &rows(pair.path()), &format!("{name}'s {side} tower"));
        }
    }
}

#[test]
fn a_clip_of_sentence_transformers_lies_in_its_folder() {
    let whole = Whole::new("clip/clip", Variant::Plain).unwrap();
    let expected = rows(whole.path());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.json"), r#"[{"idx": 0, "name": "0", "path": "0_CLIPModel"}]"#)
        .unwrap();
    fs::rename(whole.folder.path(), folder.path().join("0_CLIPModel")).unwrap();
    assert_same(&expected, &rows(text(folder.path())), "0_CLIPModel");
}

#[test]
fn the_encoders_of_a_pipeline_find_what_belongs_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, vision) = (
        Whole::new("clip/clip-text", Variant::Plain).unwrap(),
        Whole::new("clip/clip-vision", Variant::Plain).unwrap(),
    );
    let expected = [rows(clip.path()).remove(0), rows(vision.path()).remove(0)];
    fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    let place = |name: &str| folder.path().join(name);
    for (from, to) in [(clip.folder.path(), "text_encoder"), (vision.folder.path(), "image_encoder")] {
        fs::create_dir(place(to)).unwrap();
        copy(from, &place(to));
    }
    for (file, from, to) in [
        ("tokenizer.json", "text_encoder", "tokenizer"),
        ("tokenizer_config.json", "text_encoder", "tokenizer"),
        ("preprocessor_config.json", "image_encoder", "feature_extractor"),
    ] {
        fs::create_dir_all(place(to)).unwrap();
        fs::rename(place(from).join(file), place(to).join(file)).unwrap();
    }
    let whole = error(folder.path());
    assert!(whole.contains("pipeline of diffusers") && whole.contains("text_encoder or "), "{whole}");
    let found = [rows(text(&place("text_encoder"))).remove(0), rows(text(&place("image_encoder"))).remove(0)];
    assert_same(&expected, &found, "a pipeline");
}

#[test]
fn weights_of_a_variant_are_opened_and_weights_elsewhere_are_told() {
    let whole = Whole::new("clip/clip", Variant::Plain).unwrap();
    let file = |name: &str| whole.folder.path().join(name);
    let expected = rows(whole.path());
    fs::rename(file("model.safetensors"), file("model.fp16.safetensors")).unwrap();
    assert_same(&expected, &rows(whole.path()), "model.fp16.safetensors");
    fs::create_dir(file("weights")).unwrap();
    fs::rename(file("model.fp16.safetensors"), file("weights/model.safetensors")).unwrap();
    let message = error(whole.folder.path());
    assert!(message.contains("weights/model.safetensors: name the folder"), "{message}");
}

#[test]
fn a_pointer_of_git_lfs_is_named_whichever_file_it_is() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605157884\n";
    for name in [
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let whole = Whole::new("clip/clip", Variant::Plain).unwrap();
        fs::write(whole.folder.path().join(name), pointer).unwrap();
        let message = ClipPipeline::open(whole.path(), &OpenOptions::default()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("git lfs pull"), "{name}: {message}");
    }
    let open_clip = Whole::new("clip/open-clip-vit", Variant::Plain).unwrap();
    fs::write(open_clip.folder.path().join("open_clip_config.json"), pointer).unwrap();
    assert!(error(open_clip.folder.path()).contains("git lfs pull"));
}

#[test]
fn preprocessing_that_another_program_left_behind_is_not_read() {
    let whole = Whole::new("clip/clip", Variant::Plain).unwrap();
    let expected = rows(whole.path());
    let own = whole.folder.path().join("preprocessor_config.json");
    let current: serde_json::Value = serde_json::from_slice(&fs::read(&own).unwrap()).unwrap();
    fs::write(
        whole.folder.path().join("processor_config.json"),
        json!({ "image_processor": current }).to_string(),
    )
    .unwrap();
    let stale = json!({
        "image_processor_type": "CLIPImageProcessor", "size": 99, "crop_size": 32, "image_mean": [0, 0, 0]
    });
    fs::write(own, stale.to_string()).unwrap();
    assert_same(&expected, &rows(whole.path()), "processor_config.json");
}

#[test]
fn weights_and_rows_that_are_no_numbers_are_errors_that_name_them() {
    let whole = Whole::new("clip/clip", Variant::Plain).unwrap();
    let file = whole.folder.path().join("model.safetensors");
    let norm = "text_model.final_layer_norm.weight";
    let broken = |value: f64| mm_core::checkpoint::write(&file, &tensors_with(&file, norm, value)).unwrap();
    broken(f64::NAN);
    let message = ClipPipeline::open(whole.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains(norm) && message.contains("NaN"), "{message}");
    ImageEmbedder::open(whole.path(), &OpenOptions::default()).unwrap(); // the other tower is whole

    broken(3e38); // finite, and its products are not
    let model = TextEmbedder::open(whole.path(), &OpenOptions::default()).unwrap();
    let message = model.embed(&["a red cat"], 1).unwrap_err().to_string();
    assert!(message.contains("the text \"a red cat\""), "{message}");
}

/// The tensors of `file` with all numbers of the tensor `name` set to `value`.
fn tensors_with(file: &Path, name: &str, value: f64) -> Vec<(String, tch::Tensor)> {
    let mut tensors = tch::Tensor::read_safetensors(file).unwrap();
    for (other, tensor) in &mut tensors {
        if other == name {
            let _ = tensor.fill_(value);
        }
    }
    tensors
}

#[test]
fn a_tokenizer_whose_largest_id_is_no_end_token_is_refused_by_open_clips_form() {
    let whole = Whole::new("clip/open-clip-vit", Variant::Plain).unwrap();
    let file = whole.folder.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    tokenizer["model"]["vocab"]["zebra"] = 98.into();
    tokenizer["model"]["vocab"]["<end>"] = 97.into();
    tokenizer["added_tokens"][2]["id"] = 97.into();
    tokenizer["post_processor"]["special_tokens"]["<end>"]["ids"] = json!([97]);
    fs::write(&file, tokenizer.to_string()).unwrap();
    let message = ClipPipeline::open(whole.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("the end token is 97 and ids go to 98"), "{message}");
}

#[test]
fn a_form_that_a_pipeline_cannot_be_saved_in_is_refused_before_anything_is_written() {
    let whole = Whole::new("clip/open-clip-vit", Variant::Longest).unwrap();
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let pipeline = ClipPipeline::load(ModelFolder::open(whole.path()).unwrap(), &vs, None).unwrap();
    assert_eq!(pipeline.format().unwrap(), CheckpointFormat::OpenClip);
    let to = tempfile::tempdir().unwrap();
    let message =
        pipeline.save(&[&vs], to.path(), CheckpointFormat::Hf, StoredType::F32).unwrap_err().to_string();
    assert!(message.contains("keep the model in open_clip's format"), "{message}");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn a_runs_folder_and_an_older_checkpoint_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("checkpoints")).unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let message = error(folder.path());
    assert!(
        message.contains("is a run's folder: its model is") && message.contains("checkpoints/latest"),
        "{message}"
    );
    let older = tempfile::tempdir().unwrap();
    for name in ["state.json", "optimizer.safetensors"] {
        fs::write(older.path().join(name), "").unwrap();
    }
    assert!(error(older.path()).contains("is a checkpoint without config.json"));
}
