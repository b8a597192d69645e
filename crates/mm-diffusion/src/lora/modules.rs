//! The layers of a model that a LoRA may change, under every name that files have for them.

use super::Component;
use super::keys::Spelled;
use crate::single_file::UnetNames;
use mm_core::checkpoint::Weights;
use std::collections::{BTreeMap, HashMap};

/// transformers 5 leaves this prefix out of a text encoder's names, older versions and most files have it.
pub(super) const TEXT_PREFIX: &str = "text_model.";

/// The layers of each component of a pipeline: those with a matrix or a convolution of weights.
#[derive(Clone, Debug, Default)]
pub struct ComponentModules {
    components: BTreeMap<Component, Modules>,
}

#[derive(Clone, Debug, Default)]
struct Modules {
    shapes: BTreeMap<String, Vec<i64>>,
    /// The layer of each name without dots. Replacing underscores by dots would be ambiguous: names have
    /// both.
    underscored: HashMap<String, String>,
}

impl ComponentModules {
    /// No component.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the layers of `component`, whose `weights` have diffusers' and transformers' names.
    pub fn with(mut self, component: Component, weights: &Weights) -> Self {
        let names = weights.list();
        let modules = names.iter().filter_map(|tensor| {
            let module = tensor.name.strip_suffix(".weight")?;
            let shape: Vec<i64> = weights.shape(&tensor.name)?.iter().map(|&size| size as i64).collect();
            matches!(shape.len(), 2 | 4).then(|| (module.to_owned(), shape))
        });
        let shapes: BTreeMap<String, Vec<i64>> = modules.collect();
        let underscored = underscored(component, &shapes);
        self.components.insert(component, Modules { shapes, underscored });
        self
    }

    /// The layer that a file's key means, with its component. A file without prefixes gives no component: its
    /// layers belong to the first that has one of this name for which `fits` holds, or else of this name.
    pub(super) fn resolve(
        &self,
        component: Option<Component>,
        spelled: &Spelled,
        fits: impl Fn(&[i64]) -> bool,
    ) -> Option<(Component, String)> {
        let found: Vec<(Component, &str)> = self
            .components
            .iter()
            .filter(|(candidate, _)| component.is_none_or(|component| component == **candidate))
            .filter_map(|(&candidate, modules)| Some((candidate, modules.find(candidate, spelled)?)))
            .collect();
        let fitting =
            found.iter().find(|(candidate, module)| self.shape(*candidate, module).is_some_and(&fits));
        fitting.or(found.first()).map(|&(component, module)| (component, module.to_owned()))
    }

    /// The shape of a layer's weight.
    pub(super) fn shape(&self, component: Component, module: &str) -> Option<&[i64]> {
        Some(self.components.get(&component)?.shapes.get(module)?)
    }
}

impl Modules {
    fn find(&self, component: Component, spelled: &Spelled) -> Option<&str> {
        let name = match spelled {
            Spelled::Underscored(name) => return self.underscored.get(name).map(String::as_str),
            Spelled::Dotted(name) => name,
        };
        let known = |name: &str| self.shapes.get_key_value(name).map(|(name, _)| name.as_str());
        let other = || match name.strip_prefix(TEXT_PREFIX) {
            Some(rest) => known(rest),
            None => known(&format!("{TEXT_PREFIX}{name}")),
        };
        known(name).or_else(|| component.is_text_encoder().then(other).flatten())
    }
}

/// The layers by their names without dots: of a U-Net also those of CompVis's and Stability AI's code, which
/// kohya's programs train SDXL on.
fn underscored(component: Component, shapes: &BTreeMap<String, Vec<i64>>) -> HashMap<String, String> {
    let mut names = HashMap::new();
    let mut add = |name: &str, module: &str| names.insert(name.replace('.', "_"), module.to_owned());
    let sgm =
        (component == Component::Unet).then(|| UnetNames::of_diffusers(shapes.keys().map(String::as_str)));
    for module in shapes.keys() {
        if let Some(name) = sgm.as_ref().and_then(|sgm| sgm.to_ldm(module)) {
            add(&name, module);
        }
        if component.is_text_encoder() && !module.starts_with(TEXT_PREFIX) {
            add(&format!("{TEXT_PREFIX}{module}"), module);
        }
        add(module, module);
    }
    names
}
