//! The part of a run's TOML that xtask reads: what to prepare, how many processes to launch, where the run
//! is. `mm` reads the rest.
//!
//! mm-core has a reader for the whole TOML, but it links libtorch, which xtask may have to install first.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::data::Step;
use crate::ranks::MAX_NPROC;

/// What a run's TOML says about the steps around training.
#[derive(Debug, PartialEq)]
pub struct Pipeline {
    /// `prepare`: the steps of `cargo xtask data` that the run needs, in order.
    pub prepare: Vec<Step>,
    /// `launch.nproc`: processes on each node.
    pub nproc: u32,
    /// `run.out/run.name`, the folder that training writes; `None` without a `run.name`.
    pub run: Option<PathBuf>,
    /// Whether there is a `[data.eval.NAME]`.
    pub has_eval_sets: bool,
}

/// The TOML as written, with the overrides applied.
struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    overrides: &'a [String],
    table: Table,
}

impl Pipeline {
    /// Reads `file`, as seen from `folder`, with `overrides` of the form `a.b=value`.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, or one of the keys above is unknown or has a bad value. The
    /// error names file, line and key.
    pub fn read(folder: &Path, file: &Path, overrides: &[String]) -> Result<Self> {
        let text = fs::read_to_string(folder.join(file)).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::NotFound => "there is no such configuration".to_owned(),
                ErrorKind::IsADirectory => "is a folder, not a configuration (.toml)".to_owned(),
                _ => format!("cannot read the configuration: {error}"),
            };
            anyhow!("{}: {reason}", file.display())
        })?;
        Self::from_text(file, &text, overrides)
    }

    fn from_text(file: &Path, text: &str, overrides: &[String]) -> Result<Self> {
        let document = Document::parse(file, text, overrides)?;
        let name = document.string("run.name")?;
        let out = document.string("run.out")?.unwrap_or("runs");
        let eval_sets = document.get("data.eval").and_then(Value::as_table);
        Ok(Self {
            prepare: document.prepare()?,
            nproc: document.nproc()?,
            run: name.map(|name| Path::new(out).join(name)),
            has_eval_sets: eval_sets.is_some_and(|sets| !sets.is_empty()),
        })
    }
}

impl<'a> Document<'a> {
    fn parse(file: &'a Path, text: &'a str, overrides: &'a [String]) -> Result<Self> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            anyhow!("{}:{line}: {}", file.display(), error.message())
        })?;
        for argument in overrides {
            set(&mut table, argument).map_err(|problem| anyhow!("--set {argument}: {problem}"))?;
        }
        Ok(Self { file, text, overrides, table })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    fn string(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str();
        text.map(Some).ok_or_else(|| self.error(key, None, format_args!("must be a string")))
    }

    fn prepare(&self) -> Result<Vec<Step>> {
        let key = "prepare";
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let names = value.as_array().and_then(|names| names.iter().map(Value::as_str).collect());
        let Some(names): Option<Vec<&str>> = names else {
            return Err(self.error(key, None, format_args!("must be a list of steps, as in [\"minilm\"]")));
        };
        let step = |(index, name): (usize, &str)| {
            Step::ALL.into_iter().find(|step| step.name() == name).ok_or_else(|| {
                let suggestion = suggestion(name, &Step::ALL.map(Step::name));
                self.error(key, Some(index), format_args!("unknown step `{name}`; {suggestion}"))
            })
        };
        names.into_iter().enumerate().map(step).collect()
    }

    fn nproc(&self) -> Result<u32> {
        let Some(launch) = self.get("launch") else { return Ok(1) };
        let Some(launch) = launch.as_table() else {
            return Err(self.error("launch", None, format_args!("must be a table, as in [launch]")));
        };
        if let Some(unknown) = launch.keys().find(|key| *key != "nproc") {
            let key = format!("launch.{unknown}");
            return Err(self.error(&key, None, format_args!("unknown key; did you mean `nproc`?")));
        }
        let Some(nproc) = launch.get("nproc") else { return Ok(1) };
        let nproc = nproc.as_integer().and_then(|nproc| u32::try_from(nproc).ok());
        nproc.filter(|nproc| (1..=MAX_NPROC).contains(nproc)).ok_or_else(|| {
            self.error("launch.nproc", None, format_args!("must be a whole number from 1 to {MAX_NPROC}"))
        })
    }

    /// An error about the value at `key`, or about one element of it, with the place where it is written.
    fn error(&self, key: &str, index: Option<usize>, problem: fmt::Arguments) -> Error {
        let written = |argument: &&String| {
            let path = argument.split_once('=').map_or("", |(path, _)| path.trim());
            key == path || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
        };
        match self.overrides.iter().rev().find(written) {
            Some(argument) => anyhow!("--set {argument}: `{key}`: {problem}"),
            None => anyhow!("{}:{}: `{key}`: {problem}", self.file.display(), self.line(key, index)),
        }
    }

    /// The line of `key`, or of its nearest enclosing table that is written.
    fn line(&self, key: &str, index: Option<usize>) -> usize {
        let Ok(document) = DeTable::parse(self.text) else { return 1 };
        let (mut table, mut line) = (document.get_ref(), 1);
        for part in key.split('.') {
            let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else { break };
            line = line_of(self.text, name.span().start);
            match (value.get_ref(), index) {
                (DeValue::Table(inner), _) => table = inner,
                (DeValue::Array(elements), Some(index)) => {
                    return elements
                        .get(index)
                        .map_or(line, |element| line_of(self.text, element.span().start));
                }
                _ => break,
            }
        }
        line
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Writes the value of `a.b=value` into `table`, as `mm train --set` does: a value that is not TOML is a
/// string.
fn set(table: &mut Table, argument: &str) -> Result<(), String> {
    let expected = "expected KEY=VALUE, as in train.lr=1e-4";
    let (path, text) = argument.split_once('=').ok_or(expected)?;
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut all| all.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(text.to_owned()));
    let mut parts: Vec<&str> = path.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or(expected)?;
    let mut inner = table;
    for part in parts {
        let next = inner.entry(part).or_insert_with(|| Value::Table(Table::new()));
        inner = next.as_table_mut().ok_or_else(|| format!("`{part}` is a value, not a table"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}

/// What to write instead of an unknown step.
fn suggestion(unknown: &str, known: &[&str]) -> String {
    let similarity = |name: &str| strsim::jaro_winkler(unknown, name);
    let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|name| similarity(name) > 0.7) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known steps are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "prepare = [\n  \"minilm\",\n]\n\n[launch]\nnproc = 2\n\n[run]\nname = \"a\"\n\n\
                        [data]\neval.held_out = { kind = \"emoji\" }\n";

    fn read(text: &str, overrides: &[&str]) -> Result<Pipeline> {
        let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
        Pipeline::from_text(Path::new("a.toml"), text, &overrides)
    }

    fn error(text: &str, overrides: &[&str]) -> String {
        read(text, overrides).unwrap_err().to_string()
    }

    #[test]
    fn steps_processes_and_the_runs_folder_are_read() {
        let pipeline = read(TOML, &[]).unwrap();
        assert_eq!((pipeline.prepare, pipeline.nproc), (vec![Step::Minilm], 2));
        assert_eq!((pipeline.run, pipeline.has_eval_sets), (Some("runs/a".into()), true));
        let bare = Pipeline { prepare: Vec::new(), nproc: 1, run: None, has_eval_sets: false };
        assert_eq!(read("", &[]).unwrap(), bare);
    }

    #[test]
    fn overrides_win() {
        let overrides = ["run.out=/runs", "run.name=b", "launch.nproc=1", "prepare=[\"emoji\"]"];
        let pipeline = read(TOML, &overrides).unwrap();
        assert_eq!((pipeline.prepare, pipeline.nproc), (vec![Step::Emoji], 1));
        assert_eq!(pipeline.run, Some("/runs/b".into()));
    }

    #[test]
    fn an_unknown_step_is_named_with_its_line_and_the_nearest_known_step() {
        let wrong = TOML.replace("minilm", "minilmm");
        assert_eq!(error(&wrong, &[]), "a.toml:2: `prepare`: unknown step `minilmm`; did you mean `minilm`?");
        let overridden = error(TOML, &["prepare=[\"x\"]"]);
        let expected = "--set prepare=[\"x\"]: `prepare`: unknown step `x`; known steps are emoji, minilm, \
                        coco-captions, easy-vqa";
        assert_eq!(overridden, expected);
    }

    #[test]
    fn bad_values_are_named_with_their_line() {
        for (from, to, expected) in [
            ("nproc = 2", "nprocs = 2", "a.toml:6: `launch.nprocs`: unknown key; did you mean `nproc`?"),
            ("nproc = 2", "nproc = 0", "a.toml:6: `launch.nproc`: must be a whole number from 1 to 256"),
            ("nproc = 2", "nproc = \"2\"", "a.toml:6: `launch.nproc`: must be a whole number"),
            ("\"minilm\"", "7", "a.toml:1: `prepare`: must be a list of steps"),
            ("\"a\"", "7", "a.toml:9: `run.name`: must be a string"),
            ("[run]", "[run", "a.toml:8: "),
        ] {
            let error = error(&TOML.replace(from, to), &[]);
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(error("launch = 2", &[]), "a.toml:1: `launch`: must be a table, as in [launch]");
        assert_eq!(error(TOML, &["x"]), "--set x: expected KEY=VALUE, as in train.lr=1e-4");
        assert!(error(TOML, &["launch={ nproc = 0 }"]).starts_with("--set launch={ nproc = 0 }: "));
    }
}
