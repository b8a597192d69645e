//! Several data sets as one, each with its share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Dataset, DatasetConfig, Error, Part, Result, Sample};

/// Data sets to mix. Of any stretch of samples each has its share, to one sample, and goes through its own
/// epochs. In the config:
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
    /// Its share, against the weights of the others: above 0.
    pub weight: f64,
    /// The data set.
    pub source: DatasetConfig,
}

impl MixConfig {
    /// Errors: no source, a weight that is none, a mix in a mix, a source that cannot be opened.
    pub(crate) fn open(&self) -> Result<Box<dyn Dataset>> {
        let mut parts = Vec::with_capacity(self.sources.len());
        for Weighted { weight, source } in &self.sources {
            if !(weight.is_finite() && *weight > 0.0) {
                return Err(Error::Setting(format!(
                    "weight = {weight}: a source of a mix needs a weight above 0"
                )));
            }
            if matches!(source, DatasetConfig::Mix(_)) {
                return Err(Error::Setting("a mix in a mix: name all sources in one".into()));
            }
            let source: Arc<dyn Dataset> = Arc::from(source.open()?);
            if source.is_empty() {
                return Err(Error::Empty {
                    name: source.name().to_owned(),
                    hint: "take it out of the mix".into(),
                });
            }
            parts.push(Part { weight: *weight, source });
        }
        if parts.is_empty() {
            return Err(Error::Setting("sources = []: a mix needs at least one source".into()));
        }
        let name = parts.iter().map(|part| part.source.name()).collect::<Vec<_>>().join(" + ");
        let len = parts.iter().map(|part| part.source.len()).sum();
        let credit = joined_credits(&parts);
        Ok(Box::new(Mix { name, credit, parts, len }))
    }
}

/// Each different credit of the parts once, separated by a space.
fn joined_credits(parts: &[Part]) -> String {
    let mut credits: Vec<&str> = Vec::new();
    for credit in parts.iter().map(|part| part.source.credit()) {
        if !credit.is_empty() && !credits.contains(&credit) {
            credits.push(credit);
        }
    }
    credits.join(" ")
}

struct Mix {
    name: String,
    credit: String,
    parts: Vec<Part>,
    len: usize,
}

impl Mix {
    fn find(&self, mut index: usize) -> (&dyn Dataset, usize) {
        for part in &self.parts[..self.parts.len() - 1] {
            if index < part.source.len() {
                return (&*part.source, index);
            }
            index -= part.source.len();
        }
        (&*self.parts[self.parts.len() - 1].source, index)
    }
}

/// By number, the sources one behind the other.
impl Dataset for Mix {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (source, index) = self.find(index);
        source.sample(index)
    }

    fn key(&self, index: usize) -> String {
        let (source, index) = self.find(index);
        source.key(index)
    }

    fn credit(&self) -> &str {
        &self.credit
    }

    fn parts(&self) -> Option<&[Part]> {
        Some(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emoji;

    #[test]
    fn a_mix_has_the_credit_of_each_part_once() {
        let open = |config: &str| toml::from_str::<DatasetConfig>(config).unwrap().open().unwrap();
        let emoji = "{ weight = 1, source = { kind = \"emoji\" } }";
        let shapes = "{ weight = 1, source = { kind = \"shapes\", samples = 2 } }";
        let mix = |parts: &str| open(&format!("kind = \"mix\"\nsources = [{parts}]"));
        assert_eq!(mix(&format!("{emoji}, {shapes}, {emoji}")).credit(), emoji::CREDIT);
        assert_eq!(mix(shapes).credit(), "");
    }
}
