//! Checkpoints in one file, read as the weights of diffusers' folders and written back.

use crate::common::{assert_near, golden, json, magnitude, stored};
use mm_core::checkpoint::Weights;
use mm_diffusion::Result;
use mm_diffusion::single_file::{DiffusersParts, Family, Kind, SingleFile, Variant, write_single_file};
use std::path::Path;
use tch::Tensor;

fn open(kind: &str) -> SingleFile {
    SingleFile::open(&golden(&format!("ldm-{kind}.safetensors"))).unwrap()
}

/// The part of a file that diffusers has in the folder `name`.
fn part(file: &SingleFile, name: &str) -> Result<Weights> {
    match name {
        "unet" => file.unet(),
        "vae" => file.vae(),
        "text_encoder" => file.text_encoder(),
        _ => file.text_encoder_2(),
    }
}

fn assert_same(found: &Weights, expected: &Weights) {
    let names =
        |weights: &Weights| -> Vec<String> { weights.list().into_iter().map(|info| info.name).collect() };
    assert_eq!(names(found), names(expected));
    for name in names(expected) {
        assert_eq!(found.tensor(&name).unwrap(), expected.tensor(&name).unwrap(), "{name}");
    }
}

#[test]
fn every_part_equals_that_of_the_folder_bit_for_bit() {
    for (kind, parts) in [
        ("sd1", &["unet", "vae", "text_encoder"][..]),
        ("sdxl", &["unet", "vae", "text_encoder", "text_encoder_2"]),
    ] {
        let file = open(kind);
        for name in parts {
            let expected = Weights::open(&golden(kind).join(format!("{name}.safetensors"))).unwrap();
            assert_same(&part(&file, name).unwrap(), &expected);
        }
    }
}

#[test]
fn the_parts_of_sd_2_have_the_names_and_numbers_that_diffusers_reads() {
    let file = open("sd2");
    for (name, sums) in json("ldm-sd2.json").as_object().unwrap() {
        let (weights, sums) = (part(&file, name).unwrap(), sums.as_object().unwrap());
        assert_eq!(weights.list().len(), sums.len(), "{name}");
        for (tensor, sum) in sums {
            assert_near(tensor, magnitude(&weights.tensor(tensor).unwrap()), sum.as_f64().unwrap());
        }
    }
    assert!(file.text_encoder_2().unwrap_err().to_string().contains("Sd2 has one text encoder"));
}

#[test]
fn the_kind_is_read_from_names_and_shapes() {
    for (kind, family) in [("sd1", Family::Sd1), ("sd2", Family::Sd2), ("sdxl", Family::Sdxl)] {
        let file = open(kind);
        assert_eq!(file.kind(), Kind { family, variant: Variant::TextToImage });
    }
    assert_eq!(open("sdxl").pipeline_class(), "StableDiffusionXLPipeline");
}

#[test]
fn configs_have_the_sizes_of_the_tensors() {
    let unet = open("sdxl").unet_config().unwrap();
    assert_eq!(unet["block_out_channels"], serde_json::json!([8, 16]));
    assert_eq!(unet["down_block_types"], serde_json::json!(["DownBlock2D", "CrossAttnDownBlock2D"]));
    assert_eq!(unet["up_block_types"], serde_json::json!(["CrossAttnUpBlock2D", "UpBlock2D"]));
    assert_eq!(unet["transformer_layers_per_block"], serde_json::json!([1, 2]));
    assert_eq!(
        (unet["layers_per_block"].as_i64(), unet["cross_attention_dim"].as_i64()),
        (Some(1), Some(24))
    );
    assert_eq!(unet["use_linear_projection"], true);
    assert_eq!(unet["projection_class_embeddings_input_dim"], 40);
    let unet = open("sd1").unet_config().unwrap();
    assert_eq!((&unet["use_linear_projection"], &unet["attention_head_dim"]), (&false.into(), &8.into()));
    let vae = open("sd1").vae_config().unwrap();
    assert_eq!(vae["block_out_channels"], serde_json::json!([4, 8]));
    assert_eq!((&vae["latent_channels"], &vae["scaling_factor"]), (&4.into(), &0.18215.into()));
    let text = open("sdxl").text_encoder_2_config().unwrap();
    assert_eq!(text["architectures"][0], "CLIPTextModelWithProjection");
    let sizes = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "projection_dim"];
    assert_eq!(sizes.map(|name| text[name].as_i64().unwrap()), [40, 16, 32, 2, 16]);
    assert_eq!(open("sd2").text_encoder_config().unwrap()["hidden_act"], "gelu");
}

#[test]
fn what_sd_2_predicts_must_be_said() {
    let message = open("sd2").scheduler_config(None).unwrap_err().to_string();
    assert!(message.contains("say epsilon (512-base) or v_prediction (768)"), "{message}");
    assert_eq!(
        open("sd2").scheduler_config(Some("v_prediction")).unwrap()["prediction_type"],
        "v_prediction"
    );
    assert_eq!(open("sd1").scheduler_config(None).unwrap()["_class_name"], "PNDMScheduler");
    assert!(open("sd1").scheduler_config(Some("x")).is_err());
}

/// The tensors of a file, with some names changed.
fn changed(folder: &Path, kind: &str, to: impl Fn(&str, &Tensor) -> Vec<(String, Tensor)>) -> SingleFile {
    let weights = Weights::open(&golden(&format!("ldm-{kind}.safetensors"))).unwrap();
    let tensors: Vec<(String, Tensor)> =
        weights.list().iter().flat_map(|info| to(&info.name, &weights.tensor(&info.name).unwrap())).collect();
    let borrowed: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shallow_clone())).collect();
    SingleFile::open(&stored(folder, &borrowed)).unwrap()
}

#[test]
fn the_moving_average_is_found_under_its_names_without_dots() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(folder.path(), "sd1", |name, tensor| {
        let mut both = vec![(name.to_owned(), tensor.shallow_clone())];
        if let Some(rest) = name.strip_prefix("model.") {
            both.push((format!("model_ema.{}", rest.replace('.', "")), tensor * 2.0));
        }
        both
    });
    let (trained, averaged) = (file.unet().unwrap(), file.unet_ema().unwrap().unwrap());
    let name = "up_blocks.0.upsamplers.0.conv.weight";
    assert_eq!(trained.tensor(name).unwrap() * 2.0, averaged.tensor(name).unwrap());
    assert_eq!(trained.list().len(), averaged.list().len());
    assert!(open("sd1").unet_ema().unwrap().is_none());
}

#[test]
fn a_text_encoder_without_its_prefix_and_with_extras_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(folder.path(), "sd1", |name, tensor| {
        let name = name.replace("transformer.text_model.", "transformer.");
        let mut tensors = vec![(name.clone(), tensor.shallow_clone())];
        if name.ends_with("token_embedding.weight") {
            let ids = Tensor::arange(12, (tch::Kind::Int64, tch::Device::Cpu));
            tensors.push(("cond_stage_model.transformer.embeddings.position_ids".to_owned(), ids));
        }
        tensors
    });
    let expected = Weights::open(&golden("sd1/text_encoder.safetensors")).unwrap();
    assert_same(&file.text_encoder().unwrap(), &expected);
}

#[test]
fn the_last_of_24_layers_of_sd_2_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(folder.path(), "sd2", |name, tensor| {
        let mut tensors = vec![(name.to_owned(), tensor.shallow_clone())];
        if name.contains("resblocks.1.") {
            tensors.extend([22, 23].map(|layer| {
                (name.replace("resblocks.1.", &format!("resblocks.{layer}.")), tensor.shallow_clone())
            }));
        }
        tensors
    });
    let weights = file.text_encoder().unwrap();
    assert!(weights.shape("text_model.encoder.layers.22.self_attn.k_proj.weight").is_some());
    assert!(!weights.has_prefix("text_model.encoder.layers.23."));
}

#[test]
fn a_folder_written_as_one_file_is_the_same_file() {
    for (kind, family) in [("sd1", Family::Sd1), ("sd2", Family::Sd2), ("sdxl", Family::Sdxl)] {
        let folder = tempfile::tempdir().unwrap();
        let written = folder.path().join("written.safetensors");
        let file = open(kind);
        let (unet, vae) = (file.unet().unwrap(), file.vae().unwrap());
        let (text_encoder, second) = (file.text_encoder().unwrap(), file.text_encoder_2().ok());
        let parts = DiffusersParts {
            unet: &unet,
            vae: &vae,
            text_encoder: &text_encoder,
            text_encoder_2: second.as_ref(),
        };
        write_single_file(&written, family, parts, tch::Kind::Half).unwrap();
        let mut original = Weights::open(&golden(&format!("ldm-{kind}.safetensors"))).unwrap();
        original.retain(|name| !name.ends_with("logit_scale"));
        assert_same(&Weights::open(&written).unwrap(), &original);
    }
}

#[test]
fn parts_of_another_family_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = open("sd1");
    let (unet, vae, text_encoder) = (file.unet().unwrap(), file.vae().unwrap(), file.text_encoder().unwrap());
    let written = folder.path().join("written.safetensors");
    let write = |unet, family| {
        let parts = DiffusersParts { unet, vae: &vae, text_encoder: &text_encoder, text_encoder_2: None };
        write_single_file(&written, family, parts, tch::Kind::Half).unwrap_err().to_string()
    };
    assert!(write(&unet, Family::Sdxl).contains("SDXL has two text encoders"));
    assert!(write(&vae, Family::Sd1).contains("is no tensor of Sd1"));
    assert!(!written.exists());
}

#[test]
fn files_of_other_kinds_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| SingleFile::open(path).unwrap_err().to_string();
    assert!(refused(&folder.path().join("v1-5.ckpt")).contains("weights_only=True"));
    let ones = Tensor::ones([8, 4, 3, 3], tch::kind::FLOAT_CPU);
    let stray = changed(folder.path(), "sd1", |name, tensor| {
        vec![(name.replace("out.2", "out.9"), tensor.shallow_clone())]
    });
    let message = stray.unet().unwrap_err().to_string();
    assert!(message.contains("model.diffusion_model.out.9.bias is no tensor of Sd1"), "{message}");
    let alone = stored(folder.path(), &[("model.diffusion_model.input_blocks.0.0.weight", ones)]);
    assert!(refused(&alone).contains("reads texts of width None"));
}
