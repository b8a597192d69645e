//! What is saved opens again, here and in transformers, by the names of its files.

use crate::{FOLDERS, copied, golden, json, open, photo};
use mm_core::checkpoint::StoredType;
use mm_core::lora::{Lora, LoraConfig, record_linears};
use mm_core::nn::shapes_only;
use mm_text::generate::GenerationConfig;
use mm_text::{ChatMessage, ChatPart};
use mm_vqa::vlm::{ConnectorConfig, Vlm, VlmConfig, VlmFolder};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

fn names(file: &Path) -> BTreeSet<String> {
    Tensor::read_safetensors(file).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_saved_model_has_transformers_names_and_reads_back_the_same() {
    for name in FOLDERS {
        let (pipeline, vs) = open(&golden(name));
        let saved = tempfile::tempdir().unwrap();
        pipeline.save(vs.variables().into_iter().collect(), saved.path(), StoredType::F32).unwrap();
        let file = "model.safetensors";
        assert_eq!(names(&saved.path().join(file)), names(&golden(name).join(file)), "{name}");

        let (again, copy) = open(saved.path());
        assert_eq!(again.config, pipeline.config);
        assert_eq!(again.processor, pipeline.processor);
        assert_eq!((&again.generation, &again.eos), (&pipeline.generation, &pipeline.eos));
        let (own, copy) = (vs.variables(), copy.variables());
        assert!(own.len() == copy.len() && own.iter().all(|(name, variable)| copy[name] == *variable));
        let question = vec![ChatPart::Image, ChatPart::Text("What is this?".to_owned())];
        let inputs = |pipeline: &mm_vqa::vlm::VlmPipeline| {
            pipeline.prompt(&[ChatMessage::new("user", question.clone())], &[photo("cell")]).unwrap()
        };
        assert_eq!(inputs(&again), inputs(&pipeline));
        let config = GenerationConfig { max_new_tokens: 4, ..GenerationConfig::default() };
        let answers = again.generate(&[inputs(&again)], &config).unwrap();
        assert_eq!(answers, pipeline.generate(&[inputs(&pipeline)], &config).unwrap());
    }
}

#[test]
fn the_fields_of_a_saved_config_are_transformers_own() {
    for name in FOLDERS {
        let (pipeline, vs) = open(&golden(name));
        let saved = tempfile::tempdir().unwrap();
        pipeline.save(vs.variables().into_iter().collect(), saved.path(), StoredType::F32).unwrap();
        let (own, expected): (Value, Value) =
            (json(&saved.path().join("config.json")), json(&golden(name).join("config.json")));
        let fields = ["model_type", "architectures", "image_token_id", "image_token_index", "scale_factor"];
        let more = ["vision_feature_layer", "vision_feature_select_strategy", "tie_word_embeddings"];
        for field in fields.iter().chain(&more) {
            assert_eq!(own[field], expected[field], "{name}: {field}");
        }
        for part in ["vision_config", "text_config"] {
            for field in ["model_type", "hidden_size", "num_hidden_layers", "image_size", "vocab_size"] {
                assert_eq!(own[part][field], expected[part][field], "{name}: {part}.{field}");
            }
        }
    }
}

#[test]
fn several_end_tokens_are_read_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    copied("llava", folder.path());
    let generation = json!({"eos_token_id": [79, 5], "pad_token_id": 80});
    std::fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
    let (pipeline, vs) = open(folder.path());
    assert_eq!((pipeline.eos.as_slice(), pipeline.pad), ([79, 5].as_slice(), 80));
    let saved = tempfile::tempdir().unwrap();
    pipeline.save(vs.variables().into_iter().collect(), saved.path(), StoredType::F32).unwrap();
    assert_eq!(open(saved.path()).0.eos, [79, 5]);
}

#[test]
fn a_tied_head_is_read_with_or_without_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    copied("llava-interleave", folder.path());
    let file = folder.path().join("model.safetensors");
    let mut weights = Tensor::read_safetensors(&file).unwrap();
    let table = "language_model.model.embed_tokens.weight";
    let copy = weights.iter().find(|(name, _)| name == table).unwrap().1.copy();
    weights.push(("language_model.lm_head.weight".to_owned(), copy));
    Tensor::write_safetensors(&weights, &file).unwrap();
    assert_eq!(open(folder.path()).1.len(), open(&golden("llava-interleave")).1.len());
}

#[test]
fn linear_layers_have_the_names_of_pefts_files_and_take_adapters() {
    for name in FOLDERS {
        let config = VlmFolder::open(golden(name).to_str().unwrap()).unwrap().config;
        let mut expected: Vec<String> = json(&golden(name).join("linears.json"));
        expected.retain(|layer| layer != "lm_head" || !config.text.tie_word_embeddings);
        let vs = VarStore::new(Device::Cpu);
        let (model, linears) = record_linears(|| Vlm::new(&vs.root(), &config));
        let names = config.family.lora_names();
        let found: BTreeSet<String> = linears.names(names).into_iter().collect();
        assert_eq!(found, expected.into_iter().collect(), "{name}");

        let targets = ["q_proj", "v_proj", "mlp.up_proj"].map(str::to_owned).to_vec();
        let lora = LoraConfig { rank: 2, targets, ..LoraConfig::default() };
        let lora = Lora::attach(&lora, &linears, names, &vs).unwrap();
        let ids = Tensor::from_slice(&[1i64, 2, 3]).unsqueeze(0);
        let model = model.unwrap();
        let logits = model.logits(&model.forward(&ids, None).unwrap());
        logits.square().mean(None).backward();
        let variables = lora.variables().variables().into_iter();
        let of_decoder = variables.filter(|(name, _)| !name.contains("vision"));
        let mut count = 0;
        for (name, variable) in of_decoder.filter(|(name, _)| name.contains("lora_B")) {
            assert!(variable.grad().abs().max().double_value(&[]) > 0.0, "{name}");
            count += 1;
        }
        assert_eq!(count, 6, "{name}");
    }
}

#[test]
fn every_parameter_has_a_depth() {
    for name in FOLDERS {
        let config = VlmFolder::open(golden(name).to_str().unwrap()).unwrap().config;
        let vs = VarStore::new(Device::Cpu);
        shapes_only(|| Vlm::new(&vs.root(), &config)).unwrap();
        let depths: Vec<usize> = vs.variables().keys().map(|name| config.depth(name)).collect();
        assert!(depths.contains(&0) && depths.iter().all(|&depth| depth <= 3), "{name}: {depths:?}");
        let exempt = vs.variables().keys().filter(|name| !config.has_weight_decay(name)).count();
        assert_eq!(exempt, if name == "llava" { 2 } else { 1 }, "{name}");
    }
}

#[test]
fn a_config_is_data_that_a_toml_holds() {
    for name in FOLDERS {
        let config = VlmFolder::open(golden(name).to_str().unwrap()).unwrap().config;
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<VlmConfig>(&written).unwrap(), config);
        assert!(toml::from_str::<VlmConfig>(&format!("imagetoken = 1\n{written}")).is_err());
    }
    let connector: ConnectorConfig = toml::from_str("kind = \"pixel_shuffle\"\nscale_factor = 4").unwrap();
    assert_eq!(connector, ConnectorConfig::PixelShuffle { scale_factor: 4 });
}
