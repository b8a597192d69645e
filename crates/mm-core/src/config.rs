//! Strict TOML configuration.
//!
//! An unknown or ill-typed key is an error that names the file, the line, the key and the nearest valid key.
//! `--set a.b=c` overrides single values under the same rules.
//!
//! ```
//! # use serde::Deserialize;
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Train { batch_size: u32, lr: f64 }
//!
//! let text = "batch_size = 256\nlerning_rate = 1e-3\n";
//! let source = mm_core::config::ConfigFile::from_text("clip.toml", text, &["lr=1e-4".to_owned()])?;
//! let error = source.parse::<Train>().err().unwrap();
//! assert!(error.to_string().starts_with("clip.toml:2: unknown key `lerning_rate`"));
//! # Ok::<(), mm_core::config::ConfigError>(())
//! ```

use serde::de::DeserializeOwned;
use std::fmt::{self, Display};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// An error in a configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the `--set` argument.
    pub origin: Origin,
    /// The problem, and what would be valid.
    pub problem: String,
}

/// The place of a value of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at a line counted from 1.
    Line(PathBuf, usize),
    /// In a `--set` argument.
    Argument(String),
    /// The file itself, which cannot be read.
    File(PathBuf),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(file, line) => write!(f, "{}:{line}: {}", file.display(), self.problem),
            Origin::Argument(argument) => write!(f, "--set {argument}: {}", self.problem),
            Origin::File(file) => write!(f, "{}: {}", file.display(), self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A configuration file with its overrides.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    file: PathBuf,
    text: String,
    overrides: Vec<String>,
    table: Table,
    /// Keys that were renamed since the file was written: the key as it is read, the key as it is written.
    renamed: Vec<(String, String)>,
}

impl ConfigFile {
    /// Reads `file` and applies `overrides` of the form `a.b=value`. A value that is not TOML is a string.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, or an override has no `=` or its path has a part that is not a
    /// table.
    pub fn read(file: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            origin: Origin::File(file.to_owned()),
            problem: match error.kind() {
                ErrorKind::NotFound => "there is no such configuration".to_owned(),
                ErrorKind::IsADirectory => {
                    "is a folder, where a configuration (.toml) is expected".to_owned()
                }
                ErrorKind::InvalidData => "is not a configuration: it is not UTF-8 text".to_owned(),
                _ => format!("cannot read the configuration: {error}"),
            },
        })?;
        Self::from_text(file, &text, overrides)
    }

    /// As [`ConfigFile::read`], with the text of `file` given.
    ///
    /// # Errors
    /// As [`ConfigFile::read`].
    pub fn from_text(
        file: impl Into<PathBuf>,
        text: &str,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let file = file.into();
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            ConfigError { origin: Origin::Line(file.clone(), line), problem: error.message().to_owned() }
        })?;
        for argument in overrides {
            set(&mut table, argument)
                .map_err(|problem| ConfigError { origin: Origin::Argument(argument.clone()), problem })?;
        }
        Ok(Self { file, text: text.to_owned(), overrides: overrides.to_vec(), table, renamed: Vec::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The value at `key` (`run.task`), if the file or an override has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
        let value = self.table.get(first)?;
        rest.map_or(Some(value), |rest| rest.split('.').try_fold(value, |value, part| value.get(part)))
    }

    /// Removes the top-level `key`, which [`ConfigFile::parse`] then does not see.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    /// Reads the value at `old` as the value at `new`, so that a file from before a key was renamed or moved
    /// to another table stays valid. Errors about `new` name the line of `old`.
    ///
    /// # Errors
    /// Both keys have a value.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<(), ConfigError> {
        let Some(value) = self.get(old).cloned() else { return Ok(()) };
        if self.get(new).is_some() {
            return Err(self.error(old, format!("`{old}` is the former name of `{new}`: keep one")));
        }
        remove(&mut self.table, old);
        insert(&mut self.table, new, value).map_err(|problem| self.error(old, problem))?;
        self.renamed.push((new.to_owned(), old.to_owned()));
        Ok(())
    }

    /// Parses the configuration as a `T`.
    ///
    /// # Errors
    /// A key is unknown, missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(Value::Table(self.table.clone())).map_err(|error| {
            let mut key = error.path().to_string();
            let message = error.inner().message().to_owned();
            match backticked(&message).split_first() {
                Some((unknown, valid)) if message.starts_with("unknown field") => {
                    // Below a tagged enum serde reports the path of the table only.
                    if key == "." || !key.ends_with(unknown.as_str()) {
                        key = if key == "." { unknown.clone() } else { format!("{key}.{unknown}") };
                    }
                    self.error(&key, format!("unknown key `{key}`{}", suggestion(unknown, valid)))
                }
                _ => {
                    let place = if key == "." { String::new() } else { format!("`{key}`: ") };
                    self.error(&key, format!("{place}{}", message.trim_end()))
                }
            }
        })
    }

    /// An error about the value at `key` (`train.batch_size`), with its line or `--set` argument.
    pub fn error(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let written = self.renamed.iter().find(|(new, _)| new == key).map(|(_, old)| old.as_str());
        let key = written.unwrap_or(key);
        let same = |argument: &&String| argument.split_once('=').is_some_and(|(k, _)| k.trim() == key);
        let origin = match self.overrides.iter().rev().find(same) {
            Some(argument) => Origin::Argument(argument.clone()),
            None => Origin::Line(self.file.clone(), self.line(key)),
        };
        ConfigError { origin, problem: problem.into() }
    }

    /// Checks the value at `key`.
    ///
    /// # Errors
    /// Unless `is_valid`, an error about `key` with `problem`.
    pub fn check(&self, is_valid: bool, key: &str, problem: impl Display) -> Result<(), ConfigError> {
        if is_valid { Ok(()) } else { Err(self.error(key, format!("`{key}`: {problem}"))) }
    }

    /// The line of `key`, or of its nearest enclosing table in the file.
    fn line(&self, key: &str) -> usize {
        let Ok(document) = DeTable::parse(&self.text) else { return 1 };
        let (mut table, mut line) = (document.get_ref(), 1);
        for part in key.split('.') {
            let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else { break };
            line = line_of(&self.text, name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        line
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Writes the value of `a.b=value` into `table`, creating missing tables.
fn set(table: &mut Table, argument: &str) -> Result<(), String> {
    let (path, text) = argument.split_once('=').ok_or("expected KEY=VALUE, as in train.lr=1e-4")?;
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    if path.trim().is_empty() || path.trim().ends_with('.') {
        return Err("expected KEY=VALUE, as in train.lr=1e-4".to_owned());
    }
    insert(table, path.trim(), value)
}

/// Writes `value` at `key`, making the tables on the way.
fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let Some((first, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new())).as_table_mut();
    insert(inner.ok_or_else(|| format!("`{first}` is a value, not a table"))?, rest, value)
}

/// Removes the value at `key`, and the tables on the way that are empty then.
fn remove(table: &mut Table, key: &str) {
    let Some((first, rest)) = key.split_once('.') else {
        table.remove(key);
        return;
    };
    if let Some(inner) = table.get_mut(first).and_then(Value::as_table_mut) {
        remove(inner, rest);
        if inner.is_empty() {
            table.remove(first);
        }
    }
}

/// The names in backticks in a message of serde: the unknown one, then the valid ones.
fn backticked(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn suggestion(unknown: &str, valid: &[String]) -> String {
    match nearest(unknown, valid.iter().map(String::as_str)) {
        Some(name) => format!("; did you mean `{name}`?"),
        None if valid.is_empty() => "; no key is valid here".to_owned(),
        None => format!("; valid keys are {}", valid.join(", ")),
    }
}

/// The valid name that `unknown` most likely is a typo of.
pub fn nearest<'a>(unknown: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = valid.into_iter().map(|name| (strsim::jaro_winkler(unknown, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|&(similarity, _)| similarity > 0.7).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read through Debug only
    struct Config {
        train: Train,
        data: Data,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Train {
        batch_size: u32,
        lr: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Data {
        Csv(Csv),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Csv {
        path: String,
    }

    const GOOD: &str = "[train]\nbatch_size = 8\nlr = 0.1\n\n[data]\nkind = \"csv\"\npath = \"a.csv\"\n";

    fn message(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|&s| s.to_owned()).collect();
        ConfigFile::from_text("c.toml", text, &overrides)
            .and_then(|source| source.parse::<Config>())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_good_config_parses_and_overrides_win() {
        let source =
            ConfigFile::from_text("c.toml", GOOD, &["train.lr=0.5".into(), "data.path=b c.csv".into()])
                .unwrap();
        let config: Config = source.parse().unwrap();
        assert_eq!(format!("{:?} {:?}", config.train.lr, config.data), "0.5 Csv(Csv { path: \"b c.csv\" })");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_key() {
        let text = GOOD.replace("batch_size", "batchsize");
        assert_eq!(
            message(&text, &[]),
            "c.toml:2: unknown key `train.batchsize`; did you mean `batch_size`?"
        );
    }

    #[test]
    fn an_unknown_key_below_a_tagged_enum_is_named_with_its_line() {
        let text = GOOD.replace("path", "pth");
        assert_eq!(message(&text, &[]), "c.toml:7: unknown key `data.pth`; did you mean `path`?");
    }

    #[test]
    fn a_wrong_type_and_a_negative_number_are_named_with_their_line() {
        let text = GOOD.replace("lr = 0.1", "lr = \"fast\"");
        assert_eq!(message(&text, &[]), "c.toml:3: `train.lr`: invalid type: string \"fast\", expected f64");
        let text = GOOD.replace("batch_size = 8", "batch_size = -8");
        assert!(message(&text, &[]).starts_with("c.toml:2: `train.batch_size`: "), "{}", message(&text, &[]));
    }

    #[test]
    fn an_override_is_named_as_such() {
        assert_eq!(
            message(GOOD, &["train.lrr=1"]),
            "--set train.lrr=1: unknown key `train.lrr`; did you mean `lr`?"
        );
        assert!(message(GOOD, &["train.lr.x=1"]).contains("`lr` is a value, not a table"));
        assert!(message(GOOD, &["train.lr"]).contains("expected KEY=VALUE"));
    }

    #[test]
    fn a_renamed_key_is_read_from_where_it_was_and_errors_name_its_line() {
        let mut file =
            ConfigFile::from_text("c.toml", "[old]\nlr = 0.1\n[train]\nbatch_size = 8\n", &[]).unwrap();
        file.rename("old.lr", "train.lr").unwrap();
        assert_eq!(file.get("train.lr").and_then(Value::as_float), Some(0.1));
        assert_eq!(file.get("old"), None, "a table without keys goes too");
        assert!(file.error("train.lr", "wrong").to_string().starts_with("c.toml:2: "));
        let mut both = ConfigFile::from_text("c.toml", "[old]\nlr = 0.1\n[train]\nlr = 8\n", &[]).unwrap();
        let error = both.rename("old.lr", "train.lr").unwrap_err().to_string();
        assert!(error.starts_with("c.toml:2: `old.lr` is the former name of `train.lr`"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let message = |file: &Path| ConfigFile::read(file, &[]).unwrap_err().to_string();
        let missing = folder.path().join("c.toml");
        assert_eq!(message(&missing), format!("{}: there is no such configuration", missing.display()));
        let is_a_folder =
            format!("{}: is a folder, where a configuration (.toml) is expected", folder.path().display());
        assert_eq!(message(folder.path()), is_a_folder);
        std::fs::write(&missing, [0xff, 0xfe, 0x00]).unwrap();
        assert!(message(&missing).ends_with("c.toml: is not a configuration: it is not UTF-8 text"));
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        assert!(message("[train]\nlr = = 1\n", &[]).starts_with("c.toml:2: "));
    }

    proptest! {
        #[test]
        fn no_text_and_no_override_panics(text in "\\PC{0,60}", argument in "\\PC{0,20}") {
            let file = ConfigFile::from_text("c.toml", &text, &[argument]);
            let _ = file.and_then(|file| file.parse::<Config>());
        }
    }
}
