//! Multipart forms as the fields of a request.

use crate::api_error::{ApiError, ApiResult};
use crate::body::from_fields;
use axum::body::Bytes;
use axum::extract::Multipart;
use axum::extract::multipart::MultipartError;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::collections::BTreeMap;
use std::fmt;

/// Parts of a form: beyond it lies an attack.
const MAX_PARTS: usize = 8192;

/// The fields of a form. Parts of one name are the elements of a list; a single part is a list of one where a
/// list is expected. Texts become numbers and truth values where these are expected.
#[derive(Debug)]
pub struct Form(BTreeMap<String, Vec<Part>>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    File(Bytes),
}

/// An error of a field's value.
#[derive(Debug)]
pub struct FieldError(String);

impl Form {
    /// Reads the parts. A part is a file where it has a file name, has another content type than text, or is
    /// not UTF-8.
    ///
    /// # Errors
    /// 400: the form is malformed.
    pub async fn read(mut parts: Multipart) -> ApiResult<Self> {
        let wrong = |error: MultipartError| ApiError::invalid("body", error.body_text());
        let (mut fields, mut count) = (BTreeMap::<String, Vec<Part>>::new(), 0);
        while let Some(part) = parts.next_field().await.map_err(wrong)? {
            count += 1;
            let name = part.name().unwrap_or_default().to_owned();
            if name.is_empty() || count > MAX_PARTS {
                let message = format!("a part of the form has no name, or there are more than {MAX_PARTS}");
                return Err(ApiError::invalid("body", message));
            }
            let is_text = part.content_type().is_none_or(|kind| kind.starts_with("text/"));
            let is_file = part.file_name().is_some() || !is_text;
            let bytes = part.bytes().await.map_err(wrong)?;
            let part = if is_file {
                Part::File(bytes)
            } else {
                let text = String::from_utf8(bytes.into());
                text.map_or_else(|error| Part::File(error.into_bytes().into()), Part::Text)
            };
            fields.entry(name).or_default().push(part);
        }
        Ok(Self(fields))
    }

    /// The fields as a `T`.
    ///
    /// # Errors
    /// 400: a field is missing, unknown or ill-typed.
    pub fn parse<T: DeserializeOwned>(self) -> ApiResult<T> {
        let fields = self.0.into_iter().map(|(name, parts)| (name, Field(parts)));
        from_fields(MapDeserializer::<_, FieldError>::new(fields))
    }
}

/// The parts of one name, at least one.
struct Field(Vec<Part>);

impl Field {
    /// The only part, as a text.
    fn text(mut self) -> Result<String, FieldError> {
        match (self.0.pop(), self.0.is_empty()) {
            (Some(Part::Text(text)), true) => Ok(text),
            (Some(Part::File(_)), true) => Err(FieldError::custom("it is a file: send a text")),
            _ => Err(FieldError::custom("it is given several times")),
        }
    }

    fn parse<T: std::str::FromStr<Err: fmt::Display>>(self) -> Result<T, FieldError> {
        let text = self.text()?;
        text.trim().parse().map_err(|error| FieldError(format!("{text:?}: {error}")))
    }
}

impl IntoDeserializer<'_, FieldError> for Field {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Field {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FieldError> {
        match (self.0.pop(), self.0.is_empty()) {
            (Some(Part::Text(text)), true) => visitor.visit_string(text),
            (Some(Part::File(bytes)), true) => visitor.visit_byte_buf(bytes.into()),
            (last, _) => {
                self.0.extend(last);
                self.deserialize_seq(visitor)
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_seq(SeqDeserializer::new(self.0.into_iter().map(|part| Self(vec![part]))))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_bool(self.parse()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_u64(self.parse()?)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_i64(self.parse()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_f64(self.parse()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    // The requests have no numbers of other widths.
    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct map struct identifier ignored_any
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for FieldError {}

impl serde::de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        name: String,
        labels: Vec<String>,
        count: Option<u64>,
        scale: Option<f64>,
        stream: Option<bool>,
    }

    fn parse(fields: &[(&str, &str)]) -> ApiResult<Fields> {
        let mut form = BTreeMap::<String, Vec<Part>>::new();
        for (name, text) in fields {
            form.entry((*name).to_owned()).or_default().push(Part::Text((*text).to_owned()));
        }
        Form(form).parse()
    }

    #[test]
    fn parts_become_the_types_that_are_expected() {
        let fields = [("name", "a"), ("labels", "x"), ("labels", "7"), ("count", "7"), ("stream", "true")];
        let expected = Fields {
            name: "a".to_owned(),
            labels: vec!["x".to_owned(), "7".to_owned()],
            count: Some(7),
            scale: None,
            stream: Some(true),
        };
        assert_eq!(parse(&fields).unwrap(), expected);
        assert_eq!(parse(&[("name", "a"), ("labels", "x"), ("scale", " 1.5")]).unwrap().scale, Some(1.5));
    }

    #[test]
    fn a_wrong_part_is_named() {
        let message = |fields: &[(&str, &str)]| parse(fields).unwrap_err().body()["error"].to_string();
        let with = |name: &'static str, text| message(&[("name", "a"), ("labels", "x"), (name, text)]);
        assert!(with("count", "-1").contains("\"param\":\"count\""));
        assert!(with("scale", "big").contains("`scale`: \\\"big\\\": invalid float literal"));
        assert!(with("name", "b").contains("invalid type: sequence, expected a string"));
        assert!(
            message(&[("name", "a"), ("labels", "x"), ("count", "1"), ("count", "2")])
                .contains("several times")
        );
        assert!(with("nam", "b").contains("unknown field `nam`"));
        assert!(message(&[("name", "a")]).contains("missing field `labels`"));
    }
}
