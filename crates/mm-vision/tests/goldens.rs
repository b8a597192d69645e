//! Outputs and gradients equal those of transformers, torchvision and open_clip (data/goldens/vision, made by
//! `cargo xtask goldens vision`).

use mm_core::Precision;
use mm_core::checkpoint::{self, hf_names};
use mm_vision::{HeatMapTaps, ImageProcessor, ImageTower, ImageTowerConfig, VitConfig, VitVariant};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

struct Golden {
    vs: VarStore,
    tower: Box<dyn ImageTower>,
    expected: BTreeMap<String, Tensor>,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vision").join(name)
}

fn golden(name: &str) -> Golden {
    let folder = folder(name);
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let config = match name {
        "resnet18" | "resnet50" => ImageTowerConfig::ResNet(serde_json::from_value(config).unwrap()),
        "modified-resnet" => ImageTowerConfig::ModifiedResNet(serde_json::from_value(config).unwrap()),
        "siglip-vit" => ImageTowerConfig::Vit(VitConfig::from_hf(&config, VitVariant::Siglip).unwrap()),
        _ => ImageTowerConfig::Vit(VitConfig::from_hf(&config, VitVariant::Clip).unwrap()),
    };
    let vs = VarStore::new(Device::Cpu);
    let tower = config.build(&vs.root()).unwrap();
    checkpoint::load(&vs, &folder.join("model.safetensors"), hf_names).unwrap();
    let expected =
        Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap().into_iter().collect();
    Golden { vs, tower, expected }
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Compares an output with the peer's: within 1e-4, of the largest element where that is above 1, for each is
/// a sum of terms of that size.
fn assert_equals_peer(what: &str, output: &Tensor, expected: &Tensor) {
    let scale = expected.abs().max().double_value(&[]).max(1.0);
    let difference = max_difference(output, expected) / scale;
    assert!(difference <= 1e-4, "{what} differs by {difference} of {scale}");
}

impl Golden {
    fn pixel_values(&self) -> &Tensor {
        &self.expected["pixel_values"]
    }

    /// The gradient of the weight that the peer calls `name`: a block of rows where the projections are kept
    /// as one.
    fn gradient(&self, name: &str) -> Tensor {
        let variables = self.vs.variables();
        let (variable, part) = variables
            .iter()
            .find_map(|(variable, tensor)| {
                let part = hf_names(variable).iter().position(|part| part == name)?;
                Some((tensor, (part, hf_names(variable).len())))
            })
            .unwrap_or_else(|| panic!("no variable {name}"));
        variable.grad().chunk(part.1 as i64, 0).swap_remove(part.0)
    }

    /// Compares the output and all gradients of one mode, `""` or `"train."`.
    fn check(&self, mode: &str) {
        let output = self.tower.forward(self.pixel_values(), mode == "train.");
        assert_equals_peer(&format!("{mode}output"), &output, &self.expected[&format!("{mode}output")]);
        for mut variable in self.vs.trainable_variables() {
            variable.zero_grad();
        }
        (output * &self.expected["direction"]).sum(Kind::Float).backward();
        let prefix = format!("{mode}grad.");
        let mut compared = 0;
        for (name, expected) in
            self.expected.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t)))
        {
            let scale = expected.abs().max().double_value(&[]);
            let difference = max_difference(&self.gradient(name), expected) / scale;
            assert!(difference <= 1e-3, "{prefix}{name} differs by {difference} of {scale}");
            compared += 1;
        }
        assert!(compared >= 4);
    }

    /// Packing keeps the numbers in f32, and to bf16's precision in bf16.
    fn check_packed(mut self) {
        let _guard = tch::no_grad_guard();
        let expected = &self.expected["output"];
        self.tower.pack(Precision::F32);
        assert_equals_peer(
            "packed output",
            &self.tower.forward(&self.expected["pixel_values"], false),
            expected,
        );
    }
}

#[test]
fn clip_vit_equals_transformers() {
    golden("clip-vit").check("");
    golden("clip-vit").check_packed();
}

#[test]
fn clip_vit_with_a_patch_that_does_not_divide_the_image_equals_transformers() {
    golden("clip-vit-14").check("");
}

#[test]
fn siglip_vit_equals_transformers() {
    golden("siglip-vit").check("");
    golden("siglip-vit").check_packed();
}

#[test]
fn resnets_equal_torchvision_in_evaluation_and_in_training() {
    for name in ["resnet18", "resnet50"] {
        let golden = golden(name);
        golden.check("");
        golden.check("train.");
        check_running_statistics(&golden);
        self::golden(name).check_packed();
    }
}

#[test]
fn modified_resnet_equals_open_clip_in_evaluation_and_in_training() {
    let golden = golden("modified-resnet");
    golden.check("");
    golden.check("train.");
    check_running_statistics(&golden);
    self::golden("modified-resnet").check_packed();
}

fn check_running_statistics(golden: &Golden) {
    let (name, expected) =
        golden.expected.iter().find_map(|(name, t)| Some((name.strip_prefix("after.")?, t))).unwrap();
    let difference = max_difference(&golden.vs.variables()[name], expected);
    assert!(difference <= 1e-4, "{name} differs by {difference}");
}

#[test]
fn packed_bf16_outputs_point_the_same_way() {
    for name in ["clip-vit", "clip-vit-14", "siglip-vit", "resnet18", "modified-resnet"] {
        let mut golden = golden(name);
        let _guard = tch::no_grad_guard();
        golden.tower.pack(Precision::Bf16);
        let output = golden.tower.forward(golden.pixel_values(), false).to_kind(Kind::Float);
        let cosine =
            Tensor::cosine_similarity(&output, &golden.expected["output"], 1, 1e-8).min().double_value(&[]);
        assert!(cosine > 0.999, "{name}: cosine {cosine}");
    }
}

#[test]
fn taps_come_with_the_same_output_and_carry_gradients() {
    for name in ["clip-vit", "siglip-vit", "resnet18", "modified-resnet"] {
        let golden = golden(name);
        let (pooled, taps) = match golden.tower.forward_with_taps(golden.pixel_values()) {
            HeatMapTaps::Attention(attention) => {
                (attention.pooled, attention.layers.into_iter().chain(attention.pool).collect())
            }
            HeatMapTaps::Features { pooled, features } => (pooled, vec![features]),
        };
        assert_equals_peer(name, &pooled, &golden.expected["output"]);
        let score = (&pooled * &golden.expected["direction"]).sum(Kind::Float);
        for gradient in Tensor::run_backward(&[score], &taps, false, false) {
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}: a tap without gradient");
        }
    }
}

#[test]
fn processors_equal_transformers_on_pillow() {
    let folder = folder("processor");
    let images =
        ["wide", "tall"].map(|name| image::open(folder.join(name).with_extension("png")).unwrap().to_rgb8());
    for (name, expected) in Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap() {
        let processor = ImageProcessor::from_file(&folder.join(&name).with_extension("json")).unwrap();
        let pixel_values = processor.process_batch(&images).unwrap();
        // One level of 255 in the normalized range, and a rounding error.
        let level =
            f64::from(1.0 / (255.0 * processor.normalize().std.into_iter().fold(f32::INFINITY, f32::min)));
        let difference = max_difference(&pixel_values, &expected);
        assert!(difference <= level * 1.001, "{name} differs by {} levels", difference / level);
    }
}
