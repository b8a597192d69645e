//! SD3's transformer equals diffusers' (`data/goldens/diffusion-sd3`, written by
//! `xtask/goldens/diffusion-sd3.py`).

mod configs;
mod goldens;
mod training;

use mm_core::checkpoint::Weights;
use mm_diffusion::{Sd3Condition, Sd3Config, Sd3Transformer};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// All folders of goldens.
const FOLDERS: [&str; 3] = ["plain", "dual", "pixels"];

/// The stem of the file of weights.
const STEM: &str = "diffusion_pytorch_model";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/diffusion-sd3").join(name)
}

fn config_json(name: &str) -> Value {
    mm_core::read_json(&golden(name).join("config.json")).unwrap()
}

/// A model with its variables, and what diffusers computes with it.
struct Opened {
    vs: VarStore,
    model: Sd3Transformer,
    expected: HashMap<String, Tensor>,
}

fn open(name: &str) -> Opened {
    open_with(name, |_| {})
}

fn open_with(name: &str, change: impl Fn(&mut Sd3Config)) -> Opened {
    let mut config = Sd3Config::from_hf(&config_json(name)).unwrap();
    change(&mut config);
    let vs = VarStore::new(Device::Cpu);
    let weights = Weights::open_folder(&golden(name), STEM).unwrap();
    let build = |path: &tch::nn::Path| Sd3Transformer::new(path, &config);
    let model = weights.build(&vs, &Sd3Transformer::LAYOUT, build).unwrap();
    let expected = Tensor::read_safetensors(golden(name).join("expected.safetensors")).unwrap();
    Opened { vs, model, expected: expected.into_iter().collect() }
}

impl Opened {
    /// The text of all items, under `attention_mask`.
    fn condition<'a>(&'a self, attention_mask: Option<&'a Tensor>) -> Sd3Condition<'a> {
        Sd3Condition {
            encoder_hidden_states: &self.expected["encoder_hidden_states"],
            pooled_projections: &self.expected["pooled_projections"],
            attention_mask,
        }
    }

    fn forward(&self, attention_mask: Option<&Tensor>) -> Tensor {
        let (x, timestep) = (&self.expected["hidden_states"], &self.expected["timestep"]);
        self.model.forward(x, timestep, &self.condition(attention_mask)).unwrap()
    }

    /// 1 for the tokens that each item has alone.
    fn mask(&self) -> Tensor {
        let tokens = self.expected["encoder_hidden_states"].size()[1];
        let positions = Tensor::arange(tokens, (tch::Kind::Int64, Device::Cpu));
        positions.lt_tensor(&self.expected["lengths"].unsqueeze(1)).to_kind(tch::Kind::Int64)
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
