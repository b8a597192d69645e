//! A tiny CLIP learns, in seconds, what an untrained one cannot know.

use mm_clip::{ClipPipeline, ClipTask, Embedded, relevance};
use mm_core::config::ConfigFile;
use mm_core::{OpenOptions, Precision};
use mm_data::Dataset;
use mm_dist::ProcessGroup;
use mm_train::{
    EvalContext, EvalSet, Evaluation, NoProgress, Outcome, Resume, Run, RunFolder, Task, TaskConfig,
    TaskContext, Trainer, TrainingData, read_config, write_page,
};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Device;

const CONFIG: &str = r#"
[run]
task = "clip"
name = "tiny"
seed = 3

[model]
embed_dim = 64
image.kind = "vit"
image.image_size = 48
image.patch_size = 16
image.hidden_size = 64
image.intermediate_size = 256
image.num_hidden_layers = 2
image.num_attention_heads = 2
text.kind = "clip"
text.hidden_size = 64
text.intermediate_size = 256
text.num_hidden_layers = 1
text.num_attention_heads = 2
text.max_position_embeddings = 24

[tokenizer]
vocab_size = 8192

[input]
canonical_share = 1.0
augment = { scale = [0.9, 1.0] }

[data]
train = { kind = "emoji", split = "train" }
eval.held_out = { kind = "emoji", split = "held_out" }

[train]
steps = 250
batch_size = 64
lr = 2e-3
warmup = 20
ema = 0.98
checkpoint_every = 0
"#;

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.metric(name).unwrap_or_else(|| panic!("{evaluation:?}"))
}

#[test]
fn a_tiny_clip_learns_to_find_images_it_has_never_seen() {
    let folder = tempfile::tempdir().unwrap();
    let out = format!("run.out={}", folder.path().display());
    let config = read_config::<ClipTask>(&mut ConfigFile::from_text("tiny.toml", CONFIG, &[out]).unwrap());
    let config = config.unwrap();
    let group = ProcessGroup::alone();
    let dataset: Arc<dyn Dataset> = Arc::from(config.data.train.open().unwrap());
    let context = TaskContext::new(Device::Cpu, &group, &dataset);
    let task = ClipTask::new(&config, &context).unwrap();
    let set = EvalSet::open("held_out", &config.data.eval["held_out"], [255; 3], 0).unwrap();
    let context = EvalContext { group: &group, batch_size: 64, wants_sections: false, progress: &NoProgress };
    let untrained = ClipTask::evaluate(task.model(), &config, &set, &context).unwrap();
    assert!(value(&untrained, "text_to_image_r@10") < 0.10, "{untrained:?}");

    let run = RunFolder::open(&config.run, &Resume::No, CONFIG, &group).unwrap();
    let place = Run { folder: &run, group: &group, precision: Precision::F32 };
    let data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
    let trainer = Trainer::new(task, data, vec![set.clone()], &config, place).unwrap();
    let outcome = trainer.train(&AtomicBool::new(false), &NoProgress, &mut |_| {}).unwrap();
    let Outcome::Finished(trained) = outcome else { panic!("{outcome:?}") };
    assert!(value(&trained[0], "text_to_image_r@10") > 0.30, "{trained:?}");
    assert!(value(&trained[0], "image_to_text_r@10") > 0.30, "{trained:?}");

    // What was saved is what was measured, and it can be looked at.
    let model = run.path.join("model");
    let pipeline = ClipPipeline::open(model.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let context = EvalContext { wants_sections: true, ..context };
    let evaluation = ClipTask::evaluate(&pipeline, &config, &set, &context).unwrap();
    for (name, measured) in evaluation.metrics.iter().map(|metric| (&metric.name, metric.value)) {
        assert!((measured - value(&trained[0], name)).abs() < 1e-9, "{name}: {measured}");
    }
    let embedded = Embedded::embed_set(&pipeline.image, Some(&pipeline.text), &set, &context).unwrap();
    let image = set.sample(0).unwrap().image().unwrap().decode([255; 3]).unwrap();
    let map = relevance(&pipeline, &image, embedded.samples[0].caption.as_ref().unwrap()).unwrap();
    assert_eq!((map.columns, map.values.len()), (3, 9));
    assert!(
        map.values.iter().all(|value| (0.0..=1.0).contains(value)) && map.values.contains(&1.0),
        "{map:?}"
    );

    let metrics = std::fs::read_to_string(run.path.join("metrics.jsonl")).unwrap();
    let page = folder.path().join("report.html");
    write_page("tiny", &metrics, &[evaluation], &page).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<img").count(), 20 * 5 + 6 * 2);
    assert!(html.contains("CC-BY 4.0") && html.contains("<polyline"));
}
