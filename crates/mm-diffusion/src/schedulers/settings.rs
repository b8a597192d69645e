//! The settings of all classes as one typed struct.

use super::SchedulerKind;
use super::defaults::defaults;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The model's output, where a sample is alpha x0 + sigma noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// The noise-free sample x0.
    Sample,
    /// The velocity alpha noise - sigma x0 (Salimans and Ho 2022).
    VPrediction,
    /// The flow noise - x0, with alpha = 1 - sigma.
    FlowPrediction,
}

impl PredictionType {
    /// The word in `scheduler_config.json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Sample => "sample",
            Self::VPrediction => "v_prediction",
            Self::FlowPrediction => "flow_prediction",
        }
    }

    /// The predictions that a class can use. FlowMatchEuler has no such setting.
    fn of(kind: SchedulerKind) -> &'static [Self] {
        match kind {
            SchedulerKind::Pndm | SchedulerKind::EulerAncestral => &[Self::Epsilon, Self::VPrediction],
            SchedulerKind::DpmMultistep | SchedulerKind::UniPc => {
                &[Self::Epsilon, Self::Sample, Self::VPrediction, Self::FlowPrediction]
            }
            _ => &[Self::Epsilon, Self::Sample, Self::VPrediction],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BetaSchedule {
    #[default]
    Linear,
    ScaledLinear,
    SquaredcosCapV2,
    Sigmoid,
    Laplace,
    Exp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimestepSpacing {
    #[default]
    Leading,
    Trailing,
    Linspace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VarianceType {
    FixedSmall,
    FixedSmallLog,
    FixedLarge,
    FixedLargeLog,
    Learned,
    LearnedRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinalSigmas {
    #[default]
    Zero,
    SigmaMin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Interpolation {
    #[default]
    Linear,
    LogLinear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimestepType {
    #[default]
    Discrete,
    Continuous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) enum Algorithm {
    #[default]
    #[serde(rename = "dpmsolver++", alias = "deis")]
    DpmSolverPlusPlus,
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
}

/// The names of two classes: DPM-Solver reads all but `heun` as `midpoint`, UniPC all but `bh1` as `bh2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SolverType {
    #[default]
    Midpoint,
    Heun,
    Logrho,
    Bh1,
    Bh2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimeShift {
    #[default]
    Exponential,
    Linear,
}

/// The settings of all classes. A class uses those that [`defaults`] lists for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    // The noise schedule.
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    pub trained_betas: Option<Vec<f64>>,
    pub rescale_betas_zero_snr: bool,
    pub set_alpha_to_one: bool,
    // The model's output.
    pub prediction_type: PredictionType,
    pub clip_sample: bool,
    pub clip_sample_range: f64,
    pub thresholding: bool,
    pub dynamic_thresholding_ratio: f64,
    pub sample_max_value: f64,
    // Timesteps and noise levels.
    pub timestep_spacing: TimestepSpacing,
    pub steps_offset: i64,
    pub timestep_type: TimestepType,
    pub interpolation_type: Interpolation,
    pub use_karras_sigmas: bool,
    pub use_exponential_sigmas: bool,
    pub use_beta_sigmas: bool,
    pub use_lu_lambdas: bool,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas_type: FinalSigmas,
    pub lambda_min_clipped: Option<f64>,
    // Flows.
    pub use_flow_sigmas: bool,
    pub flow_shift: f64,
    pub shift: f64,
    pub shift_terminal: Option<f64>,
    pub use_dynamic_shifting: bool,
    pub time_shift_type: TimeShift,
    pub base_shift: f64,
    pub max_shift: f64,
    pub base_image_seq_len: f64,
    pub max_image_seq_len: f64,
    pub invert_sigmas: bool,
    pub stochastic_sampling: bool,
    // Solvers.
    pub variance_type: Option<VarianceType>,
    pub skip_prk_steps: bool,
    pub solver_order: usize,
    pub algorithm_type: Algorithm,
    pub solver_type: SolverType,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub predict_x0: bool,
    pub disable_corrector: Vec<usize>,
    pub solver_p: Option<Value>,
    pub original_inference_steps: usize,
    pub timestep_scaling: f64,
}

impl Settings {
    /// The settings of `kind` in a file's `values`, with the class's defaults.
    pub fn read(kind: SchedulerKind, values: &Map<String, Value>) -> Result<Self> {
        let effective = effective(kind, values);
        let settings = Self::deserialize(&effective).map_err(|error| {
            // Each key has a default, so the wrong one is found by reading each alone.
            let wrong = effective.iter().find_map(|(key, value)| {
                let alone = Map::from_iter([(key.clone(), value.clone())]);
                Some((key, Self::deserialize(&alone).err()?))
            });
            Error::Scheduler(match wrong {
                Some((key, error)) => format!("{kind}: {key}: {error}"),
                None => format!("{kind}: {error}"),
            })
        })?;
        settings.check(kind)?;
        Ok(settings)
    }

    fn check(&self, kind: SchedulerKind) -> Result<()> {
        let refuse = |problem: String| Err(Error::Scheduler(format!("{kind}: {problem}")));
        let timesteps = self.num_train_timesteps;
        if !(1..=1_000_000).contains(&timesteps) {
            return refuse(format!("num_train_timesteps is {timesteps}: use 1 to 1000000"));
        }
        if self.steps_offset.unsigned_abs() > timesteps as u64 {
            return refuse(format!(
                "steps_offset is {} for {timesteps} training timesteps: use 0 or 1",
                self.steps_offset
            ));
        }
        if !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            let ratio = self.dynamic_thresholding_ratio;
            return refuse(format!("dynamic_thresholding_ratio is {ratio}: use 0 to 1"));
        }
        let sizes = [
            ("clip_sample_range", self.clip_sample_range),
            ("sample_max_value", self.sample_max_value),
            ("timestep_scaling", self.timestep_scaling),
        ];
        // Larger numbers do not fit into f32.
        if let Some((key, size)) = sizes.iter().find(|(_, size)| !(0.0..1e30).contains(size)) {
            return refuse(format!("{key} is {size}: use a number from 0 to below 1e30"));
        }
        let allowed = PredictionType::of(kind);
        if !allowed.contains(&self.prediction_type) {
            let (found, allowed) = (self.prediction_type.word(), allowed.iter().map(|p| p.word()));
            let allowed = allowed.collect::<Vec<_>>().join(", ");
            return refuse(format!("prediction_type is {found}: this class knows {allowed}"));
        }
        let sigmas = [self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas];
        if sigmas.iter().filter(|&&used| used).count() > 1 {
            return refuse(
                "use only one of use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas".into(),
            );
        }
        if self.use_beta_sigmas {
            return refuse(
                "use_beta_sigmas is not supported: use_karras_sigmas and use_exponential_sigmas are".into(),
            );
        }
        Ok(())
    }
}

/// The settings that `kind` uses: those of the file, else the class's defaults. A null takes the default.
pub(super) fn effective(kind: SchedulerKind, values: &Map<String, Value>) -> Map<String, Value> {
    let mut effective = defaults(kind);
    for (key, setting) in &mut effective {
        if let Some(value) = values.get(key).filter(|value| !value.is_null()) {
            *setting = value.clone();
        }
    }
    effective
}
