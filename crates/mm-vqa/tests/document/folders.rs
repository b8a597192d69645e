//! Folders that are opened, written and refused.

use crate::{MODELS, build, golden, open, pipeline};
use mm_core::OpenOptions;
use mm_core::checkpoint::StoredType;
use mm_vqa::document::{DocumentFolder, DocumentPipeline};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// A copy of a golden folder in which `file` has `to` for `from`.
fn damaged(name: &str, file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(folder.path().join(file), text.replacen(from, to, 1)).unwrap();
    folder
}

fn message(folder: &Path) -> String {
    let opened = DocumentPipeline::open(folder.to_str().unwrap(), &OpenOptions::default());
    opened.unwrap_err().to_string()
}

#[test]
fn what_is_saved_reads_back_the_same() {
    for name in MODELS {
        let vs = VarStore::new(Device::Cpu);
        let mut pipeline = DocumentPipeline::load(&open(name), &vs).unwrap();
        pipeline.prompt = pipeline.tokenizer.token_id("<s_cord>").unwrap();
        pipeline.tokens.start = Some(pipeline.prompt);
        pipeline.schema = Some("cord".to_owned());
        let to = tempfile::tempdir().unwrap();
        let written = to.path().to_str().unwrap();
        pipeline.save(vs.variables().into_iter().collect(), to.path(), StoredType::F32).unwrap();

        assert!(DocumentFolder::is_document(written));
        let [written_names, names] = [to.path(), &golden(name)].map(|folder| {
            let names = Tensor::read_safetensors(folder.join("model.safetensors")).unwrap();
            names.into_iter().map(|(name, tensor)| (name, tensor.size())).collect::<BTreeMap<_, _>>()
        });
        assert_eq!(written_names, names);
        let copy = VarStore::new(Device::Cpu);
        let again = DocumentPipeline::load(&DocumentFolder::open(written).unwrap(), &copy).unwrap();
        assert_eq!((&again.config, &again.schema), (&pipeline.config, &pipeline.schema));
        assert_eq!((again.prompt, &again.tokens), (pipeline.prompt, &pipeline.tokens));
        assert_eq!((&again.processor, &again.generation), (&pipeline.processor, &pipeline.generation));
        assert_eq!(again.tokenizer.difference(&pipeline.tokenizer), None);
        assert_eq!(again.prompt_tokens(None).unwrap(), [pipeline.prompt]);
        let (own, copy) = (vs.variables(), copy.variables());
        assert_eq!(own.len(), copy.len());
        assert!(own.iter().all(|(name, variable)| copy[name] == *variable));
    }
}

#[test]
fn tags_that_a_tokenizer_lacks_are_added_and_nothing_else_changes() {
    let (vs, copy) = build("equal");
    let old = vs.variables();
    drop(copy);
    let tags: BTreeSet<String> =
        ["<s_invoice>", "<s_total>", "<s_iban>", "</s_iban>"].map(str::to_owned).into();
    let mut folder = open("equal");
    let rows = folder.config.decoder.vocab_size;
    let vs = VarStore::new(Device::Cpu);
    let pipeline = DocumentPipeline::load_with_tags(&mut folder, &vs, "invoice", &tags).unwrap();
    assert_eq!(pipeline.config.decoder.vocab_size, rows + 3); // <s_total> was there
    assert_eq!(pipeline.tokenizer.token(pipeline.prompt).as_deref(), Some("<s_invoice>"));
    for (name, variable) in vs.variables() {
        let kept = if name.ends_with("embed_tokens.weight") { variable.narrow(0, 0, rows) } else { variable };
        assert_eq!(kept, old[&name], "{name}");
    }
    let to = tempfile::tempdir().unwrap();
    pipeline.save(vs.variables().into_iter().collect(), to.path(), StoredType::F32).unwrap();
    let again = DocumentPipeline::open(to.path().to_str().unwrap(), &OpenOptions::default()).unwrap();
    assert_eq!((again.prompt, again.schema.as_deref()), (pipeline.prompt, Some("invoice")));
}

#[test]
fn a_prompt_is_one_known_token_and_a_published_folder_has_none() {
    let pipeline = pipeline("equal");
    let prompt = pipeline.prompt_tokens(Some("<s_cord>")).unwrap();
    assert_eq!((prompt.len(), pipeline.schema_prompt("cord").unwrap().as_str()), (1, "<s_cord>"));
    let question = "<s_cord><s_nm>coffee</s_nm><s_cnt>";
    assert!(pipeline.prompt_tokens(Some(question)).unwrap().len() > 4);
    let wrong = |prompt: Option<&str>| pipeline.prompt_tokens(prompt).unwrap_err().to_string();
    assert!(wrong(None).contains("names no prompt: give one of its schemas' (<s_cord>)"), "{}", wrong(None));
    for prompt in ["<s_invoice>", "coffee", ""] {
        let error = wrong(Some(prompt));
        assert!(
            error.contains(&format!("was not trained for {prompt}: its tokenizer has <s_cord>")),
            "{error}"
        );
    }
    let error = wrong(Some("<s_cord>\u{732b}"));
    assert!(error.contains("has characters that are no tokens"), "{error}");
}

#[test]
fn a_folder_of_another_architecture_is_refused() {
    let captioner = golden("../caption/vit-gpt2");
    assert!(!DocumentFolder::is_document(captioner.to_str().unwrap()));
    let error = message(&captioner);
    assert!(error.contains("config.json: the encoder's model_type is vit"), "{error}");
    let error = message(&golden("../caption/blip"));
    assert!(error.contains("model_type is blip"), "{error}");
}

#[test]
fn parts_that_do_not_fit_are_named() {
    for (file, from, to, expected) in [
        ("preprocessor_config.json", "\"height\": 36", "\"height\": 40", "pages become 27 x 40 pixels, but"),
        (
            "preprocessor_config.json",
            "DonutImageProcessor",
            "CLIPImageProcessor",
            "must be DonutImageProcessor",
        ),
        (
            "config.json",
            "\"vocab_size\": 52",
            "\"vocab_size\": 50",
            "has 52 tokens, the decoder's embedding 50",
        ),
        ("config.json", "\"embed_dim\": 8", "\"embed_dim\": 12", "tensors do not match the model"),
        ("config.json", "\"window_size\": 4", "\"window_size\": 8", "its grid of 9 x 7 tokens is smaller"),
        (
            "config.json",
            "\"use_absolute_embeddings\": false",
            "\"use_absolute_embeddings\": true",
            "only false",
        ),
        ("generation_config.json", "\"eos_token_id\": 2", "\"eos_token_id\": 99", "has no token 99"),
        ("config.json", "{", "{\"mm_document\": {\"prompt\": \"<s_x>\"},", "was not trained for <s_x>"),
        ("config.json", "{", "{\"mm_document\": {\"promt\": \"<s_cord>\"},", "mm_document: missing field"),
    ] {
        let folder = damaged("equal", file, from, to);
        let error = message(folder.path());
        assert!(error.contains(expected), "{error}");
        let path = folder.path().to_str().unwrap();
        assert!(error.contains(path), "{error}");
    }
}
