use crate::checkpoint;
use crate::{Error, Result};
use mm_sys::AdamWStep;
use std::collections::BTreeMap;
use std::path::Path;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// AdamW's numbers.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices; biases, norms, scales and class and position embeddings have none.
    pub weight_decay: f64,
}

/// AdamW (Loshchilov & Hutter 2019) over a variable store, fused: one pass over parameters, moments and gradients a step.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    groups: Vec<Group>,
    step: i64,
}

#[derive(Debug, Default)]
struct Group {
    weight_decay: f64,
    lr_scale: f64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first_moments: Vec<Tensor>,
    second_moments: Vec<Tensor>,
}

impl AdamW {
    /// Optimises every variable of `vs` that requires a gradient; `lr_scale` gives the share of the learning rate for each name.
    pub fn new(vs: &VarStore, config: AdamWConfig, lr_scale: impl Fn(&str) -> f64) -> Self {
        let variables: BTreeMap<String, Tensor> =
            vs.variables().into_iter().filter(|(_, v)| v.requires_grad()).collect();
        let mut groups: Vec<Group> = Vec::new();
        for (name, variable) in variables {
            let weight_decay = if decays(&name, &variable) { config.weight_decay } else { 0.0 };
            let lr_scale = lr_scale(&name);
            let alike = |group: &&mut Group| group.weight_decay == weight_decay && group.lr_scale == lr_scale;
            let group = match groups.iter_mut().find(alike) {
                Some(group) => group,
                None => {
                    groups.push(Group { weight_decay, lr_scale, ..Group::default() });
                    groups.last_mut().expect("one was pushed")
                }
            };
            group.first_moments.push(variable.detach().zeros_like());
            group.second_moments.push(variable.detach().zeros_like());
            group.names.push(name);
            group.parameters.push(variable);
        }
        Self { config, groups, step: 0 }
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
        match norms.is_empty() {
            true => Tensor::from(0f32),
            false => Tensor::stack(&norms, 0).norm(),
        }
    }

    /// Updates the parameters that have a gradient, at learning rate `lr`. With `max_norm`, gradients are scaled so that their
    /// norm, as [`AdamW::gradient_norm`] gave it in `norm`, is at most that.
    ///
    /// # Errors
    /// libtorch refuses the step: a gradient of another type or device than its parameter.
    pub fn step(&mut self, lr: f64, norm: &Tensor, max_norm: Option<f64>) -> Result<()> {
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        let divisor = max_norm.map(|max_norm| (norm / max_norm).clamp_min(1.0));
        for group in &self.groups {
            let with_gradient: Vec<(usize, Tensor)> = group
                .parameters
                .iter()
                .map(Tensor::grad)
                .enumerate()
                .filter(|(_, gradient)| gradient.defined())
                .collect();
            let pick = |tensors: &[Tensor]| -> Vec<Tensor> {
                with_gradient.iter().map(|&(index, _)| tensors[index].shallow_clone()).collect()
            };
            let (parameters, first, second) =
                (pick(&group.parameters), pick(&group.first_moments), pick(&group.second_moments));
            let gradients: Vec<Tensor> = with_gradient.into_iter().map(|(_, gradient)| gradient).collect();
            let (weight_decay, lr) = (group.weight_decay, lr * group.lr_scale);
            let step = AdamWStep { step: self.step, lr, beta1, beta2, weight_decay, eps };
            mm_sys::fused_adamw(&parameters, &gradients, &first, &second, divisor.as_ref(), step)?;
        }
        Ok(())
    }

    /// Writes the moments to `file` (safetensors, `exp_avg.NAME` and `exp_avg_sq.NAME`).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        checkpoint::write(file, &self.state())
    }

    /// Reads what [`AdamW::save`] wrote after `step` steps.
    ///
    /// # Errors
    /// The file is not readable, or its tensors are not those of this optimiser.
    pub fn load(&mut self, file: &Path, step: u64) -> Result<()> {
        self.step = i64::try_from(step).map_err(|_| Error::checkpoint(file, format!("step {step} is out of range")))?;
        checkpoint::read_into(file, self.state())
    }

    /// Handles to the moments, by name.
    fn state(&self) -> Vec<(String, Tensor)> {
        let named = |prefix: &str, names: &[String], tensors: &[Tensor]| -> Vec<(String, Tensor)> {
            names.iter().zip(tensors).map(|(name, t)| (format!("{prefix}.{name}"), t.shallow_clone())).collect()
        };
        self.groups
            .iter()
            .flat_map(|group| {
                let mut state = named("exp_avg", &group.names, &group.first_moments);
                state.extend(named("exp_avg_sq", &group.names, &group.second_moments));
                state
            })
            .collect()
    }
}

/// Matrices and tables decay; biases, norms and scales (one dimension or none) and class and position embeddings do not.
fn decays(name: &str, variable: &Tensor) -> bool {
    let embedding = ["class_embedding", "position_embedding", "positional_embedding"];
    variable.dim() > 1 && !embedding.iter().any(|kind| name.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn};

    const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.2 };

    fn store() -> VarStore {
        tch::manual_seed(3);
        let vs = VarStore::new(Device::Cpu);
        let root = vs.root();
        let _ = root.var("fc_weight", &[4, 3], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
        let _ = (&root / "norm").var("weight", &[3], nn::Init::Const(1.0));
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
        let mut optimizer = AdamW::new(&vs, CONFIG, |_| 1.0);
        let start: BTreeMap<String, Tensor> = vs.variables().into_iter().map(|(n, v)| (n, v.detach().copy())).collect();
        let mut seen: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        for step in 0..3 {
            optimizer.zero_grad();
            let loss =
                vs.variables().values().map(|v| (v.square() * (1.0 + step as f64)).sum(Kind::Float)).sum::<Tensor>();
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
            let difference = (v.to_kind(Kind::Double) - expected(&start[&name], &seen[&name], 1e-2, decay)).abs().max();
            assert!(difference.double_value(&[]) < 1e-6, "{name} differs by {difference:?}");
        }
    }

    #[test]
    fn a_variable_learns_at_its_share_of_the_rate() {
        let vs = store();
        let before: BTreeMap<String, Tensor> =
            vs.variables().into_iter().map(|(n, v)| (n, v.detach().copy())).collect();
        let plain = AdamWConfig { weight_decay: 0.0, ..CONFIG };
        let mut optimizer = AdamW::new(&vs, plain, |name| if name == "fc_weight" { 0.25 } else { 1.0 });
        vs.variables().values().map(|v| v.sum(Kind::Float)).sum::<Tensor>().backward();
        optimizer.step(1e-2, &optimizer.gradient_norm(), None).unwrap();
        for (name, moved) in [("fc_weight", 0.25e-2), ("norm.weight", 1e-2)] {
            // The first step of Adam moves by the rate itself, whatever the gradient's size.
            let difference = (&before[name] - &vs.variables()[name] - moved).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{name}: {difference}");
        }
    }

    #[test]
    fn saved_moments_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("optimizer.safetensors");
        let vs = store();
        let mut optimizer = AdamW::new(&vs, CONFIG, |_| 1.0);
        vs.variables().values().map(|v| v.square().sum(Kind::Float)).sum::<Tensor>().backward();
        optimizer.step(1e-2, &optimizer.gradient_norm(), None).unwrap();
        optimizer.save(&file).unwrap();
        let mut other = AdamW::new(&vs, CONFIG, |_| 1.0);
        other.load(&file, 1).unwrap();
        for ((name, a), (_, b)) in optimizer.state().into_iter().zip(other.state()) {
            assert!(a.equal(&b), "{name}");
        }
    }
}
