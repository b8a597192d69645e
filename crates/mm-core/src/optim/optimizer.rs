//! The optimizer: parameter groups, clipping and partitioned moments.

use super::adamw::{self, AdamWConfig};
use super::muon::{self, MuonConfig};
use crate::checkpoint::{TensorLayout, Weights};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// The options of one variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamOptions {
    /// Multiplies the learning rate.
    pub lr_multiplier: f64,
    /// Whether weight decay applies, if the variable has two dimensions or more. Class and position
    /// embeddings have none.
    pub has_weight_decay: bool,
    /// How gradients become updates.
    pub rule: UpdateRule,
}

/// How the gradients of a variable become its updates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum UpdateRule {
    /// AdamW.
    #[default]
    AdamW,
    /// Muon, of a matrix or the kernels of a convolution; other variables of such a rule have AdamW.
    Muon(MuonConfig),
}

impl Default for ParamOptions {
    fn default() -> Self {
        Self { lr_multiplier: 1.0, has_weight_decay: true, rule: UpdateRule::AdamW }
    }
}

/// The part of the moments that a process holds (ZeRO, stage 1: Rajbhandari et al. 2020, section 5.1).
/// Complete variables are assigned so that all processes hold about the same size; each process updates its
/// own, and the caller broadcasts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Rank of the process, from 0.
    pub index: usize,
    /// The number of processes that share the moments.
    pub count: usize,
}

impl Partition {
    /// All moments in one process.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// A moment, by its name in checkpoints.
#[derive(Debug)]
pub struct Moment {
    /// `exp_avg.NAME` and `exp_avg_sq.NAME` of AdamW, `momentum_buffer.NAME` of Muon.
    pub name: String,
    /// Rank of the process that holds it.
    pub owner: usize,
    /// Its variable.
    pub variable: Tensor,
    /// The moment, if this process holds it.
    pub value: Option<Tensor>,
}

/// AdamW, or Muon beside it, over a variable store.
#[derive(Debug)]
pub struct Optimizer {
    config: AdamWConfig,
    groups: Vec<ParamGroup>,
    shard: Partition,
    step: i64,
}

#[derive(Debug, Default)]
struct ParamGroup {
    weight_decay: f64,
    lr_multiplier: f64,
    rule: UpdateRule,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    owners: Vec<usize>,
    /// Those of the rule for each parameter; empty if another process holds them.
    moments: Vec<Vec<Tensor>>,
}

impl UpdateRule {
    /// The rule that a variable can have.
    fn of(self, variable: &Tensor) -> Self {
        if muon::is_matrix(variable) { self } else { Self::AdamW }
    }

    /// The names of its moments.
    fn moments(self) -> &'static [&'static str] {
        match self {
            Self::AdamW => &["exp_avg", "exp_avg_sq"],
            Self::Muon(_) => &["momentum_buffer"],
        }
    }
}

impl Optimizer {
    /// Optimizes the variables of `vs` that require a gradient, or the `shard` of them, each with the
    /// `options` of its name.
    pub fn new(
        vs: &VarStore,
        config: AdamWConfig,
        shard: Partition,
        options: impl Fn(&str) -> ParamOptions,
    ) -> Self {
        let variables: BTreeMap<String, Tensor> =
            vs.variables().into_iter().filter(|(_, v)| v.requires_grad()).collect();
        let owners = deal(variables.values().map(Tensor::numel), shard.count);
        let mut groups: Vec<ParamGroup> = Vec::new();
        for ((name, variable), owner) in variables.into_iter().zip(owners) {
            let ParamOptions { lr_multiplier, has_weight_decay, rule } = options(&name);
            let rule = rule.of(&variable);
            let has_weight_decay = has_weight_decay && variable.dim() > 1;
            let weight_decay = if has_weight_decay { config.weight_decay } else { 0.0 };
            let alike = |group: &&mut ParamGroup| {
                (group.weight_decay, group.lr_multiplier, group.rule) == (weight_decay, lr_multiplier, rule)
            };
            let group = match groups.iter_mut().find(alike) {
                Some(group) => group,
                None => {
                    groups.push(ParamGroup { weight_decay, lr_multiplier, rule, ..ParamGroup::default() });
                    groups.last_mut().expect("one was pushed")
                }
            };
            let count = if owner == shard.index { rule.moments().len() } else { 0 };
            group.moments.push((0..count).map(|_| variable.detach().zeros_like()).collect());
            group.owners.push(owner);
            group.names.push(name);
            group.parameters.push(variable);
        }
        Self { config, groups, shard, step: 0 }
    }

    /// Drops all gradients and their memory.
    pub fn zero_grad(&mut self) {
        self.groups.iter_mut().flat_map(|group| &mut group.parameters).for_each(mm_sys::clear_gradient);
    }

    /// The 2-norm of all gradients together, a scalar tensor.
    pub fn gradient_norm(&self) -> Tensor {
        let norms: Vec<Tensor> = self
            .groups
            .iter()
            .flat_map(|group| &group.parameters)
            .map(Tensor::grad)
            .filter(Tensor::defined)
            .map(|gradient| gradient.norm().to_kind(Kind::Float))
            .collect();
        if norms.is_empty() { Tensor::from(0f32) } else { Tensor::stack(&norms, 0).norm() }
    }

    /// Updates the parameters that have a gradient and whose moments this process holds, at learning rate
    /// `lr`. With `max_norm`, gradients are clipped to this norm; `norm` is the result of
    /// [`Optimizer::gradient_norm`].
    ///
    /// # Errors
    /// libtorch refuses the step: a gradient of another type or device than its parameter.
    pub fn step(&mut self, lr: f64, norm: &Tensor, max_norm: Option<f64>) -> Result<()> {
        self.step += 1;
        let divisor = max_norm.map(|max_norm| (norm / max_norm).clamp_min(1.0));
        for group in &self.groups {
            let updated = group.parameters.iter().zip(&group.moments);
            let updated: Vec<_> = updated
                .filter(|(parameter, moments)| !moments.is_empty() && parameter.grad().defined())
                .collect();
            let (weight_decay, lr) = (group.weight_decay, lr * group.lr_multiplier);
            match group.rule {
                UpdateRule::AdamW => {
                    let config = AdamWConfig { weight_decay, ..self.config };
                    adamw::step(&updated, config, self.step, lr, divisor.as_ref())?;
                }
                UpdateRule::Muon(config) => {
                    let updated: Vec<_> =
                        updated.into_iter().map(|(parameter, moments)| (parameter, &moments[0])).collect();
                    muon::step(&updated, config, weight_decay, lr, divisor.as_ref());
                }
            }
        }
        Ok(())
    }

    /// The part of the moments that this process holds.
    pub fn shard(&self) -> Partition {
        self.shard
    }

    /// The variables that a process updates.
    pub fn parameters_of(&self, owner: usize) -> impl Iterator<Item = &Tensor> {
        let all = self.groups.iter().flat_map(|group| group.owners.iter().zip(&group.parameters));
        all.filter(move |(of, _)| **of == owner).map(|(_, parameter)| parameter)
    }

    /// All moments, of all processes, in the same order in every process.
    pub fn moments(&self) -> Vec<Moment> {
        let of_group = |group: &ParamGroup| -> Vec<Moment> {
            let of_variable = |index: usize| {
                let value = move |of: usize| group.moments[index].get(of).map(Tensor::shallow_clone);
                group.rule.moments().iter().enumerate().map(move |(of, kind)| Moment {
                    name: format!("{kind}.{}", group.names[index]),
                    owner: group.owners[index],
                    variable: group.parameters[index].shallow_clone(),
                    value: value(of),
                })
            };
            (0..group.names.len()).flat_map(of_variable).collect()
        };
        self.groups.iter().flat_map(of_group).collect()
    }

    /// Reads this process's part of the moments after `step` steps from the safetensors `file`, which holds
    /// all moments by name, independent of the number of processes.
    ///
    /// # Errors
    /// The file is not readable, or its tensors are not those of this optimizer.
    pub fn load(&mut self, file: &Path, step: u64) -> Result<()> {
        self.step = i64::try_from(step)
            .map_err(|_| Error::checkpoint(file, format!("step {step} is out of range")))?;
        let (own, others): (Vec<Moment>, Vec<Moment>) =
            self.moments().into_iter().partition(|m| m.value.is_some());
        let others: BTreeSet<String> = others.into_iter().map(|moment| moment.name).collect();
        let targets = own.into_iter().filter_map(|moment| Some((moment.name, moment.value?))).collect();
        let mut weights = Weights::open(file)?;
        weights.retain(|name| !others.contains(name));
        weights.fill(targets, &TensorLayout::AS_IS)
    }
}

/// Assigns variables of these sizes to `world` owners: the largest first, each to the owner with the least.
fn deal(sizes: impl Iterator<Item = usize>, world: usize) -> Vec<usize> {
    let sizes: Vec<usize> = sizes.collect();
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&index| std::cmp::Reverse(sizes[index]));
    let (mut held, mut owners) = (vec![0; world], vec![0; sizes.len()]);
    for index in by_size {
        let owner = (0..world).min_by_key(|&owner| held[owner]).unwrap_or(0);
        held[owner] += sizes[index];
        owners[index] = owner;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn};

    const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };

    fn store() -> VarStore {
        let vs = VarStore::new(Device::Cpu);
        let root = vs.root();
        let _ = root.var("fc_weight", &[4, 3], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
        let _ = (&root / "norm").var("weight", &[3], nn::Init::Const(1.0));
        mm_testing::initialize(&vs, 3);
        vs
    }

    /// The textbook update of one parameter, in f64.
    fn expected(parameter: &Tensor, gradients: &[Tensor], lr: f64, decay: f64) -> Tensor {
        let mut p = parameter.to_kind(Kind::Double);
        let (mut m, mut v) = (p.zeros_like(), p.zeros_like());
        for (index, gradient) in gradients.iter().enumerate() {
            let (g, t) = (gradient.to_kind(Kind::Double), index as i32 + 1);
            p = &p * (1.0 - lr * decay);
            m = m * CONFIG.beta1 + &g * (1.0 - CONFIG.beta1);
            v = v * CONFIG.beta2 + g.square() * (1.0 - CONFIG.beta2);
            let m_hat = &m / (1.0 - CONFIG.beta1.powi(t));
            let v_hat = &v / (1.0 - CONFIG.beta2.powi(t));
            p -= m_hat / (v_hat.sqrt() + CONFIG.eps) * lr;
        }
        p
    }

    #[test]
    fn steps_equal_the_textbook_with_decay_on_matrices_only() {
        let vs = store();
        let mut optimizer = Optimizer::new(&vs, CONFIG, Partition::WHOLE, |_| ParamOptions::default());
        let start: BTreeMap<String, Tensor> =
            vs.variables().into_iter().map(|(n, v)| (n, v.detach().copy())).collect();
        let mut seen: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        for step in 0..3 {
            optimizer.zero_grad();
            let loss = vs
                .variables()
                .values()
                .map(|v| (v.square() * (1.0 + step as f64)).sum(Kind::Float))
                .sum::<Tensor>();
            loss.backward();
            let norm = optimizer.gradient_norm();
            let scale = (1.0 / norm.double_value(&[])).min(1.0);
            for (name, v) in vs.variables() {
                seen.entry(name).or_default().push(v.grad() * scale);
            }
            optimizer.step(1e-2, &norm, Some(1.0)).unwrap();
        }
        for (name, v) in vs.variables() {
            let decay = if name == "fc_weight" { CONFIG.weight_decay } else { 0.0 };
            let difference =
                (v.to_kind(Kind::Double) - expected(&start[&name], &seen[&name], 1e-2, decay)).abs().max();
            assert!(difference.double_value(&[]) < 1e-6, "{name} differs by {difference:?}");
        }
    }

    #[test]
    fn weight_decay_applies_to_the_matrices_that_the_options_select() {
        for has_weight_decay in [false, true] {
            let vs = store();
            let start = vs.variables()["fc_weight"].detach().copy();
            let options = ParamOptions { has_weight_decay, ..ParamOptions::default() };
            let mut optimizer = Optimizer::new(&vs, CONFIG, Partition::WHOLE, |_| options);
            vs.variables().values().map(|v| (v * 0.0).sum(Kind::Float)).sum::<Tensor>().backward();
            optimizer.step(1e-2, &optimizer.gradient_norm(), None).unwrap();
            let kept = if has_weight_decay { 1.0 - 1e-2 * CONFIG.weight_decay } else { 1.0 };
            let difference = (&vs.variables()["fc_weight"] - &start * kept).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{has_weight_decay}: {difference}");
            assert_eq!(vs.variables()["norm.weight"], Tensor::ones([3], (Kind::Float, Device::Cpu)));
        }
    }

    #[test]
    fn a_variable_learns_at_its_share_of_the_rate() {
        let vs = store();
        let before: BTreeMap<String, Tensor> =
            vs.variables().into_iter().map(|(n, v)| (n, v.detach().copy())).collect();
        let plain = AdamWConfig { weight_decay: 0.0, ..CONFIG };
        let mut optimizer = Optimizer::new(&vs, plain, Partition::WHOLE, |name| ParamOptions {
            lr_multiplier: if name == "fc_weight" { 0.25 } else { 1.0 },
            ..ParamOptions::default()
        });
        vs.variables().values().map(|v| v.sum(Kind::Float)).sum::<Tensor>().backward();
        optimizer.step(1e-2, &optimizer.gradient_norm(), None).unwrap();
        for (name, moved) in [("fc_weight", 0.25e-2), ("norm.weight", 1e-2)] {
            // The first step of Adam moves by the rate itself, whatever the gradient's size.
            let difference = (&before[name] - &vs.variables()[name] - moved).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{name}: {difference}");
        }
    }

    /// Options with each of the rules.
    fn rules() -> [ParamOptions; 2] {
        [UpdateRule::AdamW, UpdateRule::Muon(MuonConfig::default())]
            .map(|rule| ParamOptions { rule, ..ParamOptions::default() })
    }

    #[test]
    fn muon_is_for_matrices_and_changes_nothing_for_other_variables() {
        let names = |options: ParamOptions| -> Vec<String> {
            let optimizer = Optimizer::new(&store(), CONFIG, Partition::WHOLE, |_| options);
            let mut names: Vec<String> = optimizer.moments().into_iter().map(|moment| moment.name).collect();
            names.sort();
            names
        };
        let [adamw, muon] = rules().map(names);
        let of_norm = ["exp_avg.norm.weight", "exp_avg_sq.norm.weight"];
        assert_eq!(adamw, ["exp_avg.fc_weight", of_norm[0], "exp_avg_sq.fc_weight", of_norm[1]]);
        assert_eq!(muon, [of_norm[0], of_norm[1], "momentum_buffer.fc_weight"]);
    }

    #[test]
    fn saved_moments_come_back_bit_for_bit() {
        for options in rules() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("optimizer.safetensors");
            let vs = store();
            let mut optimizer = Optimizer::new(&vs, CONFIG, Partition::WHOLE, |_| options);
            vs.variables().values().map(|v| v.square().sum(Kind::Float)).sum::<Tensor>().backward();
            optimizer.step(1e-2, &optimizer.gradient_norm(), None).unwrap();
            let whole = |optimizer: &Optimizer| -> Vec<(String, Tensor)> {
                optimizer.moments().into_iter().map(|moment| (moment.name, moment.value.unwrap())).collect()
            };
            crate::checkpoint::write(&file, &whole(&optimizer)).unwrap();
            let mut other = Optimizer::new(&vs, CONFIG, Partition::WHOLE, |_| options);
            other.load(&file, 1).unwrap();
            for ((name, a), (_, b)) in whole(&optimizer).into_iter().zip(whole(&other)) {
                assert!(a.equal(&b), "{name}");
            }
            // A process that holds a part reads its part.
            for rank in 0..2 {
                let mut part = Optimizer::new(&vs, CONFIG, Partition { index: rank, count: 2 }, |_| options);
                part.load(&file, 1).unwrap();
                for (moment, (name, expected)) in part.moments().into_iter().zip(whole(&optimizer)) {
                    assert_eq!(moment.value.is_some(), moment.owner == rank);
                    assert!(moment.value.is_none_or(|value| value.equal(&expected)), "{name}");
                }
            }
        }
    }

    #[test]
    fn shares_hold_about_as_much_and_each_variable_once() {
        let sizes = [100, 7, 50, 50, 30, 30, 30, 3];
        let owners = deal(sizes.into_iter(), 3);
        let held: Vec<usize> =
            (0..3).map(|owner| (0..8).filter(|&i| owners[i] == owner).map(|i| sizes[i]).sum()).collect();
        assert!(held.iter().all(|held| (90..=110).contains(held)), "{held:?}");
        assert_eq!(deal(sizes.into_iter(), 1), [0; 8]);
    }

    #[test]
    fn shares_together_step_as_the_whole_does() {
        for options in rules() {
            let step = |shard: Partition| {
                let vs = store();
                let mut optimizer = Optimizer::new(&vs, CONFIG, shard, |_| options);
                vs.variables().values().map(|v| v.square().sum(Kind::Float)).sum::<Tensor>().backward();
                optimizer.step(1e-2, &optimizer.gradient_norm(), Some(0.5)).unwrap();
                let owner = |moment: Moment| {
                    let (_, variable) = moment.name.split_once('.').unwrap();
                    (variable.to_owned(), moment.owner)
                };
                let owners: BTreeMap<String, usize> = optimizer.moments().into_iter().map(owner).collect();
                (vs.variables(), owners)
            };
            let (whole, _) = step(Partition::WHOLE);
            let parts = [0, 1].map(|rank| step(Partition { index: rank, count: 2 }));
            for (name, expected) in whole {
                let owner = parts[0].1[&name];
                assert!(parts[owner].0[&name].equal(&expected), "{name}");
                assert!(
                    !parts[1 - owner].0[&name].equal(&expected),
                    "{name} was updated by a process that does not own it"
                );
            }
        }
    }
}
