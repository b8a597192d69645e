//! The data set argument of `mm data`.

use anyhow::Result;
use mm_core::config::ConfigFile;
use mm_data::{Dataset, DatasetConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The data set.
#[derive(clap::Args)]
pub struct SetArgs {
    /// The data set as a config has it, `kind = "coco", path = "captions.json"`, its kind alone, `emoji`, or a
    /// folder of images with a slash in its name, `photos/`.
    #[arg(long, value_name = "TOML", required_unless_present = "config", conflicts_with = "config")]
    data: Option<String>,
    /// The config of a run, whose data set is taken.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which data set of the config: train or eval.NAME.
    #[arg(long, value_name = "NAME", default_value = "train", conflicts_with = "data")]
    source: String,
    /// Override a value of the config.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
}

/// The part of a run's config that is read; the other tables depend on the task.
#[derive(Deserialize)]
struct Run {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    train: Option<DatasetConfig>,
    #[serde(default)]
    eval: BTreeMap<String, DatasetConfig>,
}

#[derive(Deserialize)]
struct Inline {
    data: DatasetConfig,
}

impl SetArgs {
    /// The data set's config, and the data set.
    pub fn open(&self) -> Result<(DatasetConfig, Box<dyn Dataset>)> {
        let config = match (&self.data, &self.config) {
            (Some(data), _) => inline("--data", data)?,
            (None, Some(file)) => self.of_run(file)?,
            (None, None) => unreachable!("clap requires one of the two"),
        };
        let source = config.open()?;
        Ok((config, source))
    }

    fn of_run(&self, file: &std::path::Path) -> Result<DatasetConfig> {
        let text = ConfigFile::read(file, &self.overrides)?;
        let Data { train, mut eval } = text.parse::<Run>()?.data;
        let mut names: Vec<String> = train.iter().map(|_| "train".to_owned()).collect();
        names.extend(eval.keys().map(|name| format!("eval.{name}")));
        let found = match self.source.strip_prefix("eval.") {
            Some(name) => eval.remove(name),
            None if self.source == "train" => train,
            None => None,
        };
        let problem = format!("no data set `{}`; there are: {}", self.source, names.join(", "));
        Ok(found.ok_or_else(|| text.error("data", problem))?)
    }
}

/// A data set on the command line, of `option`: a table's inside, a whole inline table, a kind, or a folder of
/// images, which has a slash in its name.
pub fn inline(option: &str, data: &str) -> Result<DatasetConfig> {
    let data = data.trim();
    let is_folder = data.contains('/') && !data.contains('=');
    let is_kind =
        !data.is_empty() && data.chars().all(|character| character.is_alphanumeric() || character == '_');
    let text = match data {
        kind if is_kind => format!("data = {{ kind = {kind:?} }}"),
        folder if is_folder => format!("data = {{ kind = 'folder', path = {folder:?} }}"),
        table if table.starts_with('{') => format!("data = {table}"),
        inside => format!("data = {{ {inside} }}"),
    };
    Ok(ConfigFile::from_text(option, &text, &[])?.parse::<Inline>()?.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(data: &str) -> Result<DatasetConfig> {
        super::inline("--data", data)
    }

    #[test]
    fn a_data_set_is_a_kind_a_folder_a_table_or_its_inside() {
        let whole = inline("{ kind = 'emoji', split = 'held_out' }").unwrap();
        assert_eq!(whole, inline(" kind = \"emoji\", split = \"held_out\" ").unwrap());
        assert_eq!(inline("emoji").unwrap(), inline("kind = 'emoji'").unwrap());
        assert_eq!(inline("./a b").unwrap(), inline("kind = 'folder', path = './a b'").unwrap());
        let said = |data: &str| inline(data).unwrap_err().to_string();
        assert!(said("emojis").contains("unknown variant `emojis`"), "{}", said("emojis"));
        assert!(said("kind = 'emoji', spilt = 'all'").contains("did you mean `split`?"));
        assert!(said("kind = emoji").starts_with("--data:1"), "{}", said("kind = emoji"));
        assert!(inline("").is_err());
    }
}
