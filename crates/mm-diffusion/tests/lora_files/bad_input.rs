//! Files that are not a LoRA of the model.

use crate::common::{lora, model, modules, stored};
use mm_diffusion::lora::{Component, LoraFile};
use std::path::Path;
use tch::Tensor;

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, tch::kind::FLOAT_CPU)
}

const Q: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";

/// The message for a file of `tensors` on the small SD 1.
fn problem(tensors: &[(&str, Tensor)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = stored(folder.path(), tensors);
    LoraFile::open(&file, &modules(&model("sd1"))).unwrap_err().to_string()
}

/// The message for a pair of one layer, in PEFT's spelling, beside `more`.
fn of_pair(module: &str, down: Tensor, up: Tensor) -> String {
    let names = [format!("unet.{module}.lora_A.weight"), format!("unet.{module}.lora_B.weight")];
    problem(&[(&names[0], down), (&names[1], up)])
}

#[test]
fn a_lora_for_another_model_names_the_layer_and_both_shapes() {
    let message = of_pair(Q, ones(&[2, 320]), ones(&[320, 2]));
    assert!(message.contains(&format!("unet.{Q}: it is [320, 320], the model's [8, 8]")), "{message}");
    assert!(message.contains("for another model"), "{message}");
    let message = of_pair("conv_in", ones(&[2, 4, 1, 1]), ones(&[8, 2, 1, 1]));
    assert!(message.contains("it is [8, 4, 1, 1], the model's [8, 4, 3, 3]"), "{message}");
}

#[test]
fn layers_that_the_model_does_not_have_are_counted_and_three_are_named() {
    let names: Vec<[String; 2]> = (0..5)
        .map(|number| ["A", "B"].map(|half| format!("unet.other.{number}.lora_{half}.weight")))
        .collect();
    let tensors: Vec<(&str, Tensor)> =
        names.iter().flatten().map(|name| (name.as_str(), ones(&[2, 2]))).collect();
    let message = problem(&tensors);
    assert!(message.contains("5 of 5 match no layer of the model"), "{message}");
    assert!(message.contains("unet.other.0") && message.contains("unet.other.2"), "{message}");
    assert!(!message.contains("unet.other.3"), "{message}");
}

#[test]
fn a_lora_of_sdxl_is_refused_by_sd_1() {
    let open = |name: &str| LoraFile::open(&lora(name), &modules(&model("sd1"))).unwrap_err().to_string();
    assert!(open("kohya-sdxl").contains("9 of 12 match no layer of the model (lora_unet_down_blocks_1_"));
    assert!(open("sd3").contains("4 of 4 match no layer"));
}

#[test]
fn a_file_without_a_lora_is_refused() {
    let message = problem(&[("conv_in.weight", ones(&[8, 4, 3, 3]))]);
    assert!(message.contains("not a LoRA: it has conv_in.weight"), "{message}");
    assert!(problem(&[]).contains("the file has no tensors"));
    let names = [format!("unet.{Q}.lora_A.weight"), format!("unet.{Q}.lora_B.weight")];
    let message =
        problem(&[(&names[0], ones(&[2, 8])), (&names[1], ones(&[8, 2])), ("emb_params", ones(&[1]))]);
    assert!(message.contains("1 of 3 match no layer of the model (emb_params)"), "{message}");
}

#[test]
fn other_adapters_are_named() {
    for (name, kind) in [
        ("lora_unet_conv_in.dora_scale", "DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "LoHa"),
        ("lora_unet_conv_in.lokr_w1", "LoKr"),
        ("lora_unet_conv_in.lora_mid.weight", "Tucker"),
        ("unet.conv_in.lora_B.bias", "biases"),
    ] {
        let message = problem(&[(name, ones(&[2, 2]))]);
        assert!(message.contains(kind) && message.contains(name), "{message}");
    }
}

#[test]
fn half_a_pair_and_factors_that_do_not_multiply_are_refused() {
    let name = format!("unet.{Q}.lora_A.weight");
    assert!(problem(&[(&name, ones(&[2, 8]))]).contains("stands alone"));
    assert!(problem(&[("lora_unet_conv_in.alpha", ones(&[1]))]).contains("stands alone"));
    for (down, up) in [
        (ones(&[2, 8]), ones(&[8, 3])),
        (ones(&[2]), ones(&[8, 2])),
        (ones(&[]), ones(&[])),
        (ones(&[0, 8]), ones(&[8, 0])),
        (ones(&[2, 8]), ones(&[8, 2, 3, 3])),
    ] {
        let message = of_pair(Q, down, up);
        assert!(message.contains("no pair of a LoRA"), "{message}");
    }
}

#[test]
fn one_layer_in_two_spellings_is_refused() {
    let names = ["lora_A", "lora_B", "lora.down", "lora.up"].map(|half| format!("unet.{Q}.{half}.weight"));
    let shape = |name: &str| if name.contains("_A") || name.contains("down") { [2, 8] } else { [8, 2] };
    let tensors: Vec<(&str, Tensor)> = names.iter().map(|name| (name.as_str(), ones(&shape(name)))).collect();
    let message = problem(&tensors);
    assert!(message.contains("two spellings"), "{message}");
}

#[test]
fn numbers_that_are_not_finite_and_alphas_that_are_none_are_refused() {
    assert!(of_pair(Q, ones(&[2, 8]) * f64::INFINITY, ones(&[8, 2])).contains("NaN or infinite"));
    let stem = "lora_unet_conv_in";
    let names = ["lora_down.weight", "lora_up.weight", "alpha"].map(|end| format!("{stem}.{end}"));
    let with = |alpha: Tensor| {
        let pair = (ones(&[2, 4, 3, 3]), ones(&[8, 2, 1, 1]));
        problem(&[(&names[0], pair.0), (&names[1], pair.1), (&names[2], alpha)])
    };
    assert!(with(ones(&[2])).contains("an alpha is one number"));
    assert!(with(ones(&[]) * f64::NAN).contains("NaN or infinite"));
}

#[test]
fn files_that_cannot_be_read_give_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| LoraFile::open(path, &modules(&model("sd1"))).unwrap_err().to_string();
    assert!(open(folder.path()).contains("adapter_model.safetensors nor pytorch_lora_weights.safetensors"));
    for name in ["lora.pt", "lora.bin", "lora.CKPT"] {
        assert!(open(&folder.path().join(name)).contains("weights_only=True"), "{name}");
    }
    assert!(open(&folder.path().join("none.safetensors")).contains("cannot read"));
    let file = folder.path().join("damaged.safetensors");
    std::fs::write(&file, b"not safetensors").unwrap();
    assert!(open(&file).contains("not a complete safetensors file"));
}

#[test]
fn a_scale_that_is_not_finite_is_refused() {
    let mut model = model("sd1");
    let file = LoraFile::open(&lora("peft"), &modules(&model)).unwrap();
    let message = file.apply(Component::Unet, &mut model[0].1, f64::NAN).unwrap_err().to_string();
    assert!(message.contains("the scale is NaN"), "{message}");
    assert_eq!(file.apply(Component::Transformer, &mut model[0].1, 1.0).unwrap(), 0);
}
