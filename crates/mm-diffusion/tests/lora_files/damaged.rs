//! Names and bytes that no program writes: an error, never a panic.

use crate::common::{golden, lora, model, modules, stored};
use mm_diffusion::lora::{LoraFile, LoraReport};
use mm_diffusion::single_file::SingleFile;
use proptest::prelude::*;
use std::collections::BTreeSet;
use tch::Tensor;

/// Pieces that names of tensors are made of.
fn names() -> impl Strategy<Value = BTreeSet<String>> {
    let pieces = prop::sample::select(vec![
        "unet",
        "text_encoder",
        "lora_unet_",
        "lora_te_",
        "base_model.model",
        "down_blocks",
        "input_blocks",
        "0",
        "1",
        "18446744073709551615",
        "99",
        "attn1",
        "processor",
        "to_out",
        "self_attn",
        "to_q_lora",
        "lora",
        "lora_A",
        "lora_B",
        "down",
        "up",
        "weight",
        "alpha",
        "op",
        "resblocks",
        "in_proj_weight",
        "",
        "cond_stage_model.model.transformer",
        "model.diffusion_model",
        "first_stage_model.encoder",
        "é",
    ]);
    prop::collection::btree_set(prop::collection::vec(pieces, 1..7).prop_map(|parts| parts.join(".")), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn strange_names_give_an_error(names in names()) {
        let folder = tempfile::tempdir().unwrap();
        let tensors: Vec<(&str, Tensor)> =
            names.iter().map(|name| (name.as_str(), Tensor::ones([2, 2], tch::kind::FLOAT_CPU))).collect();
        let file = stored(folder.path(), &tensors);
        prop_assert!(LoraFile::open(&file, &modules(&model("sd1"))).is_err());
        let _ = LoraReport::read(&file);
        let _ = SingleFile::open(&file);
    }

    #[test]
    fn strange_tensors_beside_those_of_a_model_give_parts_or_an_error(names in names()) {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors: Vec<(&str, Tensor)> =
            names.iter().map(|name| (name.as_str(), Tensor::ones([2, 2], tch::kind::FLOAT_CPU))).collect();
        let ones = |shape: &[i64]| Tensor::ones(shape, tch::kind::FLOAT_CPU);
        tensors.push(("model.diffusion_model.input_blocks.0.0.weight", ones(&[8, 4, 3, 3])));
        tensors.push(("cond_stage_model.model.ln_final.weight", ones(&[8])));
        let file = SingleFile::open(&stored(folder.path(), &tensors));
        if let Ok(file) = file {
            let _ = (file.unet(), file.unet_ema(), file.vae(), file.text_encoder());
            let _ = (file.unet_config(), file.vae_config(), file.text_encoder_config());
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_or_a_lora(at in any::<prop::sample::Index>(), bits in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(lora("processors")).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let file = folder.path().join("damaged.safetensors");
        std::fs::write(&file, bytes).unwrap();
        let _ = LoraFile::open(&file, &modules(&model("sd1")));
    }
}

#[test]
fn a_file_of_a_folder_is_no_single_file() {
    let message = SingleFile::open(&golden("sd1/unet.safetensors")).unwrap_err().to_string();
    assert!(message.contains("one part of a diffusers folder"), "{message}");
}
