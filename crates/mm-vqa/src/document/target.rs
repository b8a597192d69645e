//! What is learned of a sample: the tokens of its fields, and where on the page each is printed.

use super::tokens::{SEPARATOR, tag};
use crate::{Error, Result};
use mm_data::{Document, DocumentField, DocumentValue};
use mm_text::Tokenizer;
use mm_text::decoder::CaptionTokens;
use std::collections::{BTreeMap, BTreeSet};

/// A place on a page, in pixels from its top left corner: x and y.
pub(crate) type Place = [f32; 2];

/// The tokens of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DocumentTarget {
    /// The prompt, the fields, the end token.
    pub tokens: CaptionTokens,
    /// The place of each token that is printed on the page.
    pub places: Vec<Option<Place>>,
}

/// A piece of a document's token sequence.
enum Piece<'a> {
    /// A token of the form: a tag or a separator.
    Tag(String),
    /// The value of the field at this path, `items.0.price`.
    Text { path: String, text: &'a str },
}

/// Encodes documents of one schema.
#[derive(Clone, Debug)]
pub(crate) struct TargetEncoder<'a> {
    pub tokenizer: &'a Tokenizer,
    /// The token that texts begin with.
    pub prompt: u32,
    /// The token that texts end with.
    pub end: u32,
}

impl TargetEncoder<'_> {
    /// The target of `document`.
    ///
    /// # Errors
    /// A tag is no token, or a character cannot be encoded.
    pub fn encode(&self, document: &Document) -> Result<DocumentTarget> {
        let mut pieces = Vec::new();
        collect(&document.value, String::new(), &mut pieces);
        let fields: BTreeMap<&str, &DocumentField> =
            document.fields.iter().map(|field| (field.key.as_str(), field)).collect();
        let mut token_ids = vec![self.prompt];
        let mut places = vec![None];
        for piece in pieces {
            match piece {
                Piece::Tag(tag) => {
                    let missing = || Error::Model(format!("the tokenizer has no token {tag}"));
                    token_ids.push(self.tokenizer.token_id(&tag).ok_or_else(missing)?);
                    places.push(None);
                }
                Piece::Text { path, text } => {
                    let ids = encode_text(self.tokenizer, text)
                        .map_err(|problem| Error::Model(format!("the field {path}: {problem}")))?;
                    // Known where each token is one character.
                    let of_field = fields.get(path.as_str()).map(|field| &field.places);
                    let aligned = of_field.filter(|places| places.len() == ids.len());
                    places.extend((0..ids.len()).map(|index| aligned.and_then(|places| places[index])));
                    token_ids.extend(ids);
                }
            }
        }
        token_ids.push(self.end);
        places.push(None);
        Ok(DocumentTarget { tokens: CaptionTokens { token_ids, prompt_length: 1 }, places })
    }
}

/// The tokens of `text`, all of whose characters the tokenizer has.
fn encode_text(tokenizer: &Tokenizer, text: &str) -> std::result::Result<Vec<u32>, String> {
    let ids = tokenizer.encode_words(text).map_err(|error| error.to_string())?;
    if !ids.contains(&tokenizer.unknown_id().unwrap_or(u32::MAX)) {
        return Ok(ids);
    }
    let is_unknown = |character: &char| {
        let ids = tokenizer.encode_words(&character.to_string()).unwrap_or_default();
        ids.iter().any(|&id| Some(id) == tokenizer.unknown_id())
    };
    let mut unknown: Vec<char> = text.chars().filter(is_unknown).collect();
    unknown.dedup();
    Err(format!("the tokenizer cannot encode {unknown:?} of {text:?}: add these characters to it"))
}

/// The pieces of `value`, whose path is `path`, in the order of Donut's `json2token`: the members of an
/// object each between its tags, the items of a list with `<sep/>` between them.
fn collect<'a>(value: &'a DocumentValue, path: String, pieces: &mut Vec<Piece<'a>>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        DocumentValue::Object(members) => {
            for (key, value) in members {
                pieces.push(Piece::Tag(tag(key, false)));
                collect(value, below(key), pieces);
                pieces.push(Piece::Tag(tag(key, true)));
            }
        }
        DocumentValue::List(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pieces.push(Piece::Tag(SEPARATOR.to_owned()));
                }
                collect(item, below(&index.to_string()), pieces);
            }
        }
        DocumentValue::Text(text) => pieces.push(Piece::Text { path, text }),
    }
}

/// The characters and tags of documents, for a new tokenizer.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    pub characters: BTreeSet<char>,
    pub tags: BTreeSet<String>,
}

impl Vocabulary {
    /// Adds what `document` has: its fields, and what is printed on the page.
    pub fn add(&mut self, document: &Document) {
        let mut pieces = Vec::new();
        collect(&document.value, String::new(), &mut pieces);
        for piece in pieces {
            match piece {
                Piece::Tag(tag) => {
                    self.tags.insert(tag);
                }
                Piece::Text { text, .. } => self.characters.extend(text.chars()),
            }
        }
        self.characters.extend(document.words.iter().flat_map(|word| word.text.chars()));
    }
}
