//! Ids of questions and images.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The id of a question or of an image. A text that is a whole number without leading zeros is that number,
/// so that `1` and `"1"` are the same question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// A whole number, as in VQA v2.
    Number(i64),
    /// Any other text, such as `00130286` in GQA.
    Text(Box<str>),
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| Self::Text(number.to_string().into()), Self::Number)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(to),
            Self::Text(text) => text.fmt(to),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Id;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an id, a whole number or a text")
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(id.into())
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id::Number(id))
            }
            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(id.into())
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_text_are_one_id_and_leading_zeros_stay() {
        let ids: Vec<Id> = serde_json::from_str(r#"[7, "7", "07", -7, "a", 18446744073709551615]"#).unwrap();
        assert_eq!(ids[0], ids[1]);
        assert_ne!(ids[0], ids[2]);
        let written = serde_json::to_string(&ids).unwrap();
        assert_eq!(written, r#"[7,7,"07",-7,"a","18446744073709551615"]"#);
        assert!(serde_json::from_str::<Id>("1.5").is_err());
    }
}
