//! Model folders whose JSON files are damaged or lie: whatever is in them, opening gives a model or an error
//! of one line that names the file, and takes no memory that the weights do not ask for.

#[path = "../../mm-core/tests/common/json.rs"]
mod slips;

use mm_clip::{
    Architecture, CheckpointFormat, Clip, ClipConfig, ClipPipeline, ImageEncoder, ModelFolder, OpenOptions,
    Result, StoredType, TextEncoder, TextProjection,
};
use mm_core::peak_memory;
use mm_image::RgbImage;
use mm_text::{ClipTextConfig, TextTowerConfig, TokenBatch, train_bpe};
use mm_vision::{ImageProcessor, ImageTowerConfig, VitConfig};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use slips::slip;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// A folder to damage.
struct Subject {
    folder: tempfile::TempDir,
    /// Its JSON files and what belongs into them.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Whether it has a tokenizer and preprocessing.
    is_whole: bool,
}

impl Subject {
    fn new(folder: tempfile::TempDir, is_whole: bool) -> Self {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let files = files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
        Self { folder, files, is_whole }
    }

    /// A golden folder: its JSON files are copied, its weights linked.
    fn golden(golden: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
            let to = folder.path().join(entry.file_name().unwrap());
            match entry.extension().is_some_and(|extension| extension == "json") {
                true => fs::copy(&entry, to).map(drop).unwrap(),
                false => std::os::unix::fs::symlink(entry.canonicalize().unwrap(), to).unwrap(),
            }
        }
        Self::new(folder, false)
    }

    /// A small CLIP with everything that belongs to it.
    fn whole(form: CheckpointFormat) -> Self {
        let tokenizer = train_bpe(["a cat", "a dog"].into_iter().map(str::to_owned), 520, 16).unwrap();
        let image = VitConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 16,
            ..VitConfig::default()
        };
        let text = ClipTextConfig {
            vocab_size: tokenizer.vocab_size() as i64,
            eos_token_id: i64::from(tokenizer.eos_id()),
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 16,
            ..ClipTextConfig::default()
        };
        let config = ClipConfig::new(8, ImageTowerConfig::Vit(image), TextTowerConfig::Clip(text));
        let vs = VarStore::new(Device::Cpu);
        let clip = Clip::new(&vs.root(), &config).unwrap();
        let processor = ImageProcessor::default_clip(32);
        let folder = tempfile::tempdir().unwrap();
        let pipeline = ClipPipeline::new(clip, config, Arc::new(tokenizer), processor, Device::Cpu);
        pipeline.save(&[&vs], folder.path(), form, StoredType::F32).unwrap();
        Self::new(folder, true)
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Opens the model and computes with it.
    fn open(&self) -> Result<()> {
        if self.is_whole {
            let pipeline = ClipPipeline::open(self.path(), &OpenOptions::default())?;
            let images = pipeline.image.embed(&[RgbImage::new(40, 30)])?;
            assert_eq!(images.size()[1], pipeline.text.embed(&["a cat", "ein Hund"], 2)?.size()[1]);
            return Ok(());
        }
        let folder = ModelFolder::open(self.path())?;
        let (vs, architecture) = (VarStore::new(Device::Cpu), folder.architecture.clone());
        folder
            .build(&vs, None, |path| match &architecture {
                Architecture::Clip(config) => {
                    let clip = Clip::new(path, config)?;
                    Ok((Some((clip.image, config.image.clone())), Some((clip.text, config.text.clone()))))
                }
                Architecture::Image { tower, projection } => {
                    Ok((Some((ImageEncoder::new(path, tower, *projection)?, tower.clone())), None))
                }
                Architecture::Text { tower, projection } => Ok((
                    None,
                    Some((
                        TextEncoder::new(path, tower, projection.map(TextProjection::linear))?,
                        tower.clone(),
                    )),
                )),
            })
            .map(|(image, text)| {
                let options = (Kind::Float, Device::Cpu);
                if let Some((encoder, tower)) = image.filter(|(_, tower)| tower.image_size() < 100) {
                    let pixel_values = Tensor::zeros([1, 3, tower.image_size(), tower.image_size()], options);
                    assert_eq!(encoder.forward(&pixel_values, false).size(), [1, encoder.output_width()]);
                }
                if let Some((encoder, tower)) = text {
                    let input_ids =
                        Tensor::zeros([1, tower.context_length().min(8)], (Kind::Int64, Device::Cpu));
                    let tokens = TokenBatch { attention_mask: input_ids.ones_like(), input_ids };
                    assert_eq!(encoder.forward(&tokens).size(), [1, encoder.output_width()]);
                }
            })
    }
}

fn subjects() -> Vec<Subject> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/clip");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let goldens = folders.iter().map(|folder| Subject::golden(folder));
    let wholes = [CheckpointFormat::Hf, CheckpointFormat::OpenClip].map(Subject::whole);
    goldens.chain(wholes).filter(|subject| !subject.files.is_empty()).collect()
}

#[test]
fn three_thousand_folders_with_mutated_files_give_a_model_or_an_error_that_names_the_file() {
    tch::set_num_threads(1); // the models are small: threads would wait for each other
    let subjects = subjects();
    assert!(subjects.len() > 15);
    subjects.iter().for_each(|subject| subject.open().unwrap());
    let (opened, refused, before) = (Cell::new(0), Cell::new(0), peak_memory().unwrap());
    // A whole folder has four times the files of a golden one.
    let shares: Vec<usize> =
        (0..subjects.len()).flat_map(|index| vec![index; subjects[index].files.len()]).collect();
    let cases = (proptest::sample::select(shares), 0..8usize, vec(slip(), 1..3));
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&cases, |(subject, file, slips)| {
        let subject = &subjects[subject];
        let (file, content) = &subject.files[file % subject.files.len()];
        let mut damaged = content.clone();
        slips.iter().for_each(|slip| slip.make(&mut damaged));
        fs::write(file, damaged).unwrap();
        let result = subject.open();
        fs::write(file, content).unwrap();
        match result {
            Ok(()) => opened.set(opened.get() + 1),
            Err(error) => {
                let message = error.to_string();
                // A tokenizer may have no token for a text: the error is then about the text, not about the
                // file.
                let is_told = message.contains(subject.path()) || message.starts_with("tokenizer: ");
                assert!(is_told && !message.contains(char::is_control), "{message}");
                refused.set(refused.get() + 1);
            }
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let (opened, refused, grown) = (opened.get(), refused.get(), peak_memory().unwrap() - before);
    println!("{opened} opened, {refused} refused, {} KiB more memory", grown >> 10);
    assert!(opened > 300 && refused > 1000, "every outcome is met");
    assert!(grown < 128 << 20, "{grown} bytes more for models of less than 1 MB");
}

#[test]
fn a_config_that_disagrees_with_the_weights_or_asks_for_the_impossible_says_in_what() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/clip");
    let (hf, open_clip) =
        (Subject::golden(&goldens.join("clip")), Subject::golden(&goldens.join("open-clip-vit")));
    let before = peak_memory().unwrap();
    for (subject, place, value, expected) in [
        (
            &hf,
            "/vision_config/hidden_size",
            json!(1_000_000_000),
            "config.json: image tower: hidden_size is 1000000000",
        ),
        (
            &hf,
            "/vision_config/hidden_size",
            json!(1 << 20),
            "misshapen (vision_model.embeddings.class_embedding is [48]",
        ),
        (
            &hf,
            "/text_config/vocab_size",
            json!(1 << 20),
            "misshapen (text_model.embeddings.token_embedding.weight is [",
        ),
        (&hf, "/text_config/num_hidden_layers", json!(1024), "missing (text_model.encoder.layers."),
        (&hf, "/vision_config/num_hidden_layers", json!(1 << 30), "num_hidden_layers is 1073741824"),
        (
            &hf,
            "/vision_config/image_size",
            json!(4096),
            "misshapen (vision_model.embeddings.position_embedding.weight",
        ),
        (&hf, "/projection_dim", json!(-1), "config.json: the width of the shared space is -1"),
        (
            &hf,
            "/projection_dim",
            json!("wide"),
            "config.json: projection_dim is \"wide\": it must be an integer",
        ),
        (&hf, "/vision_config", json!(7), "config.json: vision_config is 7: it must be an object"),
        (
            &open_clip,
            "/model_cfg/quick_gelu",
            json!("yes"),
            "open_clip_config.json: model_cfg.quick_gelu is \"yes\"",
        ),
        (
            &open_clip,
            "/model_cfg/vision_cfg/mlp_ratio",
            json!("4"),
            "vision_cfg.mlp_ratio is \"4\": expected a number",
        ),
        (
            &open_clip,
            "/model_cfg/vision_cfg/width",
            json!(i64::MAX),
            "vision_cfg.width is 9223372036854775807",
        ),
        (
            &open_clip,
            "/model_cfg/vision_cfg/image_size",
            json!(2048),
            "misshapen (visual.positional_embedding",
        ),
    ] {
        let (file, content) = &subject.files[0];
        let mut config: serde_json::Value = serde_json::from_slice(content).unwrap();
        let (parent, key) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        fs::write(file, config.to_string()).unwrap();
        let message = subject.open().unwrap_err().to_string();
        assert!(message.contains(expected), "{place}: {message}");
    }
    let grown = peak_memory().unwrap() - before;
    assert!(grown < 128 << 20, "{grown} bytes more for models that cannot be");
}
