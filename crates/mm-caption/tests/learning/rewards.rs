//! Captioners learn from references, and then more from rewards.

use crate::{NEW, TAUGHT, from_taught, train};
use mm_caption::CaptionPipeline;
use mm_core::OpenOptions;
use mm_train::Evaluation;

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.metric(name).unwrap()
}

#[test]
fn a_captioner_learns_scenes_and_rewards_raise_cider_d_on_scenes_it_has_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, untrained) = train(folder, "untrained", NEW, "steps = 1\nlr = 1e-9\nwarmup = 0", "");
    let (_, _, taught) = &*TAUGHT;
    assert!(value(&untrained, "faithful") < 0.1, "{untrained:?}");
    assert!(value(taught, "faithful") > 0.5, "{taught:?}");

    // Taught with captions of any detail it says little; rewards ask for the whole description.
    let scst = "\n[scst]\nsamples = 5\nmax_new_tokens = 10\n";
    let (_, rewarded) = train(folder, "rewarded", &from_taught(), "steps = 80\nlr = 5e-4\nwarmup = 10", scst);
    let [before, after] = [taught, &rewarded].map(|evaluation| value(evaluation, "cider_d"));
    assert!(after > before + 0.3, "{before} {after}");
}

#[test]
fn proximal_policy_optimization_raises_cider_d_on_scenes_it_has_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let ppo = "\n[ppo]\nsamples = 5\nmax_new_tokens = 10\nepochs = 2\nminibatches = 2\ncider_d = 10.0\n";
    let steps = "steps = 240\nlr = 5e-4\nwarmup = 10\nema = 0.9";
    let (_, rewarded) = train(folder.path(), "rewarded", &from_taught(), steps, ppo);
    let [before, after] = [&TAUGHT.2, &rewarded].map(|evaluation| value(evaluation, "cider_d"));
    assert!(after > before + 0.3, "{before} {after}");
    // The checkpoint has a value head, which is no part of the captioner.
    let checkpoint = folder.path().join("rewarded/checkpoints/latest");
    CaptionPipeline::open(checkpoint.to_str().unwrap(), &OpenOptions::default()).unwrap();
}
