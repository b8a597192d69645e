//! The precision of a run.

use crate::{Result, Resume, RunConfig, TrainConfig};
use mm_core::{Precision, PrecisionConfig, PrecisionProbe};
use mm_dist::ProcessGroup;
use tch::nn::VarStore;

/// The precision of a run: `train.precision`, or for `"auto"` the faster of f32 and bf16 at the shapes of the
/// variables of `vs`, measured on rank 0. A resumed run keeps the precision in its `config.toml`, because
/// another one gives other numbers. Warns if bf16 is chosen and slower than f32.
///
/// # Errors
/// Another process is lost.
pub fn resolve_precision(
    run: &RunConfig,
    train: &TrainConfig,
    resume: &Resume,
    vs: &VarStore,
    group: &ProcessGroup,
) -> Result<Precision> {
    let written = if *resume == Resume::No { None } else { written_precision(run) };
    let own = match (train.precision.fixed(), written) {
        (Some(Precision::Bf16), _) if group.is_main() => {
            PrecisionProbe::training(vs).iter().for_each(PrecisionProbe::warn_if_bf16_is_slower);
            Precision::Bf16
        }
        (Some(fixed), _) | (None, Some(fixed)) => fixed,
        (None, None) if group.is_main() => measured(vs),
        (None, None) => Precision::F32,
    };
    let decided = group.broadcast_bytes(&serde_json::to_vec(&own).expect("a unit variant is JSON"))?;
    Ok(serde_json::from_slice(&decided).expect("precisions are sent as JSON"))
}

fn measured(vs: &VarStore) -> Precision {
    let Some(probe) = PrecisionProbe::training(vs) else { return Precision::F32 };
    let precision = probe.faster();
    let name = if precision == Precision::Bf16 { "bf16" } else { "f32" };
    let PrecisionProbe { f32, bf16 } = probe;
    tracing::info!("precision auto is {name}: measured {f32:.0} GFLOP/s in f32, {bf16:.0} in bf16");
    precision
}

/// The precision in the run's `config.toml`, if there is one.
fn written_precision(run: &RunConfig) -> Option<Precision> {
    let precision: PrecisionConfig = run.written("train", "precision")?.try_into().ok()?;
    precision.fixed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::nn::parameter;
    use tch::Device;
    use tch::nn::Init;

    #[test]
    fn auto_is_measured_once_and_kept_by_a_resumed_run() {
        let out = tempfile::tempdir().unwrap();
        let vs = VarStore::new(Device::Cpu);
        let _ = parameter(&(vs.root() / "fc1"), "weight", &[48, 32], Init::Const(0.0));
        let run = RunConfig {
            task: "t".into(),
            name: "a".into(),
            seed: 0,
            out: out.path().to_owned(),
            device: Default::default(),
            timeout_seconds: 60.0,
        };
        let train = |precision: &str| -> TrainConfig {
            toml::from_str(&format!("steps = 1\nbatch_size = 1\nlr = 1.0\nprecision = \"{precision}\"\n"))
                .unwrap()
        };
        let resolve = |precision: &str, resume| {
            resolve_precision(&run, &train(precision), &resume, &vs, &ProcessGroup::alone()).unwrap()
        };
        assert!(matches!(resolve("auto", Resume::No), Precision::F32 | Precision::Bf16));
        std::fs::create_dir(out.path().join("a")).unwrap();
        for (written, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            std::fs::write(out.path().join("a/config.toml"), format!("[train]\nprecision = \"{written}\"\n"))
                .unwrap();
            assert_eq!(resolve("auto", Resume::Latest), precision);
        }
        assert_eq!(resolve("f32", Resume::Latest), Precision::F32, "an explicit precision wins");
    }
}
