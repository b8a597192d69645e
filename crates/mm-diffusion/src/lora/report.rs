//! What a LoRA file holds, for printing.

use super::file::{entries, open_weights};
use super::{Component, LoraLayers};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a LoRA file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraReport {
    /// How the file names layers: "PEFT", "diffusers", "attention processors" or "kohya".
    pub spellings: Vec<&'static str>,
    /// The components with layers.
    pub components: Vec<ComponentReport>,
}

/// The layers of one component.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentReport {
    /// The component; none where the file has no prefixes and no model is at hand.
    pub component: Option<Component>,
    /// The number of layers.
    pub layers: usize,
    /// How many of them are convolutions.
    pub convolutions: usize,
    /// The ranks in use, ascending.
    pub ranks: Vec<i64>,
    /// The stored alphas in use, ascending.
    pub alphas: Vec<f64>,
}

/// A layer as the report counts it.
struct Layer {
    rank: i64,
    alpha: Option<f64>,
    is_convolution: bool,
}

impl LoraReport {
    /// Reads the names and shapes of a file without a model. Alphas are those that stand as tensors.
    ///
    /// # Errors
    /// As [`LoraFile::open`](super::LoraFile::open), but for what needs the model.
    pub fn read(path: &Path) -> Result<Self> {
        let (file, weights) = open_weights(path)?;
        let bad = |problem: String| Error::Lora { path: file.clone(), problem };
        let (entries, spellings) = entries(&weights).map_err(bad)?;
        let mut layers: BTreeMap<Option<Component>, Vec<Layer>> = BTreeMap::new();
        for ((component, _), entry) in &entries {
            let is_convolution = entry.product(&weights).map_err(bad)?.len() == 4;
            let layer = Layer { rank: entry.rank(&weights), alpha: entry.alpha(&weights)?, is_convolution };
            layers.entry(*component).or_default().push(layer);
        }
        Ok(Self::counted(layers, &spellings))
    }

    pub(super) fn of(layers: &LoraLayers, spellings: &BTreeSet<&'static str>) -> Self {
        let counted = layers.iter().map(|(&component, pairs)| {
            let layers = pairs.values().map(|pair| Layer {
                rank: pair.rank(),
                alpha: pair.alpha,
                is_convolution: pair.is_convolution(),
            });
            (Some(component), layers.collect())
        });
        Self::counted(counted.collect(), spellings)
    }

    fn counted(layers: BTreeMap<Option<Component>, Vec<Layer>>, spellings: &BTreeSet<&'static str>) -> Self {
        let component = |(component, layers): (Option<Component>, Vec<Layer>)| {
            let ranks: BTreeSet<i64> = layers.iter().map(|layer| layer.rank).collect();
            let mut alphas: Vec<f64> = layers.iter().filter_map(|layer| layer.alpha).collect();
            alphas.sort_by(f64::total_cmp);
            alphas.dedup();
            ComponentReport {
                component,
                layers: layers.len(),
                convolutions: layers.iter().filter(|layer| layer.is_convolution).count(),
                ranks: ranks.into_iter().collect(),
                alphas,
            }
        };
        Self {
            spellings: spellings.iter().copied().collect(),
            components: layers.into_iter().map(component).collect(),
        }
    }
}
