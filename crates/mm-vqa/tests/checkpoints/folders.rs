//! Folders that are written and read again.

use crate::{golden, open};
use mm_core::checkpoint::StoredType;
use mm_vqa::{Answers, BlipVqa, Vilt, VqaConfig, VqaFolder};
use std::sync::Arc;
use tch::Device;
use tch::nn::VarStore;

/// Builds the model of `folder` on `vs`.
fn build(folder: &VqaFolder, vs: &VarStore) {
    match &folder.config {
        VqaConfig::Blip(config) => drop(folder.build(vs, |path| BlipVqa::new(path, config)).unwrap()),
        VqaConfig::Vilt(config) => drop(folder.build(vs, |path| Vilt::new(path, config)).unwrap()),
        VqaConfig::CoAttention(_) => panic!("no golden here is a co-attention model"),
    }
}

#[test]
fn what_is_saved_reads_back_the_same() {
    for name in ["blip", "vilt"] {
        let (vs, copy) = (VarStore::new(Device::Cpu), VarStore::new(Device::Cpu));
        let folder = open(name);
        build(&folder, &vs);
        let mut parts = folder.parts().unwrap();
        if name == "blip" {
            let answers = Answers::new(vec!["yes".to_owned(), "no".to_owned()]).unwrap();
            parts.answers = Some(Arc::new(answers));
        }
        let to = tempfile::tempdir().unwrap();
        let variables = vs.variables().into_iter().collect();
        folder.config.save(variables, &parts, to.path(), StoredType::F32).unwrap();

        let written = to.path().to_str().unwrap();
        assert!(VqaFolder::is_vqa(written) && VqaFolder::is_vqa(golden(name).to_str().unwrap()));
        let again = VqaFolder::open(written).unwrap();
        build(&again, &copy);
        assert_eq!(again.config, folder.config);
        let read = again.parts().unwrap();
        assert_eq!((&read.processor, &read.answers), (&parts.processor, &parts.answers));
        assert_eq!(read.generation, parts.generation);
        assert_eq!(read.tokenizer.difference(&parts.tokenizer), None);
        let (own, copy) = (vs.variables(), copy.variables());
        assert_eq!(own.len(), copy.len());
        assert!(own.iter().all(|(name, variable)| copy[name] == *variable));
    }
}

#[test]
fn a_folder_of_another_architecture_is_refused() {
    let captioner = golden("../caption/blip");
    let name = captioner.to_str().unwrap();
    assert!(!VqaFolder::is_vqa(name));
    let error = VqaFolder::open(name).unwrap_err().to_string();
    assert!(error.contains("config.json: architectures names BlipForConditionalGeneration"), "{error}");
    let error = VqaFolder::open(golden("../caption/vit-gpt2").to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("model_type is vision-encoder-decoder"), "{error}");
}

#[test]
fn a_preprocessing_that_does_not_fit_is_named() {
    let damaged = |name: &str, file: &str, from: &str, to: &str| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(folder.path().join(file), text.replace(from, to)).unwrap();
        VqaFolder::open(folder.path().to_str().unwrap()).unwrap().parts().unwrap_err().to_string()
    };
    let preprocessing = "preprocessor_config.json";
    let error = damaged("vilt", preprocessing, "\"size_divisor\": 8", "\"size_divisor\": 12");
    assert!(error.contains("size_divisor is 12: it must be a multiple of patch_size, 8"), "{error}");
    let error = damaged("blip", preprocessing, "\"height\": 32", "\"height\": 40");
    assert!(error.contains("images become 32 x 40 pixels, but the tower takes 32 x 32"), "{error}");
}

#[test]
fn weight_decay_leaves_out_embeddings_of_class_and_position() {
    for (name, expected) in [
        (
            "blip",
            vec![
                "text_decoder.bert.embeddings.position_embeddings.weight",
                "text_encoder.embeddings.position_embeddings.weight",
                "vision_model.embeddings.class_embedding",
                "vision_model.embeddings.position_embedding",
            ],
        ),
        (
            "vilt",
            vec![
                "vilt.embeddings.cls_token",
                "vilt.embeddings.position_embeddings",
                "vilt.embeddings.text_embeddings.position_embeddings.weight",
            ],
        ),
    ] {
        let (vs, folder) = (VarStore::new(Device::Cpu), open(name));
        build(&folder, &vs);
        let mut exempt: Vec<String> = vs.variables().into_keys().collect();
        exempt.retain(|name| !folder.config.has_weight_decay(name));
        exempt.sort();
        assert_eq!(exempt, expected);
    }
}
