//! Training: packed rows equal rows of their own, frozen parts stay, and a new model learns.

use crate::golden;
use mm_core::Precision;
use mm_core::config::ConfigFile;
use mm_data::{Dataset, SampleRng};
use mm_dist::ProcessGroup;
use mm_train::{
    EvalSet, Evaluation, Event, NoProgress, Outcome, Resume, Run, RunFolder, Task, TaskConfig, TaskContext,
    Trainer, TrainingData, read_config,
};
use mm_vqa::vlm::{VlmItem, VlmRunConfig, VlmTask};
use rand::SeedableRng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

/// A run in `folder` of a model `from` a golden.
fn config(folder: &Path, from: &str, keys: &str, input: &str) -> VlmRunConfig {
    let text = format!(
        r#"
        [run]
        task = "vlm"
        name = "small"
        out = {folder:?}
        [model]
        from = {:?}
        {keys}
        [input]
        {input}
        [data]
        train = {{ kind = "chat", path = {:?}, images_root = {:?} }}
        [train]
        steps = 1
        batch_size = 4
        lr = 1e-3
        "#,
        golden(from),
        folder.join("chat.jsonl"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos"),
    );
    read_config::<VlmTask>(&mut ConfigFile::from_text("small.toml", &text, &[]).unwrap())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Conversations with no, one and two images, of one and two turns.
fn write_chats(folder: &Path) {
    let turn = |from: &str, value: &str| serde_json::json!({ "from": from, "value": value });
    let chats = [
        (vec!["cell.png"], vec![turn("human", "<image>\nred?"), turn("gpt", "no")]),
        (
            vec!["chelsea.png", "gravel.png"],
            vec![
                turn("human", "<image>\nor\n<image>\n?"),
                turn("gpt", "the one"),
                turn("human", "the red one?"),
                turn("gpt", "in there is one"),
            ],
        ),
        (vec![], vec![turn("human", "there is no image here"), turn("gpt", "is there?")]),
        (vec!["gravel.png"], vec![turn("human", "what is this?<image>"), turn("gpt", "the red one")]),
    ];
    let line = |(images, turns): (Vec<&str>, Vec<serde_json::Value>)| {
        serde_json::json!({ "images": images, "conversations": turns }).to_string()
    };
    std::fs::write(folder.join("chat.jsonl"), chats.map(line).join("\n")).unwrap();
}

/// The task of a run, with its items.
fn task(config: &VlmRunConfig) -> (VlmTask, Vec<VlmItem>) {
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let group = ProcessGroup::alone();
    let task = VlmTask::new(config, &TaskContext::new(Device::Cpu, &group, &dataset)).unwrap();
    let map = task.preprocess();
    let item = |index: usize| {
        let mut rng = SampleRng::seed_from_u64(index as u64);
        map(&dataset.sample(index).unwrap(), &mut rng).unwrap_or_else(|error| panic!("{error}"))
    };
    let items = (0..dataset.len()).map(item).collect();
    (task, items)
}

/// The loss of all items in one batch, its accuracy, and the gradients by name.
fn step(task: &VlmTask, items: Vec<VlmItem>) -> ([f64; 2], BTreeMap<String, Tensor>) {
    let loss = task.loss(&task.collate(items).unwrap()).unwrap();
    loss.total.backward();
    let accuracy = loss.parts.iter().find(|(name, _)| *name == "token_accuracy").unwrap();
    let gradients = task.variables().variables().into_iter();
    let gradients = gradients.filter(|(_, variable)| variable.grad().defined());
    (
        [loss.total.double_value(&[]), accuracy.1.double_value(&[])],
        gradients.map(|(name, variable)| (name, variable.grad().copy())).collect(),
    )
}

#[test]
fn packed_conversations_have_the_losses_and_gradients_of_rows_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    write_chats(folder.path());
    for from in ["smolvlm", "llava", "llava-interleave"] {
        let (own, items) = task(&config(folder.path(), from, "", "max_tokens = 200"));
        let rows = own.collate(items).unwrap();
        let (packed, items) = task(&config(folder.path(), from, "", "max_tokens = 200\npacking = true"));
        let fewer = packed.collate(items).unwrap();
        assert_ne!(own.describe_batch(&rows), packed.describe_batch(&fewer), "{from}: nothing is packed");
        let items = |config: &VlmRunConfig| task(config).1;
        let plain = config(folder.path(), from, "", "max_tokens = 200");
        let (expected, gradients) = step(&own, items(&plain));
        let (found, of_packed) = step(&packed, items(&plain));
        for (a, b) in expected.iter().zip(found) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{from}: {expected:?} {found:?}");
        }
        assert_eq!(gradients.len(), of_packed.len());
        for (name, expected) in gradients {
            let scale = expected.abs().max().double_value(&[]);
            let difference = (&of_packed[&name] - expected).abs().max().double_value(&[]);
            assert!(difference <= 1e-4 * scale + 1e-6, "{from}: {name}: {difference} of {scale}");
        }
    }
}

#[test]
fn a_longer_conversation_than_the_limit_is_a_bad_sample() {
    let folder = tempfile::tempdir().unwrap();
    write_chats(folder.path());
    let config = config(folder.path(), "smolvlm", "", "max_tokens = 40");
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let group = ProcessGroup::alone();
    let task = VlmTask::new(&config, &TaskContext::new(Device::Cpu, &group, &dataset)).unwrap();
    let mut rng = SampleRng::seed_from_u64(0);
    let error = task.preprocess()(&dataset.sample(1).unwrap(), &mut rng).err().unwrap().to_string();
    assert!(error.contains("more than the 40 of input.max_tokens"), "{error}");
}

#[test]
fn frozen_parts_have_no_gradient_and_a_batch_without_images_trains_too() {
    let folder = tempfile::tempdir().unwrap();
    write_chats(folder.path());
    for (train, trained, root) in
        [("connector", 1, "model.connector"), ("text", 15, "model.vision_model"), ("all", 0, "")]
    {
        let keys = format!("train = {train:?}");
        let (task, items) = task(&config(folder.path(), "smolvlm", &keys, "max_tokens = 200"));
        let names: Vec<String> = task.variables().variables().into_keys().collect();
        let below = names.iter().filter(|name| name.starts_with(root)).count();
        match train {
            "connector" => assert_eq!((names.len(), below), (trained, trained)),
            "text" => assert!(below == 0 && names.len() > trained && task.frozen().is_some()),
            _ => assert!(task.frozen().is_none()),
        }
        // The third conversation has no image.
        let without = items.into_iter().nth(2).into_iter().collect();
        let (loss, gradients) = step(&task, without);
        assert!(loss[0].is_finite());
        let connector = &gradients["model.connector.modality_projection.proj.weight"];
        assert_eq!(connector.abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}

/// A model that learns in seconds to say what it sees.
const TOY: &str = r#"
[run]
task = "vlm"
name = "toy"
seed = 3

[model.image]
variant = "siglip"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
image_size = 32
patch_size = 8
layer_norm_eps = 1e-6

[model.text]
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 96
tie_word_embeddings = true

[tokenizer]
vocab_size = 400

[input]
content = "captions"
max_tokens = 64
packing = true

[data]
train = { kind = "shapes", samples = 4000, objects = [1, 1], size = 32 }
eval.unseen = { kind = "shapes", samples = 48, seed = 1, objects = [1, 1], size = 32 }

[train]
steps = 120
batch_size = 32
optimizer = "muon"
lr = 4e-3
warmup = 10
clip_grad = 1.0
checkpoint_every = 0
log_every = 1

[generate]
max_new_tokens = 16
"#;

#[test]
fn a_new_model_learns_to_describe_what_it_sees() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = format!("run.out={}", folder.path().display());
    let config =
        read_config::<VlmTask>(&mut ConfigFile::from_text("toy.toml", TOY, &[out]).unwrap()).unwrap();
    let (group, mut losses) = (ProcessGroup::alone(), Vec::new());
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let task = VlmTask::new(&config, &TaskContext::new(Device::Cpu, &group, &dataset)).unwrap();
    let set = EvalSet::open("unseen", &config.data.eval["unseen"], [255; 3], 0).unwrap();
    let run_folder = RunFolder::open(&config.run, &Resume::No, "", &group).unwrap();
    let place = Run { folder: &run_folder, group: &group, precision: Precision::F32 };
    let data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    let trainer = Trainer::new(task, data, vec![set], &config, place).unwrap();
    let mut watch = |event: Event| {
        if let Event::Step(report) = event {
            losses.push(report.loss);
        }
    };
    let outcome = trainer.train(&AtomicBool::new(false), &NoProgress, &mut watch).unwrap();
    let Outcome::Finished(mut trained) = outcome else { panic!("the run did not finish") };
    let evaluation: Evaluation = trained.remove(0);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[110..]) < 0.3 * mean(&losses[..5]), "{losses:?}");
    let metric = |name: &str| evaluation.metric(name).unwrap();
    assert!(metric("loss") < 0.3 * losses[0] && metric("finished") > 0.8, "{:?}", evaluation.metrics);
    assert_eq!((evaluation.samples, evaluation.sections.len()), (48, 1));
    assert_eq!(evaluation.sections[0].rows.len(), 12);
}
