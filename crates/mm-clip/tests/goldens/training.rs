//! A step of training on every golden model: what it is saved as opens again and gives the rows of the last
//! step.

use crate::folders::{VARIANTS, Variant, Whole, all, assert_same, rows};
use mm_clip::{Architecture, ClipRunConfig, ClipTask, ModelFolder};
use mm_core::Precision;
use mm_core::config::ConfigFile;
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    NoProgress, Resume, Run, RunFolder, Task, TaskConfig, TaskContext, Trainer, TrainingData, read_config,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Device;

const IMAGE: &str = r#"image = { kind = "vit", image_size = 32, patch_size = 16, hidden_size = 32,
    intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2 }"#;
const TEXT: &str = r#"text = { kind = "clip", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1,
    num_attention_heads = 2, max_position_embeddings = 12 }
[tokenizer]
vocab_size = 600"#;

/// A run of one step that begins from `model`, the lines of `[model]`.
pub fn config(out: &Path, model: &str, more: &[&str]) -> ClipRunConfig {
    let text = format!(
        "[run]\ntask = \"clip\"\nname = \"tuned\"\nout = {out:?}\n\
         [data]\ntrain = {{ kind = \"emoji\", split = \"held_out\" }}\nworkers = 1\n\
         [train]\nsteps = 1\nbatch_size = 4\nlr = 1e-3\nwarmup = 0\n[model]\n{model}\n"
    );
    let more: Vec<String> = more.iter().map(|&change| change.to_owned()).collect();
    read_config::<ClipTask>(&mut ConfigFile::from_text("tuned.toml", &text, &more).unwrap()).unwrap()
}

fn task(
    config: &ClipRunConfig,
    dataset: &Arc<dyn Dataset>,
    checkpoint: Option<&Path>,
) -> mm_train::Result<ClipTask> {
    let group = ProcessGroup::alone();
    ClipTask::new(config, &TaskContext { checkpoint, ..TaskContext::new(Device::Cpu, &group, dataset) })
}

/// Trains to the end and gives the run's folder.
pub fn train(config: &ClipRunConfig, resume: &Resume) -> PathBuf {
    let group = ProcessGroup::alone();
    let checkpoint = config.run.folder().join("checkpoints/latest");
    let checkpoint = (*resume == Resume::Latest).then_some(checkpoint.as_path());
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let task = task(config, &dataset, checkpoint).unwrap_or_else(|error| panic!("{error}"));
    let folder = RunFolder::open(&config.run, resume, "", &group).unwrap();
    let run = Run { folder: &folder, group: &group, precision: Precision::F32 };
    let data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    let trainer = Trainer::new(task, data, Vec::new(), config, run).unwrap();
    trainer.train(&AtomicBool::new(false), &NoProgress, &mut |_| {}).unwrap();
    folder.path
}

#[test]
fn every_model_that_opens_is_trained_and_saved_as_one_that_opens_again() {
    let of_all = [Variant::Plain, Variant::Longest];
    let rest = ["clip/clip", "clip/clip-legacy-eos", "clip/open-clip-vit", "clip/siglip"];
    let is_run = |name: &str, variant: &Variant| of_all.contains(variant) || rest.contains(&name);
    for (name, variant) in all().iter().flat_map(|name| VARIANTS.map(|variant| (name, variant))) {
        let whole = if is_run(name, &variant) { Whole::new(name, variant) } else { None };
        let Some(whole) = whole else { continue };
        let what = format!("{name} {variant:?}");
        let from = whole.path();
        let model = match &whole.architecture {
            Architecture::Clip(_) => format!("from = {from:?}"),
            Architecture::Image { .. } => {
                format!("embed_dim = 32\nimage_from = {from:?}\n{TEXT}")
            }
            Architecture::Text { tower, .. } => {
                let width = tower.output_width(); // SigLIP's ends in the shared space itself
                format!("embed_dim = {width}\ntext_from = {from:?}\n{IMAGE}")
            }
        };
        let run = train(&config(whole.folder.path(), &model, &[]), &Resume::No);
        let (saved, last) = (run.join("model"), run.join("checkpoints/step-1"));
        let (saved, last) = (saved.to_str().unwrap(), last.to_str().unwrap());
        assert_same(&rows(last), &rows(saved), &what);

        let (before, after) = (ModelFolder::open(from).unwrap(), ModelFolder::open(saved).unwrap());
        if !matches!(whole.architecture, Architecture::Text { .. }) {
            assert_eq!(before.processor().unwrap(), after.processor().unwrap(), "{what}");
        }
        if !matches!(whole.architecture, Architecture::Image { .. }) {
            let (before, after) = (before.tokenizer().unwrap(), after.tokenizer().unwrap());
            assert_eq!(before.difference(&after), None, "{what}");
        }
        if let Architecture::Clip(_) = whole.architecture {
            let moved: f64 =
                rows(from).iter().zip(rows(saved)).map(|(a, b)| (a - b).abs().max().double_value(&[])).sum();
            assert!(moved > 1e-6, "{what}: nothing was trained");
        }
        std::fs::remove_dir_all(whole.folder.path()).unwrap();
    }
}

#[test]
fn a_pair_of_towers_that_no_peer_supports_has_a_format_of_its_own() {
    let image = Whole::new("clip/open-clip-vit", Variant::Longest).unwrap();
    let text = Whole::new("clip/bert", Variant::Plain).unwrap();
    let model = format!("embed_dim = 32\nimage_from = {:?}\ntext_from = {:?}", image.path(), text.path());
    let run = train(&config(image.folder.path(), &model, &[]), &Resume::No);
    let (saved, last) = (run.join("model"), run.join("checkpoints/latest"));
    assert_same(&rows(last.to_str().unwrap()), &rows(saved.to_str().unwrap()), "longest beside a BERT");
}

#[test]
fn a_run_goes_on_without_the_folder_that_it_began_from() {
    let whole = Whole::new("clip/open-clip-vit", Variant::Longest).unwrap();
    let out = tempfile::tempdir().unwrap();
    let model = format!("from = {:?}", whole.path());
    let two_steps = config(out.path(), &model, &["train.steps=2"]);
    let unbroken = rows(train(&two_steps, &Resume::No).join("model").to_str().unwrap());

    let out = tempfile::tempdir().unwrap();
    let mut resumed = config(out.path(), &model, &["train.steps=2"]);
    resumed.train.steps = 1;
    train(&resumed, &Resume::No);
    std::fs::remove_dir_all(whole.folder.path()).unwrap();
    resumed.train.steps = 2;
    let run = train(&resumed, &Resume::Latest);
    assert_same(&unbroken, &rows(run.join("model").to_str().unwrap()), "resumed without its origin");

    let dataset = resumed.data.train.open().unwrap().into();
    let again = task(&resumed, &dataset, None).err().unwrap().to_string();
    assert!(again.contains("there is no such folder"), "{again}");
}
