//! The JSON forms of a file of captions.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON file of any form.
pub(super) enum File {
    Captions(Vec<Entry>),
    Coco { images: Vec<Image>, annotations: Vec<Entry> },
    Map(Vec<(String, OneOrMore)>),
}

#[derive(Deserialize)]
pub(super) struct Image {
    pub id: Id,
}

#[derive(Deserialize)]
pub(super) struct Entry {
    #[serde(alias = "key")]
    pub image_id: Id,
    pub caption: String,
}

/// An id, a number or a text.
pub(super) struct Id(pub String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Id;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an id, a whole number or a text")
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_owned()))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// A caption or a list of captions.
pub(super) struct OneOrMore(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = OneOrMore;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("a caption or a list of captions")
            }
            fn visit_str<E: de::Error>(self, caption: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![caption.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut captions = Vec::new();
                while let Some(caption) = list.next_element()? {
                    captions.push(caption);
                }
                Ok(OneOrMore(captions))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = File;
            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("captions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<File, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    entries.push(entry);
                }
                Ok(File::Captions(entries))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<File, A::Error> {
                read_map(map)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// Reads an object: COCO's if it has the key `annotations`, else a map from ids. The keys that COCO's files
/// have beside it can come first, and are recognized by their name and the kind of their value.
fn read_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<File, A::Error> {
    let mut images = Vec::new();
    let mut annotations = None;
    let mut captions = Vec::new();
    let mut others = Vec::new();
    while let Some(key) = map.next_key::<String>()? {
        match key.as_str() {
            "annotations" => annotations = Some(map.next_value()?),
            "images" => images = map.next_value()?,
            "info" | "licenses" | "type" | "categories" => {
                map.next_value::<de::IgnoredAny>()?;
                others.push(key);
            }
            _ => captions.push((key, map.next_value()?)),
        }
    }
    match annotations {
        Some(annotations) => Ok(File::Coco { images, annotations }),
        None if images.is_empty() && others.is_empty() => Ok(File::Map(captions)),
        None => Err(de::Error::missing_field("annotations")),
    }
}
