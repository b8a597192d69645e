//! The run's numbers on the disk.

use crate::Evaluation;
use crate::tensorboard::EventWriter;
use mm_core::{Error, Result, checkpoint};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The run's numbers: a line of JSON a record in `metrics.jsonl`, and TensorBoard events.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    events: EventWriter,
    /// The last step whose evaluation is in the file.
    evaluated: Option<u64>,
}

impl Log {
    /// Opens the logs of the run in `folder` after `step` steps. Lines of later steps, which a killed run
    /// wrote after its last checkpoint, are dropped: the resumed run writes them again.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let mut evaluated = None;
        if let Ok(text) = std::fs::read_to_string(&path) {
            let kept: String = text
                .lines()
                .filter(|line| step_of(line).is_some_and(|s| s <= step))
                .inspect(|line| evaluated = evaluated.max(evaluated_step(line)))
                .map(|l| format!("{l}\n"))
                .collect();
            checkpoint::write_atomically(&path, |partial| {
                std::fs::write(partial, kept).map_err(|source| Error::io("write", partial, source))
            })?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| Error::io("write", &path, source))?;
        let events = EventWriter::create(folder)
            .map_err(|source| Error::io("write TensorBoard events to", folder, source))?;
        Ok(Self { path, file, events, evaluated })
    }

    /// Whether the evaluation after `step` steps is in the log.
    pub(crate) fn has_evaluation(&self, step: u64) -> bool {
        self.evaluated == Some(step)
    }

    /// Appends the evaluations after `step`: their metrics, and to TensorBoard also their pictures.
    pub(crate) fn write_evaluations(&mut self, step: u64, evaluations: &[Evaluation]) -> Result<()> {
        self.evaluated = Some(step);
        let metrics: Vec<_> = evaluations.iter().flat_map(Evaluation::named_metrics).collect();
        self.write("eval", step, &metrics)?;
        for evaluation in evaluations {
            for section in &evaluation.sections {
                let Some(sheet) = section.contact_sheet() else { continue };
                let tag = format!("eval/{}/{}", evaluation.set, section.title);
                let written = self.events.image(step, &tag, &sheet);
                written.map_err(|source| self.event_error(source))?;
            }
        }
        Ok(())
    }

    fn event_error(&self, source: std::io::Error) -> Error {
        Error::io("write TensorBoard events beside", &self.path, source)
    }

    /// Appends numbers of `step` under `group` ("train" or "eval").
    pub(crate) fn write(&mut self, group: &str, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut record = Map::new();
        record.insert("step".to_owned(), step.into());
        record.insert("kind".to_owned(), group.into());
        record.extend(values.iter().map(|(name, value)| (name.clone(), Value::from(*value))));
        let line = format!("{}\n", Value::Object(record));
        self.file.write_all(line.as_bytes()).map_err(|source| Error::io("write", &self.path, source))?;
        let tagged: Vec<(String, f64)> =
            values.iter().map(|(name, value)| (format!("{group}/{name}"), *value)).collect();
        let scalars = tagged.iter().map(|(name, value)| (name.as_str(), *value));
        let written = self.events.scalars(step, scalars);
        written.map_err(|source| self.event_error(source))
    }
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}

/// The step of a line that is an evaluation's.
fn evaluated_step(line: &str) -> Option<u64> {
    let record: Value = serde_json::from_str(line).ok()?;
    record.get("step")?.as_u64().filter(|_| record.get("kind").is_some_and(|kind| kind == "eval"))
}
