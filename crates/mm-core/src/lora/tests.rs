//! Adapters against merged weights, and the errors of their configs and files.

use super::targets::matches;
use super::*;
use crate::Precision;
use crate::checkpoint::hf_names;
use crate::config::ConfigFile;
use crate::nn::{AttentionMask, BlockConfig, BlockNames, Transformer};
use mm_testing::{initialize, normal};
use tch::{Device, Kind};

const LAYERS: i64 = 2;

/// A model with adapters whose A and B are random.
struct Adapted {
    model: Transformer,
    vs: VarStore,
    lora: Lora,
}

fn model() -> (Transformer, VarStore, Linears) {
    let config = BlockConfig { width: 16, heads: 4, mlp_width: 24, layers: LAYERS, ..BlockConfig::default() };
    let vs = VarStore::new(Device::Cpu);
    let (model, linears) =
        record_linears(|| Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP));
    initialize(&vs, 1);
    (model, vs, linears)
}

fn config(targets: &[&str]) -> LoraConfig {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    LoraConfig { rank: 3, alpha: 6.0, targets, ..LoraConfig::default() }
}

fn set_random(lora: &Lora) {
    for (index, (_, mut variable)) in sorted(lora.variables()).into_iter().enumerate() {
        tch::no_grad(|| variable.copy_(&(normal(index as u64, &variable.size()) * 0.3)));
    }
}

fn sorted(vs: &VarStore) -> Vec<(String, Tensor)> {
    let mut variables: Vec<_> = vs.variables().into_iter().collect();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    variables
}

fn adapted(config: &LoraConfig) -> Adapted {
    let (model, vs, linears) = model();
    let lora = Lora::attach(config, &linears, hf_names, &vs).unwrap();
    set_random(&lora);
    Adapted { model, vs, lora }
}

fn output(model: &Transformer) -> Tensor {
    model.forward(normal(9, &[2, 5, 16]), &AttentionMask::causal())
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn targets_match_as_in_peft_and_stars_match_the_whole_name() {
    let name = "vision_model.encoder.layers.0.self_attn.q_proj";
    for target in ["q_proj", "self_attn.q_proj", name, "all-linear", "vision_model.*.q_proj", "*q_proj", "*"]
    {
        assert!(matches(target, name), "{target}");
    }
    for target in ["proj", "attn.q_proj", "q_proj.", "vision_model", "text_model.*", "vision_model.*.k_proj"]
    {
        assert!(!matches(target, name), "{target}");
    }
}

#[test]
fn new_adapters_change_nothing_and_only_they_are_trained() {
    let (model, vs, linears) = model();
    let before = output(&model);
    let lora = Lora::attach(&config(&["q_proj", "v_proj", "fc1"]), &linears, hf_names, &vs).unwrap();
    assert_eq!(output(&model), before);
    assert_eq!(lora.variables().len(), 3 * 2 * LAYERS as usize);
    output(&model).sum(Kind::Float).backward();
    assert!(vs.variables().values().all(|variable| !variable.requires_grad()));
    for (name, variable) in lora.variables().variables() {
        assert!(variable.requires_grad() && variable.grad().defined(), "{name}");
    }
}

#[test]
fn merged_weights_compute_what_the_adapters_compute() {
    for targets in [&["q_proj", "v_proj"][..], &["k_proj"], &["fc1", "out_proj"], &["all-linear"]] {
        let Adapted { model, vs, lora, .. } = adapted(&config(targets));
        let before: Vec<Tensor> = sorted(&vs).into_iter().map(|(_, variable)| variable.copy()).collect();
        let with_adapters = output(&model);
        let copies = lora.merged_variables(&vs);
        assert!(sorted(&vs).iter().zip(&before).all(|((_, now), before)| now == before));
        lora.merge();
        for (name, copy) in copies {
            assert_eq!(copy, vs.variables()[&name], "{name}");
        }
        let merged = output(&model);
        lora.unmerge();
        for ((name, now), before) in sorted(&vs).iter().zip(&before) {
            assert!(apart(now, before) < 1e-6, "{name}");
        }
        assert!(apart(&merged, &with_adapters) < 1e-5 && apart(&output(&model), &with_adapters) < 1e-5);
        let (base, _, _) = self::model();
        assert!(apart(&output(&base), &with_adapters) > 1e-2, "{targets:?} adapts nothing");
    }
}

#[test]
fn a_packed_model_contains_its_adapters() {
    let Adapted { mut model, lora, .. } = adapted(&config(&["q_proj", "fc1", "fc2"]));
    let expected = tch::no_grad(|| output(&model));
    model.pack(Precision::F32);
    drop(lora);
    assert!(apart(&mm_sys::inference_mode(|| output(&model)), &expected) < 1e-5);
}

#[test]
fn adapters_read_back_from_the_files_of_peft() {
    let folder = tempfile::tempdir().unwrap();
    let rslora = LoraConfig { rslora: true, ..config(&["layers.0.*", "v_proj"]) };
    let first = adapted(&rslora);
    first.lora.save(folder.path(), Some("org/base")).unwrap();
    let names: Vec<String> = crate::checkpoint::Weights::open(&folder.path().join(ADAPTER_WEIGHTS_FILE))
        .unwrap()
        .list()
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert!(
        names.contains(&"base_model.model.layers.1.self_attn.v_proj.lora_A.weight".to_owned()),
        "{names:?}"
    );
    let (model, vs, linears) = model();
    let lora = Lora::open(folder.path(), &linears, hf_names, &vs).unwrap();
    assert_eq!(lora.modules().collect::<Vec<_>>(), first.lora.modules().collect::<Vec<_>>());
    assert_eq!(output(&model), output(&first.model));
}

#[test]
fn adapters_of_another_model_or_kind_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = adapted(&config(&["fc1"]));
    first.lora.save(folder.path(), None).unwrap();
    let file = folder.path().join(ADAPTER_CONFIG_FILE);
    let saved: serde_json::Value = crate::read_json(&file).unwrap();
    let message = || {
        let (_, vs, linears) = model();
        Lora::open(folder.path(), &linears, hf_names, &vs).unwrap_err().to_string()
    };
    for (key, value) in [
        ("peft_type", serde_json::json!("IA3")),
        ("use_dora", serde_json::json!(true)),
        ("bias", serde_json::json!("all")),
        ("rank_pattern", serde_json::json!({"fc1": 2})),
    ] {
        let mut edited = saved.clone();
        edited[key] = value;
        crate::write_json(&file, &edited).unwrap();
        let message = message();
        assert!(message.contains(key) && message.contains("adapter_config.json"), "{message}");
    }
    let mut wider = saved.clone();
    wider["r"] = 4.into();
    crate::write_json(&file, &wider).unwrap();
    assert!(
        message().contains("layers.0.mlp.fc1.lora_A.weight is [3, 16], the model's [4, 16]"),
        "{}",
        message()
    );
    crate::write_json(&file, &saved).unwrap();
    let odd = [("base_model.model.layers.0.mlp.fc3.lora_A.weight".to_owned(), normal(1, &[3, 16]))];
    crate::checkpoint::write(&folder.path().join(ADAPTER_WEIGHTS_FILE), &odd).unwrap();
    assert!(message().contains("no linear layer \"layers.0.mlp.fc3\"; near names are layers.0.mlp.fc1"));
}

#[test]
fn a_target_that_matches_nothing_is_named_with_the_nearest_names() {
    let (_, vs, linears) = model();
    let message = Lora::attach(&config(&["fc1", "q_porj"]), &linears, hf_names, &vs).unwrap_err().to_string();
    assert_eq!(message, "lora: \"q_porj\" matches no linear layer; near names are q_proj, k_proj, v_proj");
    let text = "[lora]\nrank = 2\ntargets = [\"atn.q_proj\"]\n";
    let file = ConfigFile::from_text("c.toml", text, &[]).unwrap();
    #[derive(serde::Deserialize)]
    struct Table {
        lora: LoraConfig,
    }
    let table: Table = file.parse().unwrap();
    table.lora.validate(&file).unwrap();
    let message = table.lora.validate_targets(&file, &linears.names(hf_names)).unwrap_err().to_string();
    assert!(
        message.starts_with("c.toml:3: `lora.targets`: \"atn.q_proj\" matches no linear layer"),
        "{message}"
    );
    assert!(message.contains("self_attn.q_proj"), "{message}");
}

#[test]
fn values_out_of_range_are_named_with_their_line() {
    let file = ConfigFile::from_text("c.toml", "[lora]\nrank = 0\n", &[]).unwrap();
    let check = |config: LoraConfig| config.validate(&file).unwrap_err().to_string();
    let good = config(&["fc1"]);
    assert_eq!(
        check(LoraConfig { rank: 0, ..good.clone() }),
        "c.toml:2: `lora.rank` must be at least 1, is 0"
    );
    assert!(check(LoraConfig { alpha: 0.0, ..good.clone() }).contains("`lora.alpha` must be above 0"));
    assert!(check(LoraConfig { dropout: 1.0, ..good.clone() }).contains("`lora.dropout` must be from 0"));
    assert!(
        check(LoraConfig { targets: Vec::new(), ..good }).contains("`lora.targets` must name linear layers")
    );
}
