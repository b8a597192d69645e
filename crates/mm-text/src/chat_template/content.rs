//! The values that a template reads: messages and their parts.

use super::ChatPart;
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A dictionary in the order of its fields.
#[derive(Debug)]
pub(super) struct Record(pub(super) Vec<(&'static str, Value)>);

impl Object for Record {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        self.0.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(field, _)| Value::from(*field)).collect())
    }
}

/// How a template uses the content of a message.
#[derive(Debug, Default)]
struct Usage {
    parts: AtomicBool,
    printed: AtomicBool,
}

/// The parts of a message as a list of dictionaries, which records how it is used.
#[derive(Debug)]
pub(super) struct Content {
    parts: Vec<Arc<Part>>,
    usage: Arc<Usage>,
}

impl Content {
    pub(super) fn new(parts: &[ChatPart]) -> Self {
        let usage = Arc::new(Usage::default());
        let part = |part: &ChatPart| {
            let fields = match part {
                ChatPart::Text(text) => {
                    vec![("type", Value::from("text")), ("text", Value::from(text.as_str()))]
                }
                ChatPart::Image => vec![("type", Value::from("image"))],
            };
            Arc::new(Part { fields: Arc::new(Record(fields)), usage: Arc::clone(&usage) })
        };
        Self { parts: parts.iter().map(part).collect(), usage }
    }

    /// Whether the template reads a key of a part.
    pub(super) fn is_read_as_parts(&self) -> bool {
        self.usage.parts.load(Ordering::Relaxed)
    }

    /// Whether the template prints the list or a part as a whole, as if it were a text.
    pub(super) fn is_printed(&self) -> bool {
        self.usage.printed.load(Ordering::Relaxed)
    }
}

impl Object for Content {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.parts.get(key.as_usize()?).map(|part| Value::from_dyn_object(Arc::clone(part)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.parts.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usage.printed.store(true, Ordering::Relaxed);
        f.debug_list().entries(self.parts.iter().map(|part| &part.fields.0)).finish()
    }
}

/// A part of a message.
#[derive(Debug)]
struct Part {
    fields: Arc<Record>,
    usage: Arc<Usage>,
}

impl Object for Part {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.usage.parts.store(true, Ordering::Relaxed);
        self.fields.get_value(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.fields.enumerate()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.usage.printed.store(true, Ordering::Relaxed);
        f.debug_list().entries(&self.fields.0).finish()
    }
}
