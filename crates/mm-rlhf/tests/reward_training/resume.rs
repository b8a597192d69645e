//! A resumed run equals the unbroken one.

use super::{aesthetic, clip, config, preferences, run};
use mm_train::{Event, Outcome, Resume};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_resumed_run_equals_the_unbroken_run_bit_for_bit() {
    let sets = [preferences(1, 50), preferences(2, 10)];
    let lora = "[lora]\nrank = 4\ntargets = ['all-linear']";
    for (model, more, file) in [
        (aesthetic("ensemble = 2\nhidden = [8]"), "", "model/head.safetensors"),
        (clip("trains = 'head'"), "", "model/model.safetensors"),
        (clip(""), lora, "model/adapter/adapter_model.safetensors"),
    ] {
        let keys = format!("steps = 8\nlr = 1e-2\nema = 0.9\n{more}");
        let [straight, broken] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let config = |out: &Path| config(out, &model, "preferences", &keys);
        let sets = [&sets[0], &sets[1]];
        let never = AtomicBool::new(false);
        run(&config(straight.path()), &Resume::No, sets, &never, &mut |_| {}).unwrap();

        let interrupt = AtomicBool::new(false);
        let mut steps = 0;
        let mut stop = |event: Event| {
            steps += usize::from(matches!(event, Event::Step(_)));
            interrupt.store(steps >= 3, Ordering::Relaxed);
        };
        let first = run(&config(broken.path()), &Resume::No, sets, &interrupt, &mut stop).unwrap();
        assert!(matches!(first, Outcome::Interrupted(_)), "{first:?}");
        run(&config(broken.path()), &Resume::Latest, sets, &never, &mut |_| {}).unwrap();

        for file in [file, "checkpoints/latest/optimizer.safetensors", "checkpoints/latest/ema.safetensors"] {
            let read = |out: &Path| std::fs::read(out.join("r").join(file)).unwrap();
            assert!(read(straight.path()) == read(broken.path()), "{model}{keys}: {file} differs");
        }
    }
}
