//! Several data sets as one, mixed by weight.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Dataset, DatasetConfig, Error, Result, Sample, WeightedDataset};

/// Data sets to mix. Any run of consecutive samples holds each data set in proportion to its weight, to one
/// sample; each data set goes through epochs of its own. In the config:
///
/// ```
/// let config: mm_data::DatasetConfig = toml::from_str(r#"
///     kind = "mix"
///     sources = [
///         { weight = 3, source = { kind = "emoji" } },
///         { weight = 1, source = { kind = "emoji", split = "held_out" } },
///     ]
/// "#)?;
/// assert_eq!(config.open()?.len(), 3944);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixConfig {
    /// The data sets, at least one.
    pub sources: Vec<Weighted>,
}

/// A data set in a mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// The weight, relative to the sum of all weights: above 0.
    pub weight: f64,
    /// The data set.
    pub source: DatasetConfig,
}

impl MixConfig {
    /// # Errors
    /// No data set, a weight that is not above 0, a mix in a mix, a data set that cannot be opened.
    pub(crate) fn open(&self) -> Result<Mix> {
        let mut mixture = Vec::with_capacity(self.sources.len());
        for Weighted { weight, source } in &self.sources {
            if !(weight.is_finite() && *weight > 0.0) {
                return Err(Error::Setting(format!(
                    "weight = {weight}: a source of a mix needs a weight above 0"
                )));
            }
            let dataset: Arc<dyn Dataset> = Arc::from(source.open()?);
            if dataset.mixture().is_some() {
                return Err(Error::Setting(format!(
                    "`{}` is mixed by weight, and cannot be a part of a mix: name all sources in one",
                    dataset.name()
                )));
            }
            if dataset.is_empty() {
                return Err(Error::Empty {
                    name: dataset.name().to_owned(),
                    hint: "take it out of the mix".into(),
                });
            }
            mixture.push(WeightedDataset { weight: *weight, dataset });
        }
        if mixture.is_empty() {
            return Err(Error::Setting("sources = []: a mix needs at least one source".into()));
        }
        let name = mixture.iter().map(|part| part.dataset.name()).collect::<Vec<_>>().join(" + ");
        Ok(Mix::new(name, mixture))
    }
}

/// Each different credit of the data sets once, separated by a space.
fn joined_credits(mixture: &[WeightedDataset]) -> String {
    let mut credits: Vec<&str> = Vec::new();
    for credit in mixture.iter().map(|part| part.dataset.credit()) {
        if !credit.is_empty() && !credits.contains(&credit) {
            credits.push(credit);
        }
    }
    credits.join(" ")
}

/// Data sets mixed by weight.
pub(crate) struct Mix {
    name: String,
    credit: String,
    mixture: Vec<WeightedDataset>,
    len: usize,
    is_shuffled: bool,
}

impl Mix {
    /// A mix of at least one data set. None of them is a mix.
    pub(crate) fn new(name: String, mixture: Vec<WeightedDataset>) -> Self {
        let len = mixture.iter().map(|part| part.dataset.len()).sum();
        let credit = joined_credits(&mixture);
        Self { name, credit, mixture, len, is_shuffled: false }
    }

    /// The same, with draws from its data sets in random order.
    pub(crate) fn shuffled(self) -> Self {
        Self { is_shuffled: true, ..self }
    }

    /// The data set of an index of the mix, and the index in that data set.
    fn find(&self, mut index: usize) -> (&dyn Dataset, usize) {
        let last = self.mixture.len() - 1;
        for WeightedDataset { dataset, .. } in &self.mixture[..last] {
            if index < dataset.len() {
                return (&**dataset, index);
            }
            index -= dataset.len();
        }
        (&*self.mixture[last].dataset, index)
    }
}

/// By index, the data sets one after another.
impl Dataset for Mix {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (dataset, index) = self.find(index);
        dataset.sample(index)
    }

    fn key(&self, index: usize) -> String {
        let (dataset, index) = self.find(index);
        dataset.key(index)
    }

    fn credit(&self) -> &str {
        &self.credit
    }

    fn mixture(&self) -> Option<&[WeightedDataset]> {
        Some(&self.mixture)
    }

    fn mixture_is_shuffled(&self) -> bool {
        self.is_shuffled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emoji;

    #[test]
    fn a_mix_has_the_credit_of_each_data_set_once() {
        let open = |config: &str| toml::from_str::<DatasetConfig>(config).unwrap().open().unwrap();
        let emoji = "{ weight = 1, source = { kind = \"emoji\" } }";
        let shapes = "{ weight = 1, source = { kind = \"shapes\", samples = 2 } }";
        let mix = |sources: &str| open(&format!("kind = \"mix\"\nsources = [{sources}]"));
        assert_eq!(mix(&format!("{emoji}, {shapes}, {emoji}")).credit(), emoji::CREDIT);
        assert_eq!(mix(shapes).credit(), "");
    }
}
