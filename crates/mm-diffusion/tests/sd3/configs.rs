//! Configs and inputs that are read, written and refused.

use super::*;
use mm_diffusion::QkNorm;
use serde_json::json;
use tch::Kind;

#[test]
fn configs_are_written_as_they_were_read() {
    for name in FOLDERS {
        let json = config_json(name);
        let config = Sd3Config::from_hf(&json).unwrap();
        let written = config.to_hf();
        assert_eq!(Sd3Config::from_hf(&written).unwrap(), config);
        for (field, value) in json.as_object().unwrap() {
            if field != "_diffusers_version" {
                assert_eq!(*value, written[field.as_str()], "{name}: {field}");
            }
        }
    }
    let config = Sd3Config::from_hf(&config_json("dual")).unwrap();
    assert_eq!(
        (config.qk_norm, config.dual_attention_layers.as_slice()),
        (Some(QkNorm::RmsNorm), &[0, 2][..])
    );
}

#[test]
fn null_means_what_it_means_in_diffusers() {
    let config =
        Sd3Config::from_hf(&json!({"in_channels": 4, "out_channels": null, "qk_norm": null})).unwrap();
    assert_eq!((config.out_channels, config.qk_norm), (4, None));
    assert_eq!(Sd3Config::from_hf(&json!({"in_channels": 4})).unwrap().out_channels, 16);
    let error = Sd3Config::from_hf(&json!({"pos_embed_max_size": null})).unwrap_err().to_string();
    assert!(error.contains("pos_embed_max_size is null"), "{error}");
}

#[test]
fn configs_that_are_not_valid_are_named() {
    for (config, problem) in [
        (json!({"_class_name": "FluxTransformer2DModel"}), "_class_name is \"FluxTransformer2DModel\""),
        (json!({"qk_norm": "layer_norm"}), "qk_norm is \"layer_norm\": only null and \"rms_norm\""),
        (json!({"patch_size": 0}), "patch_size is 0: it must be from 1"),
        (json!({"patch_size": "two"}), "invalid type"),
        (json!({"num_layers": 0}), "num_layers is 0"),
        (json!({"num_attention_heads": 17}), "caption_projection_dim is 1152: it must be 1088"),
        (
            json!({"num_attention_heads": 3, "attention_head_dim": 2, "caption_projection_dim": 6}),
            "3 heads of width 2 are 6 wide",
        ),
        (json!({"sample_size": 1}), "sample_size 1 is smaller than patch_size 2"),
        (json!({"pos_embed_max_size": 5000}), "pos_embed_max_size squared is 25000000"),
        (json!({"patch_size": 1000, "sample_size": 1000}), "values in a patch is 16000000"),
        (json!({"dual_attention_layers": [0, 18]}), "dual_attention_layers has 18: num_layers is 18"),
        (json!({"num_attention_heads": 1048576, "attention_head_dim": 1048576}), "is 1099511627776"),
    ] {
        let error = Sd3Config::from_hf(&config).unwrap_err().to_string();
        assert!(error.contains(problem), "{config}: {error}");
    }
}

#[test]
fn a_config_that_does_not_fit_the_weights_is_refused() {
    let config = Sd3Config { qk_norm: None, ..Sd3Config::from_hf(&config_json("dual")).unwrap() };
    let weights = Weights::open_folder(&golden("dual"), STEM).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let build = |path: &tch::nn::Path| Sd3Transformer::new(path, &config);
    let error = weights.build(&vs, &Sd3Transformer::LAYOUT, build).unwrap_err().to_string();
    assert!(error.contains("not in the model") && error.contains("norm_added_k"), "{error}");
}

#[test]
fn inputs_of_other_shapes_are_named() {
    let opened = open("plain");
    let (x, timestep) = (&opened.expected["hidden_states"], &opened.expected["timestep"]);
    let text = opened.condition(None);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let refused = |x: &Tensor, timestep: &Tensor, text: &Sd3Condition, problem: &str| {
        let error = opened.model.forward(x, timestep, text).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    refused(&zeros(&[3, 8, 8]), timestep, &text, "hidden_states is [3, 8, 8], not [B, C, H, W]");
    refused(&zeros(&[3, 5, 8, 8]), timestep, &text, "hidden_states is [3, 5, 8, 8]: expected [3, 4, 8, 8]");
    refused(&zeros(&[3, 4, 8, 7]), timestep, &text, "width is 7: it must be a multiple of patch_size 2");
    refused(
        &zeros(&[3, 4, 12, 8]),
        timestep,
        &text,
        "height is 12: it must be a multiple of patch_size 2 up to 10",
    );
    refused(&zeros(&[3, 4, 0, 8]), timestep, &text, "height is 0");
    refused(x, &zeros(&[2]), &text, "timestep is [2]: expected [3]");
    let (states, pooled, mask) = (zeros(&[3, 5, 11]), zeros(&[1, 10]), zeros(&[3, 4]));
    let states = Sd3Condition { encoder_hidden_states: &states, ..text };
    refused(x, timestep, &states, "encoder_hidden_states is [3, 5, 11]: expected [3, 5, 12]");
    let pooled = Sd3Condition { pooled_projections: &pooled, ..text };
    refused(x, timestep, &pooled, "pooled_projections is [1, 10]: expected [3, 10]");
    let mask = Sd3Condition { attention_mask: Some(&mask), ..text };
    refused(x, timestep, &mask, "attention_mask is [3, 4]: expected [3, 5]");
}
