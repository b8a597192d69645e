//! The `.json` member of a WebDataset sample: read leniently, written in one form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sources::broken::shortened;
use crate::{NegativeCaption, Question, Sample, json, text};

/// The fields of a `.json` member that are read. Other programs write other types under the same names: each
/// field is read by itself, and one that has another type is skipped.
#[derive(Default)]
pub(super) struct JsonMember {
    /// Those of the configured field first, then those of `captions`.
    pub captions: Vec<String>,
    pub label: Option<String>,
    pub questions: Vec<Question>,
    pub negatives: Vec<NegativeCaption>,
    pub instruction: Option<String>,
    pub preferred: Option<f32>,
    pub variant_of: Option<String>,
    pub group: Option<String>,
    /// The fields that cannot be read, or the reason why the whole member cannot be.
    pub problem: Option<String>,
}

impl JsonMember {
    pub fn read(bytes: Vec<u8>, caption_field: &str) -> Self {
        let parsed = text::decode(bytes).map_err(|not_text| not_text.to_string());
        let parsed = parsed.and_then(|text| json::parse::<Value>(&text).map_err(|error| error.to_string()));
        let object = parsed.and_then(|value| match value {
            Value::Object(object) => Ok(object),
            other => Err(format!("{}, not an object", kind(&other))),
        });
        match object {
            Ok(object) => Fields { object, problems: Vec::new() }.read(caption_field),
            Err(reason) => {
                Self { problem: Some(shortened(format!("its .json: {reason}"))), ..Self::default() }
            }
        }
    }
}

/// The fields that are left to read, and the problems of those before.
struct Fields {
    object: Map<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    fn read(mut self, caption_field: &str) -> JsonMember {
        let mut captions = self.captions(caption_field);
        captions.extend(self.captions("captions"));
        let label = self.take("label").and_then(|value| match value {
            Value::String(label) => Some(label),
            Value::Number(label) => Some(label.to_string()),
            Value::Bool(label) => Some(label.to_string()),
            other => self.problem(format!("`label` is {}, not a text or a number", kind(&other))),
        });
        let questions = self.written("questions");
        let negatives = self.written("negatives");
        let instruction = self.take("instruction").and_then(|value| match value {
            Value::String(text) => Some(text),
            other => self.problem(format!("`instruction` is {}, not a text", kind(&other))),
        });
        let preferred = self.take("preferred").and_then(|value| match value.as_f64() {
            Some(preferred) if (0.0..=1.0).contains(&preferred) => Some(preferred as f32),
            _ => self.problem(format!("`preferred` is {}, not a number from 0 to 1", kind(&value))),
        });
        let variant_of = self.take("variant_of").and_then(|value| match value {
            Value::String(key) => Some(key),
            other => self.problem(format!("`variant_of` is {}, not a key", kind(&other))),
        });
        let group = self.take("group").and_then(|value| match value {
            Value::String(group) => Some(group),
            other => self.problem(format!("`group` is {}, not a text", kind(&other))),
        });
        let mut problems = self.problems;
        problems.dedup();
        let problem =
            (!problems.is_empty()).then(|| shortened(format!("its .json: {}", problems.join("; "))));
        JsonMember {
            captions,
            label,
            questions,
            negatives,
            instruction,
            preferred,
            variant_of,
            group,
            problem,
        }
    }

    /// A field that is present and not null.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    fn problem<T>(&mut self, problem: String) -> Option<T> {
        self.problems.push(problem);
        None
    }

    /// A text or a list of texts.
    fn captions(&mut self, name: &str) -> Vec<String> {
        let mut captions = Vec::new();
        match self.take(name).unwrap_or_default() {
            Value::Null => {}
            Value::String(text) => captions.push(text),
            Value::Array(list) => {
                for value in list {
                    match value {
                        Value::String(text) => captions.push(text),
                        Value::Null => {}
                        other => {
                            self.problems.push(format!("`{name}` has {} among its texts", kind(&other)));
                        }
                    }
                }
            }
            other => {
                self.problems.push(format!("`{name}` is {}, not a text or a list of texts", kind(&other)));
            }
        }
        captions
    }

    /// A list of a form that only [`Written`] has.
    fn written<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        serde_json::from_value(value).unwrap_or_else(|error| {
            self.problems.push(format!("`{name}` are not of the form that mm writes: {error}"));
            Vec::new()
        })
    }
}

/// The type of a value, for messages: the value itself may be long.
fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(_) => "a text".into(),
        other => other.to_string(),
    }
}

/// The `.json` member that is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    captions: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    label: &'a Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    questions: &'a [Question],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    negatives: &'a [NegativeCaption],
    #[serde(skip_serializing_if = "Option::is_none")]
    instruction: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant_of: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: &'a Option<String>,
    key: &'a str,
}

/// The `.json` member of a sample with these captions.
pub(super) fn written(sample: &Sample, captions: &[String]) -> serde_json::Result<Vec<u8>> {
    let Sample { key, label, questions, negatives, instruction, preferred, variant_of, group, .. } = sample;
    let preferred = *preferred;
    serde_json::to_vec(&Written {
        captions,
        label,
        questions,
        negatives,
        instruction,
        preferred,
        variant_of,
        group,
        key,
    })
}
