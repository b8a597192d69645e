//! open_clip's folders with a ViT of timm and a BERT, as BiomedCLIP's: their variants and single towers.

use crate::folders::{Variant, Whole, copy, golden, rows};
use crate::towers::{expected, largest_difference, tokens};
use mm_clip::{
    CheckpointFormat, ClipPipeline, ImageTowerCheckpoint, ModelConverter, ModelFolder, OpenOptions,
    StoredType, TextEncoder,
};
use mm_core::checkpoint::write;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

const NAME: &str = "open-clip-biomed";
const WEIGHTS: &str = "open_clip_model.safetensors";

/// A copy of the golden with changes of its `text_cfg`, and of its tensors.
fn changed(text_cfg: &Value, change: impl Fn(&mut Vec<(String, Tensor)>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden(NAME), folder.path());
    let file = folder.path().join("open_clip_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (name, value) in text_cfg.as_object().unwrap() {
        config["model_cfg"]["text_cfg"][name] = value.clone();
    }
    fs::write(file, config.to_string()).unwrap();
    let weights = folder.path().join(WEIGHTS);
    let mut tensors = Tensor::read_safetensors(&weights).unwrap();
    change(&mut tensors);
    fs::remove_file(&weights).unwrap(); // the tensors are views of the file
    write(&weights, &tensors).unwrap();
    folder
}

fn open(folder: &Path) -> mm_clip::Result<ModelFolder> {
    ModelFolder::open(folder.to_str().unwrap())
}

#[test]
fn each_pooling_and_projection_of_texts_equals_open_clip() {
    let expected = expected(NAME);
    for (variant, text_cfg) in [
        ("mean", json!({ "hf_pooler_type": "mean_pooler" })),
        ("pooler", json!({ "hf_pooler_type": "cls_pooler" })),
        ("linear", json!({ "hf_proj_type": "linear" })),
    ] {
        let folder = changed(&text_cfg, |tensors| {
            if variant == "linear" {
                tensors.retain(|(name, _)| !name.starts_with("text.proj."));
            }
            for (name, tensor) in &expected {
                let own = name.strip_prefix(&format!("{variant}/")).filter(|name| name.starts_with("text."));
                tensors.extend(own.map(|own| (own.to_owned(), tensor.shallow_clone())));
            }
        });
        let folder = open(folder.path()).unwrap();
        let (tower, projection) = folder.text().unwrap();
        let vs = VarStore::new(Device::Cpu);
        let encoder = folder.build(&vs, None, |path| TextEncoder::new(path, &tower, projection)).unwrap();
        let embeds = encoder.encode(&tokens(&expected));
        let difference = largest_difference(&embeds, &expected[&format!("{variant}/text_embeds")]);
        assert!(difference <= 1e-4, "{variant} differs by {difference}");
    }
}

#[test]
fn the_config_of_the_bert_is_read_where_it_is_there_and_must_be_a_berts() {
    let folder = changed(&json!({}), |_| {});
    let config = folder.path().join("config.json");
    let deduced = open(folder.path()).unwrap().text().unwrap().0;
    let sizes = json!({ "model_type": "bert", "vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 2,
                        "num_attention_heads": 1, "intermediate_size": 96, "max_position_embeddings": 20 });
    fs::write(&config, sizes.to_string()).unwrap();
    assert_eq!(open(folder.path()).unwrap().text().unwrap().0, deduced);
    fs::write(&config, json!({ "model_type": "roberta" }).to_string()).unwrap();
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("\"roberta\""), "{message}");
}

#[test]
fn a_text_tower_that_is_no_bert_is_refused_by_its_tensors() {
    let segments = "text.transformer.embeddings.token_type_embeddings.weight";
    let roberta = changed(&json!({}), |tensors| {
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name == segments) {
            *tensor = tensor.narrow(0, 0, 1);
        }
    });
    assert!(open(roberta.path()).unwrap_err().to_string().contains("RoBERTa"));
    let other = changed(&json!({}), |tensors| tensors.retain(|(name, _)| name != segments));
    let message = open(other.path()).unwrap_err().to_string();
    assert!(message.contains(segments) && message.contains("only a BERT"), "{message}");
}

#[test]
fn texts_are_cut_at_the_context_length_of_open_clip_in_every_format() {
    let whole = Whole::new(&format!("clip/{NAME}"), Variant::Plain).unwrap();
    let length = |folder: &str| ModelFolder::open(folder).unwrap().tokenizer().unwrap().context_length();
    assert_eq!(length(whole.path()), 12); // of 20 positions
    for format in [CheckpointFormat::OpenClip, CheckpointFormat::Hf] {
        let to = whole.folder.path().join("converted");
        ModelConverter::read(whole.path(), None).unwrap().write(&to, format, StoredType::F32).unwrap();
        assert_eq!(length(to.to_str().unwrap()), 12);
        fs::remove_dir_all(to).unwrap();
    }
    assert_eq!(rows(whole.path())[0].size(), [4, 24]);
}

#[test]
fn a_small_bert_is_written_to_open_clips_format_only_under_the_name_that_it_came_with() {
    let whole = Whole::new(&format!("clip/{NAME}"), Variant::Plain).unwrap();
    let to = whole.folder.path().join("converted");
    let format = CheckpointFormat::OpenClip;
    ModelConverter::read(whole.path(), None).unwrap().write(&to, format, StoredType::F32).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(to.join("open_clip_config.json")).unwrap()).unwrap();
    assert_eq!(config["model_cfg"]["text_cfg"]["hf_model_name"], "org/bert");
    let pipeline = ClipPipeline::open(whole.path(), &OpenOptions::default()).unwrap();
    assert_eq!(pipeline.format().unwrap(), CheckpointFormat::Hf);
    let vs = VarStore::new(Device::Cpu);
    let error = pipeline.save(&[&vs], &to, format, StoredType::F32).unwrap_err().to_string();
    assert!(error.contains("no name of one with these sizes"), "{error}");
}

#[test]
fn the_image_tower_starts_another_model_and_so_does_a_vit_in_timms_own_folder() {
    let expected = expected(NAME);
    let timm = tempfile::tempdir().unwrap();
    let tensors = Tensor::read_safetensors(golden(NAME).join(WEIGHTS)).unwrap();
    let trunk =
        |(name, tensor): (String, Tensor)| Some((name.strip_prefix("visual.trunk.")?.to_owned(), tensor));
    let mut trunk: Vec<(String, Tensor)> = tensors.into_iter().filter_map(trunk).collect();
    trunk.push(("head.weight".to_owned(), mm_testing::normal(1, &[5, 64])));
    write(&timm.path().join("model.safetensors"), &trunk).unwrap();
    let pretrained = json!({ "input_size": [3, 160, 160], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5] });
    let config = |architecture: &str, more: Value| {
        let mut config = json!({ "architecture": architecture, "pretrained_cfg": pretrained });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        fs::write(timm.path().join("config.json"), config.to_string()).unwrap();
    };
    config("test_vit", json!({ "global_pool": "token" }));
    for folder in [golden(NAME).as_path(), timm.path()] {
        let checkpoint = ImageTowerCheckpoint::open(folder.to_str().unwrap()).unwrap();
        assert_eq!(checkpoint.processor().unwrap().output_size(), (160, 160));
        let vs = VarStore::new(Device::Cpu);
        let tower = checkpoint.config().unwrap().build(&(vs.root() / "encoder")).unwrap();
        checkpoint.fill(&vs, "encoder", false).unwrap();
        let difference =
            largest_difference(&tower.forward(&expected["pixel_values"], false), &expected["image_pooled"]);
        assert!(difference <= 1e-4, "{} differs by {difference}", folder.display());
    }
    for (architecture, more, problem) in [
        ("swin_tiny", json!({}), "swin_tiny of timm is not offered"),
        ("test_vit", json!({ "global_pool": "avg" }), "global_pool is \"avg\""),
        ("test_vit", json!({ "model_args": { "img_size": 96 } }), "model_args is"),
    ] {
        config(architecture, more);
        let message = ImageTowerCheckpoint::open(timm.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains(problem) && message.contains("config.json"), "{message}");
    }
}
