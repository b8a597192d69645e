//! Target names against the names of linear layers.

use super::linears::Module;
use std::collections::BTreeSet;

/// PEFT's name for all linear layers.
const ALL_LINEAR: &str = "all-linear";

/// The number of near names in an error.
const NEAR: usize = 3;

/// Whether `target` matches the layer `name`.
pub(super) fn matches(target: &str, name: &str) -> bool {
    if target == ALL_LINEAR {
        return true;
    }
    if target.contains('*') {
        return matches_glob(target, name);
    }
    name.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether `target` is one that PEFT would not understand.
pub(super) fn is_own(target: &str) -> bool {
    target.contains('*') || target == ALL_LINEAR
}

/// Whether `name` is `pattern`, in which `*` stands for any characters.
fn matches_glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Checks that each target matches a layer.
pub(super) fn check(targets: &[String], layers: &[String]) -> Result<(), String> {
    let unmatched = |target: &&String| !layers.iter().any(|layer| matches(target, layer));
    match targets.iter().find(unmatched) {
        None => Ok(()),
        Some(target) => {
            Err(format!("{target:?} matches no linear layer; near names are {}", near(target, layers)))
        }
    }
}

/// The modules that the targets match.
pub(super) fn select(targets: &[String], modules: Vec<Module>) -> Result<Vec<Module>, String> {
    let names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
    check(targets, &names)?;
    let is_target = |module: &Module| targets.iter().any(|target| matches(target, &module.name));
    Ok(modules.into_iter().filter(is_target).collect())
}

/// Checks that each name of `layers` is one of a module.
pub(super) fn check_exact(layers: &BTreeSet<String>, modules: &[Module]) -> Result<(), String> {
    let names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
    match layers.iter().find(|layer| !names.contains(layer)) {
        None => Ok(()),
        Some(layer) => {
            Err(format!("the model has no linear layer {layer:?}; near names are {}", near(layer, &names)))
        }
    }
}

/// The names nearest to `target`, of as many components as it has.
fn near(target: &str, layers: &[String]) -> String {
    let components = target.split('.').count();
    let tail = |layer: &String| {
        let parts: Vec<&str> = layer.split('.').collect();
        parts[parts.len().saturating_sub(components)..].join(".")
    };
    let names: BTreeSet<String> = layers.iter().map(tail).collect();
    let mut names: Vec<(f64, String)> =
        names.into_iter().map(|name| (strsim::jaro_winkler(target, &name), name)).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<String> = names.into_iter().take(NEAR).map(|(_, name)| name).collect();
    names.join(", ")
}
