//! A tiny CLIP learns, in seconds, what an untrained one cannot know.

use mm_clip::{
    ClipPipeline, ClipRunConfig, ClipTask, Embedded, EvalReport, EvalSet, OpenOptions, Templates, relevance,
    write_report,
};
use mm_core::Precision;
use mm_core::config::ConfigFile;
use mm_dist::ProcessGroup;
use mm_train::{Outcome, Resume, Run, RunFolder, Task};
use std::sync::atomic::AtomicBool;
use tch::Device;

const CONFIG: &str = r#"
[run]
name = "tiny"
seed = 3

[model]
kind = "clip"
embed_dim = 64
image = { kind = "vit", image_size = 48, patch_size = 16, hidden_size = 64, intermediate_size = 256, num_hidden_layers = 2, num_attention_heads = 2 }
text = { kind = "clip", hidden_size = 64, intermediate_size = 256, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 24 }

[tokenizer]
vocab_size = 8192

[data]
train = { kind = "emoji", split = "train" }
eval.held_out = { kind = "emoji", split = "held_out" }
canonical_share = 1.0
augment = { scale = [0.9, 1.0] }

[train]
steps = 250
batch_size = 64
lr = 2e-3
warmup = 20
ema = 0.98
checkpoint_every = 0
"#;

#[test]
fn a_tiny_clip_learns_to_find_images_it_has_never_seen() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        ConfigFile::from_text("tiny.toml", CONFIG, &[format!("run.out={}", folder.path().display())])
            .unwrap();
    let config = ClipRunConfig::from_source(&source).unwrap();
    let mut task = ClipTask::new(&config, Device::Cpu, &ProcessGroup::alone()).unwrap();
    let value = |metrics: &[mm_train::Metric], name: &str| {
        metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value).unwrap()
    };
    let untrained = task.evaluate().unwrap();
    assert!(value(&untrained, "held_out/text_to_image_r@10") < 0.10, "{untrained:?}");

    let run = RunFolder::open(&config.run, &Resume::No, CONFIG, &ProcessGroup::alone()).unwrap();
    let place =
        Run { config: &config.run, folder: &run, group: &ProcessGroup::alone(), precision: Precision::F32 };
    let outcome =
        mm_train::train(&mut task, place, &config.train, 0, &AtomicBool::new(false), &mut |_| {}).unwrap();
    let Outcome::Finished(trained) = outcome else { panic!("{outcome:?}") };
    assert!(value(&trained, "held_out/text_to_image_r@10") > 0.30, "{trained:?}");
    assert!(value(&trained, "held_out/image_to_text_r@10") > 0.30, "{trained:?}");

    // What was saved is what was measured, and it can be looked at.
    let bundle =
        ClipPipeline::open(run.path.join("model").to_str().unwrap(), &OpenOptions::default()).unwrap();
    let set = EvalSet::open("held_out", &config.data.eval["held_out"], [255; 3], 0).unwrap();
    let embedded =
        Embedded::embed_set(&bundle.image, Some(&bundle.text), &set, 64, &ProcessGroup::alone(), &mut |_| {})
            .unwrap();
    let evaluation = EvalReport::evaluate("held_out", &bundle, &embedded, &Templates::default(), 64).unwrap();
    for (name, measured) in evaluation.metrics() {
        assert!((measured - value(&trained, &name)).abs() < 1e-9, "{name}: {measured}");
    }
    let map =
        relevance(&bundle, &set.image(0).unwrap(), embedded.samples[0].caption.as_ref().unwrap()).unwrap();
    assert_eq!((map.columns, map.values.len()), (3, 9));
    assert!(
        map.values.iter().all(|value| (0.0..=1.0).contains(value)) && map.values.contains(&1.0),
        "{map:?}"
    );

    let metrics = std::fs::read_to_string(run.path.join("metrics.jsonl")).unwrap();
    let page = folder.path().join("report.html");
    let report = mm_clip::Report {
        title: "tiny",
        metrics: &metrics,
        evaluation: &evaluation,
        set: &set,
        embedded: &embedded,
        credit: mm_data::emoji::CREDIT,
    };
    write_report(&report, &bundle, &page).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<img").count(), 20 * 5 + 6 * 2);
    assert!(html.contains("CC-BY 4.0") && html.contains("<polyline"));
}
