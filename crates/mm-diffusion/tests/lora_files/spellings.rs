//! Every spelling, fused as diffusers fuses it.

use crate::common::{
    apply, assert_near, golden, json, largest_difference, lora, magnitude, model, modules, stored,
};
use mm_core::checkpoint::Weights;
use mm_diffusion::lora::{Component, LoraFile, LoraReport};
use tch::Tensor;

/// Compares a case of the goldens: whole tensors of some layers, sums of all that diffusers changes, and that
/// no other changes.
fn compare(case: &str) {
    let facts = &json("expected.json")[case];
    let kind = facts["model"].as_str().unwrap();
    let (before, mut after) = (model(kind), model(kind));
    for file in facts["files"].as_array().unwrap() {
        let (name, scale) = (file[0].as_str().unwrap(), file[1].as_f64().unwrap());
        assert!(apply(&lora(name), &mut after, scale) > 0);
    }
    let sums = facts["sums"].as_object().unwrap();
    let expected = Weights::open(&golden("expected.safetensors")).unwrap();
    let mut changed = 0;
    for ((component, before), (_, after)) in before.iter().zip(&after) {
        for tensor in before.list() {
            let name = format!("{}.{}", component.name(), tensor.name);
            let found = after.tensor(&tensor.name).unwrap();
            match sums.get(&name) {
                Some(sum) => {
                    assert_near(&name, magnitude(&found), sum.as_f64().unwrap());
                    changed += 1;
                }
                None => assert_eq!(found, before.tensor(&tensor.name).unwrap(), "{name} changed"),
            }
            let kept = format!("{case}.{name}");
            if expected.shape(&kept).is_some() {
                let difference = largest_difference(&found, &expected.tensor(&kept).unwrap());
                assert!(difference <= 1e-6, "{kept} differs by {difference}");
            }
        }
    }
    assert_eq!(changed, sums.len(), "all of {case}");
    assert!(expected.list().iter().any(|tensor| tensor.name.starts_with(&format!("{case}."))));
}

#[test]
fn a_lora_of_peft_has_scale_one() {
    compare("peft");
}

#[test]
fn an_alpha_in_the_header_scales_a_lora_of_peft() {
    compare("peft-with-metadata");
}

#[test]
fn a_lora_of_diffusers_has_scale_one() {
    compare("diffusers");
}

#[test]
fn a_lora_of_attention_processors_reaches_the_projections() {
    compare("processors");
}

#[test]
fn one_file_may_mix_spellings() {
    compare("mixed");
}

#[test]
fn a_lora_of_kohya_is_scaled_by_its_alphas() {
    compare("kohya");
}

#[test]
fn a_lora_of_kohya_changes_both_text_encoders_of_sdxl() {
    compare("kohya-sdxl");
}

#[test]
fn a_lora_of_kohya_may_name_sdxls_layers_as_stability_ais_code_does() {
    compare("kohya-sgm");
}

#[test]
fn a_folder_of_peft_needs_no_prefix() {
    compare("peft-folder");
}

#[test]
fn a_lora_of_sd3_changes_its_transformer() {
    compare("sd3");
}

#[test]
fn two_loras_add_up_each_with_its_weight() {
    compare("two-at-once");
}

#[test]
fn text_encoders_with_and_without_the_old_prefix_are_the_same() {
    let mut model = model("sd1");
    for (component, weights) in &mut model {
        if component.is_text_encoder() {
            weights.rename(|name| name.strip_prefix("text_model.").unwrap_or(name).to_owned());
        }
    }
    for name in ["peft", "kohya"] {
        let file = LoraFile::open(&lora(name), &modules(&model)).unwrap();
        assert!(file.layers()[&Component::TextEncoder].contains_key("encoder.layers.1.mlp.fc1"));
    }
}

#[test]
fn a_report_names_ranks_alphas_and_spellings() {
    let file = LoraFile::open(&lora("kohya"), &modules(&model("sd1"))).unwrap();
    let report = file.report();
    assert_eq!(report.spellings, ["kohya"]);
    let [unet, text] = report.components.as_slice() else { panic!("two components") };
    assert_eq!((unet.component, text.component), (Some(Component::Unet), Some(Component::TextEncoder)));
    assert_eq!((unet.layers, unet.convolutions, text.layers), (11, 6, 3));
    assert_eq!((unet.ranks.as_slice(), text.ranks.as_slice()), (&[3][..], &[2][..]));
    assert_eq!((unet.alphas.as_slice(), text.alphas.as_slice()), (&[2.0][..], &[5.0][..]));
    assert_eq!(LoraReport::read(&lora("kohya")).unwrap(), report, "without the model");
    assert_eq!(LoraReport::read(&lora("mixed")).unwrap().spellings, ["PEFT", "diffusers"]);
    assert_eq!(LoraReport::read(&lora("peft-folder")).unwrap().components[0].component, None);
}

#[test]
fn scale_zero_changes_nothing_and_minus_one_takes_a_lora_back() {
    let before = model("sd1");
    let mut after = model("sd1");
    apply(&lora("peft"), &mut after, 0.0);
    assert_eq!(before[0].1.tensor("conv_in.weight").unwrap(), after[0].1.tensor("conv_in.weight").unwrap());
    apply(&lora("peft"), &mut after, 1.0);
    apply(&lora("peft"), &mut after, -1.0);
    let difference = largest_difference(
        &before[0].1.tensor("conv_in.weight").unwrap(),
        &after[0].1.tensor("conv_in.weight").unwrap(),
    );
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn each_layer_of_a_file_has_its_own_alpha_or_scale_one() {
    let folder = tempfile::tempdir().unwrap();
    let ones = |shape: &[i64]| Tensor::ones(shape, tch::kind::FLOAT_CPU);
    let layer = |stem: &str| [format!("{stem}.lora_down.weight"), format!("{stem}.lora_up.weight")];
    let (first, second) = (layer("lora_unet_conv_in"), layer("lora_unet_conv_out"));
    let file = stored(
        folder.path(),
        &[
            (&first[0], ones(&[2, 4, 3, 3])),
            (&first[1], ones(&[8, 2, 1, 1])),
            ("lora_unet_conv_in.alpha", ones(&[]) * 3.0),
            (&second[0], ones(&[2, 8, 3, 3])),
            (&second[1], ones(&[4, 2, 1, 1])),
        ],
    );
    let (before, mut after) = (model("sd1"), model("sd1"));
    apply(&file, &mut after, 1.0);
    for (name, added) in [("conv_in.weight", 3.0), ("conv_out.weight", 2.0)] {
        let difference = after[0].1.tensor(name).unwrap() - before[0].1.tensor(name).unwrap() - added;
        assert!(difference.abs().max().double_value(&[]) < 1e-6, "{name}");
    }
}
