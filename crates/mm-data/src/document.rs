//! Structured documents: what a page says as ordered JSON, and where it is printed.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// What a page says: the target of a model that reads documents.
///
/// [`invoices`](crate::invoices) knows where each character is printed; data sets of files have the
/// [`value`](Self::value) alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// The name of the structure: `invoice`, `cord`.
    pub schema: String,
    /// The content, with its keys in order. A blank page is an object without keys.
    pub value: DocumentValue,
    /// The texts of [`value`](Self::value) in its order, each with the places where it is printed.
    pub fields: Vec<DocumentField>,
    /// All printed words in the order of drawing; empty where they are not known.
    pub words: Vec<DocumentWord>,
}

impl Document {
    /// A document without known places.
    pub fn new(schema: impl Into<String>, value: DocumentValue) -> Self {
        let mut fields = Vec::new();
        value.leaves(String::new(), &mut |key, text| {
            fields.push(DocumentField { key, value: text.to_owned(), places: Vec::new() });
        });
        Self { schema: schema.into(), value, fields, words: Vec::new() }
    }
}

/// JSON of texts, lists and objects that keeps the order of keys: `serde_json::Value` sorts them.
///
/// It serializes as JSON in this order. Read from JSON, numbers and booleans become texts (`1` is `"1"`) and
/// null the empty text, since a page prints all of them as characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentValue {
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Members in order.
    Object(Vec<(String, Self)>),
}

impl Default for DocumentValue {
    /// An object without keys.
    fn default() -> Self {
        Self::Object(Vec::new())
    }
}

impl DocumentValue {
    /// The value as `serde_json::Value`, which compares objects whatever the order of their keys.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Object(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
        }
    }

    /// The member of an object; `None` for another key or value.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text; `None` for a list or an object.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Calls `each` with the path (`items.0.amount`) and the text of each leaf, in order.
    fn leaves(&self, path: String, each: &mut impl FnMut(String, &str)) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match self {
            Self::Text(text) => each(path, text),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.leaves(below(&index.to_string()), each);
                }
            }
            Self::Object(members) => {
                for (key, value) in members {
                    value.leaves(below(key), each);
                }
            }
        }
    }
}

impl Serialize for DocumentValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for DocumentValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Visits JSON of any kind.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = DocumentValue;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(value.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(Value::from(number).to_string()))
    }

    fn visit_unit<E>(self) -> std::result::Result<DocumentValue, E> {
        Ok(DocumentValue::Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<DocumentValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(DocumentValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<DocumentValue, A::Error> {
        let mut members: Vec<(String, DocumentValue)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, DocumentValue>()? {
            if members.iter().any(|(name, _)| *name == key) {
                return Err(serde::de::Error::custom(format!("the key `{key}` is there twice")));
            }
            members.push((key, value));
        }
        Ok(DocumentValue::Object(members))
    }
}

/// A text of a document with its place on the page.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentField {
    /// The path in the document's value: `total`, `items.0.amount`.
    pub key: String,
    /// The text of the value.
    pub value: String,
    /// For each character of `value`, the center in pixels (x, y) of the printed character that shows it;
    /// `None` for one that is not printed, as the hyphens of a date. Empty where places are not known.
    ///
    /// Digits stand at the printed digits of the same part of the number or date, a month at the middle of
    /// its printed name, and the letters of a currency at the middle of its printed symbol or code. Of a
    /// value that is printed more than once, this is the largest print.
    pub places: Vec<Option<[f32; 2]>>,
}

/// A printed word: characters without a space between them, or a number with spaces between its groups.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentWord {
    /// The characters.
    pub text: String,
    /// Left, top, right and bottom in pixels of the image: the smallest upright rectangle around the word.
    pub bounds: [f32; 4],
    /// The field that the word shows, if it shows one: the key of a [`DocumentField`]. A field that is left
    /// out of the target has a key here, too.
    pub field: Option<String>,
    /// The center (x, y) of each character of `text` in pixels of the image.
    pub characters: Vec<[f32; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_the_order_of_its_keys() {
        let text =
            r#"{"total":"9.50","menu":[{"nm":"Tea","cnt":2},{"cnt":1.5,"nm":"Cake"}],"a":null,"b":true}"#;
        let value: DocumentValue = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::to_string(&value).unwrap(),
            r#"{"total":"9.50","menu":[{"nm":"Tea","cnt":"2"},{"cnt":"1.5","nm":"Cake"}],"a":"","b":"true"}"#
        );
        assert_eq!(value.to_json()["menu"][1]["cnt"], "1.5");
        assert_eq!(value.get("total").and_then(DocumentValue::as_text), Some("9.50"));
        assert_eq!(DocumentValue::default().to_json(), serde_json::json!({}));
    }

    #[test]
    fn a_repeated_key_is_an_error() {
        let error = serde_json::from_str::<DocumentValue>(r#"{"a": "1", "a": "2"}"#).unwrap_err().to_string();
        assert!(error.starts_with("the key `a` is there twice"), "{error}");
    }

    #[test]
    fn fields_are_the_leaves_in_order() {
        let value = serde_json::from_str(r#"{"z": "1", "items": [{"b": "2", "a": "3"}, "4"]}"#).unwrap();
        let document = Document::new("test", value);
        let fields: Vec<String> =
            document.fields.iter().map(|field| format!("{}={}", field.key, field.value)).collect();
        assert_eq!(fields, ["z=1", "items.0.b=2", "items.0.a=3", "items.1=4"]);
    }
}
