//! The linear layers of a model, recorded while it is built.

use super::AdapterSlot;
use crate::checkpoint::{NameMap, variable_shapes};
use std::cell::RefCell;
use std::collections::BTreeMap;
use tch::Tensor;
use tch::nn::Path;

thread_local! {
    /// The layers of the model that is being built in [`record_linears`].
    static RECORDED: RefCell<Option<Linears>> = const { RefCell::new(None) };
}

/// The linear layers of a model, by the path that they were created at.
#[derive(Debug, Default)]
pub struct Linears(BTreeMap<String, Site>);

/// A linear layer.
#[derive(Debug)]
struct Site {
    weight: Tensor,
    slot: AdapterSlot,
}

/// A linear layer of the checkpoint: one of the model, or an equal part of the rows of one.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name in the checkpoint.
    pub name: String,
    /// The name of the model's variable that its weight is in.
    pub variable: String,
    /// That variable.
    pub weight: Tensor,
    pub slot: AdapterSlot,
    /// Its place among the parts of the variable, and their number.
    pub part: usize,
    pub parts: usize,
    /// The shape of its weight.
    pub rows: i64,
    pub input: i64,
}

/// Runs `build`, which makes a model on this thread, and gives the linear layers that it created. Of layers
/// created at the same path, as by a first pass for shapes alone, the last counts.
pub fn record_linears<T>(build: impl FnOnce() -> T) -> (T, Linears) {
    struct Restore(Option<Linears>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDED.set(self.0.take());
        }
    }
    let _restore = Restore(RECORDED.replace(Some(Linears::default())));
    let model = build();
    (model, RECORDED.take().unwrap_or_default())
}

/// The names in the checkpoint of the linear layers of the model that `build` makes, without its values.
///
/// # Errors
/// As `build`.
pub fn linear_names<T, E>(
    names: NameMap,
    build: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<Vec<String>, E> {
    let (shapes, linears) = record_linears(|| variable_shapes(build));
    shapes?;
    Ok(linears.names(names))
}

/// Records the linear layer created at `path`, if a model is being recorded.
pub(crate) fn record(path: &Path, weight: &Tensor, slot: &AdapterSlot) {
    RECORDED.with_borrow_mut(|recorded| {
        if let Some(Linears(sites)) = recorded {
            let name = path.components().collect::<Vec<_>>().join(".");
            sites.insert(name, Site { weight: weight.shallow_clone(), slot: slot.clone() });
        }
    });
}

impl Linears {
    /// The names of the layers in the checkpoint, to check targets against.
    pub fn names(&self, names: NameMap) -> Vec<String> {
        self.modules(names).into_iter().map(|module| module.name).collect()
    }

    /// The layers in the checkpoint, in the order of the model's names.
    pub(super) fn modules(&self, names: NameMap) -> Vec<Module> {
        let modules = |(path, site): (&String, &Site)| {
            let variable = format!("{path}.weight");
            let stored = names(&variable);
            let parts = stored.len();
            let (rows, input) = site.weight.size2().expect("the weight of a linear layer is a matrix");
            let module = |(part, name): (usize, String)| Module {
                name: name.strip_suffix(".weight").unwrap_or(&name).to_owned(),
                variable: variable.clone(),
                weight: site.weight.shallow_clone(),
                slot: site.slot.clone(),
                part,
                parts,
                rows: rows / parts as i64,
                input,
            };
            stored.into_iter().enumerate().map(module).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(modules).collect()
    }
}
