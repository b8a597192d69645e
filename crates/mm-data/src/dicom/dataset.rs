//! The data set of a file (PS3.5 section 7): the few attributes that an image needs, as ranges of the file.
//!
//! The parser is not `dicom-object`'s: that one allocates whatever length an element declares, up to 4 GiB,
//! before it reads, and follows nested sequences to any depth. Here a value is a range of bytes that are
//! there, and nothing else is allocated.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use flate2::bufread::DeflateDecoder;
use mm_image::MAX_BYTES;

use super::tags::{self, Tag};
use super::transfer_syntax::TransferSyntax;
use super::undecodable;
use crate::Result;

/// The length of an element that ends with a delimiter.
const UNDEFINED: u32 = u32::MAX;
/// The limit on the depth of sequences. Real files have fewer than ten levels.
const MAX_DEPTH: usize = 32;
/// The limit on the items of all sequences of a file.
const MAX_ITEMS: usize = 1 << 20;

/// The kept attributes of a file.
#[derive(Debug)]
pub(super) struct DataSet<'a> {
    /// The file, or its decompressed data set: what the ranges refer to.
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) syntax: TransferSyntax,
    pub(super) root: Attributes,
}

/// The kept attributes of a data set or of an item of a sequence.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<(Tag, Element)>);

/// An attribute: its value, and its value representation where the file has it.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) vr: Option<[u8; 2]>,
    pub(super) value: Value,
}

/// The value of an attribute.
#[derive(Debug)]
pub(super) enum Value {
    Bytes(Range<usize>),
    /// The items of a sequence.
    Items(Vec<Attributes>),
    /// The fragments of compressed frames; the first is the basic offset table.
    Fragments(Vec<Range<usize>>),
}

impl Attributes {
    /// The attribute, if the data set has it.
    pub(super) fn get(&self, tag: Tag) -> Option<&Element> {
        self.0.iter().find(|(known, _)| *known == tag).map(|(_, element)| element)
    }

    /// The items of a sequence; none where it is missing.
    pub(super) fn items(&self, tag: Tag) -> &[Attributes] {
        match self.get(tag).map(|element| &element.value) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    fn set(&mut self, tag: Tag, element: Element) {
        match self.0.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, former)) => *former = element,
            None => self.0.push((tag, element)),
        }
    }
}

impl<'a> DataSet<'a> {
    /// Reads a file with or without its preamble and its file meta information.
    ///
    /// # Errors
    /// An element that is longer than the rest of the file, too many or too deeply nested items, a transfer
    /// syntax that is not supported.
    pub(super) fn read(file: &'a [u8]) -> Result<Self> {
        Self::parse(file, true)
    }

    /// As [`read`](Self::read), without the pixel data.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), up to the pixel data.
    pub(super) fn read_up_to_pixels(file: &'a [u8]) -> Result<Self> {
        Self::parse(file, false)
    }

    fn parse(file: &'a [u8], with_pixels: bool) -> Result<Self> {
        let start = if file.get(128..132) == Some(b"DICM") { 132 } else { 0 };
        let mut parser = Parser::new(file, start, TransferSyntax::EXPLICIT);
        let meta = parser.file_meta()?;
        let syntax = match meta.get(tags::TRANSFER_SYNTAX_UID).map(|element| &element.value) {
            Some(Value::Bytes(range)) => TransferSyntax::of(&trimmed(&file[range.clone()]))?,
            _ => guessed_syntax(&file[parser.at..]),
        };
        let (bytes, at) = if syntax.deflated {
            (Cow::Owned(inflated(&file[parser.at..])?), 0)
        } else {
            (Cow::Borrowed(file), parser.at)
        };
        let mut parser = Parser::new(&bytes, at, syntax);
        parser.with_pixels = with_pixels;
        let root = parser.elements(bytes.len(), 0)?;
        Ok(Self { bytes, syntax, root })
    }

    /// The bytes of an attribute of `attributes`; `None` where it is missing or a sequence.
    pub(super) fn bytes(&self, attributes: &Attributes, tag: Tag) -> Option<&[u8]> {
        match &attributes.get(tag)?.value {
            Value::Bytes(range) => self.bytes.get(range.clone()),
            _ => None,
        }
    }

    /// The text of an attribute without its padding; `None` where it is missing or empty.
    pub(super) fn text(&self, attributes: &Attributes, tag: Tag) -> Option<String> {
        self.bytes(attributes, tag).map(trimmed).filter(|text| !text.is_empty())
    }

    /// The numbers of an attribute that has them as text (DS and IS), separated by backslashes. An empty or
    /// invalid one is `None`.
    pub(super) fn numbers(&self, attributes: &Attributes, tag: Tag) -> Vec<Option<f64>> {
        let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| number.is_finite());
        self.text(attributes, tag).map_or(Vec::new(), |text| text.split('\\').map(number).collect())
    }

    /// The 16-bit integers of an attribute (US, SS, OW), without sign.
    pub(super) fn words(&self, attributes: &Attributes, tag: Tag) -> Option<Vec<u16>> {
        let bytes = self.bytes(attributes, tag)?;
        let word = if self.syntax.big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
        Some(bytes.as_chunks().0.iter().map(|pair| word(*pair)).collect())
    }
}

/// Text without the padding at its ends: spaces, and the zero that makes a UID's length even.
fn trimmed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches(|character: char| character == '\0' || character.is_whitespace()).to_owned()
}

/// The transfer syntax of a data set without file meta information, detected from its first element.
fn guessed_syntax(data_set: &[u8]) -> TransferSyntax {
    match data_set {
        // The group is at most a byte in the file's order.
        [0, _, _, _, a, b, ..] if is_vr([*a, *b]) => {
            TransferSyntax { big_endian: true, ..TransferSyntax::EXPLICIT }
        }
        [_, _, _, _, a, b, ..] if is_vr([*a, *b]) => TransferSyntax::EXPLICIT,
        _ => TransferSyntax::IMPLICIT,
    }
}

fn is_vr(bytes: [u8; 2]) -> bool {
    bytes.iter().all(u8::is_ascii_uppercase)
}

/// Whether the value representation has a length of 32 bits, after two reserved bytes.
fn has_long_length(vr: [u8; 2]) -> bool {
    let long = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
    long.contains(&&vr)
}

fn inflated(compressed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = DeflateDecoder::new(compressed).take(MAX_BYTES as u64 + 1);
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|error| undecodable(format!("the deflated data set is corrupt: {error}")))?;
    if bytes.len() > MAX_BYTES {
        return Err(undecodable(format!("the deflated data set has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The header of an element.
struct Header {
    tag: Tag,
    vr: Option<[u8; 2]>,
    length: u32,
}

struct Parser<'b> {
    bytes: &'b [u8],
    at: usize,
    syntax: TransferSyntax,
    items: usize,
    with_pixels: bool,
}

impl<'b> Parser<'b> {
    fn new(bytes: &'b [u8], at: usize, syntax: TransferSyntax) -> Self {
        Self { bytes, at, syntax, items: 0, with_pixels: true }
    }

    /// The elements of group 2, wherever its length element says that they end.
    fn file_meta(&mut self) -> Result<Attributes> {
        let mut meta = Attributes::default();
        while self.bytes[self.at..].starts_with(&[2, 0]) {
            let header = self.header()?;
            let value = self.value(&header, self.bytes.len(), 0)?;
            if tags::is_kept(header.tag) {
                meta.set(header.tag, Element { vr: header.vr, value });
            }
        }
        Ok(meta)
    }

    /// The elements up to `end`, up to the delimiter of their item, or up to the pixel data.
    fn elements(&mut self, end: usize, depth: usize) -> Result<Attributes> {
        let mut elements = Attributes::default();
        while self.at + 8 <= end {
            let header = self.header()?;
            if matches!(header.tag, tags::ITEM_END | tags::SEQUENCE_END) {
                return Ok(elements);
            }
            let is_pixels = header.tag == tags::PIXEL_DATA && depth == 0;
            if is_pixels && !self.with_pixels {
                return Ok(elements);
            }
            let value = self.value(&header, end, depth)?;
            if tags::is_kept(header.tag) {
                elements.set(header.tag, Element { vr: header.vr, value });
            }
            if is_pixels {
                return Ok(elements); // only padding and signatures follow
            }
        }
        self.at = end.max(self.at);
        Ok(elements)
    }

    fn header(&mut self) -> Result<Header> {
        let at = self.at;
        let tag = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let letters = self.bytes.get(self.at..self.at + 2).map(|pair| [pair[0], pair[1]]);
        let vr = letters.filter(|pair| self.syntax.explicit_vr && tag >> 16 != 0xfffe && is_vr(*pair));
        let length = match vr {
            Some(vr) => {
                self.at += 2;
                if has_long_length(vr) {
                    self.at += 2;
                    self.u32()?
                } else {
                    u32::from(self.u16()?)
                }
            }
            // Delimiters have no value representation, and some writers switch to implicit ones.
            None => self.u32()?,
        };
        debug_assert!(self.at > at);
        Ok(Header { tag, vr, length })
    }

    fn value(&mut self, header: &Header, end: usize, depth: usize) -> Result<Value> {
        let start = self.at;
        if header.length == UNDEFINED {
            if header.tag == tags::PIXEL_DATA && depth == 0 {
                return self.fragments();
            }
            return self.sequence(header, end, depth);
        }
        let length = header.length as usize;
        let left = end.saturating_sub(start);
        if length > left {
            // What is there of the pixel data is checked against the size of its frames.
            if matches!(header.tag, tags::PIXEL_DATA) {
                return Ok(Value::Bytes(start..start + left));
            }
            return Err(undecodable(format!(
                "element {} at byte {start} declares {length} bytes, but {left} are left: the file is \
                 truncated or damaged",
                named(header.tag)
            )));
        }
        if tags::is_kept_sequence(header.tag) {
            return self.sequence(header, start + length, depth);
        }
        self.at = start + length;
        Ok(Value::Bytes(start..self.at))
    }

    /// The items of a sequence that ends at `end` or with a delimiter.
    fn sequence(&mut self, header: &Header, end: usize, depth: usize) -> Result<Value> {
        if depth >= MAX_DEPTH {
            return Err(undecodable(format!("sequences are nested more than {MAX_DEPTH} deep")));
        }
        // The items of a sequence of unknown representation are implicit little endian (PS3.5 section 6.2.2).
        let outer = self.syntax;
        if header.vr == Some(*b"UN") {
            self.syntax = TransferSyntax::IMPLICIT;
        }
        let mut items = Vec::new();
        while self.at + 8 <= end {
            let item = self.header()?;
            if item.tag == tags::SEQUENCE_END {
                break;
            }
            if item.tag != tags::ITEM {
                return Err(undecodable(format!(
                    "the sequence {} has {} at byte {} in place of an item",
                    named(header.tag),
                    named(item.tag),
                    self.at
                )));
            }
            self.items += 1;
            if self.items > MAX_ITEMS {
                return Err(undecodable(format!("the sequences have more than {MAX_ITEMS} items")));
            }
            let item_end = match item.length {
                UNDEFINED => end,
                length => end.min(self.at.saturating_add(length as usize)),
            };
            let attributes = self.elements(item_end, depth + 1)?;
            if tags::is_kept_sequence(header.tag) {
                items.push(attributes);
            }
        }
        self.syntax = outer;
        Ok(Value::Items(items))
    }

    /// The fragments of encapsulated pixel data (PS3.5 section A.4). The data may end without a delimiter.
    fn fragments(&mut self) -> Result<Value> {
        let mut fragments = Vec::new();
        while self.at + 8 <= self.bytes.len() {
            let item = self.header()?;
            if item.tag == tags::SEQUENCE_END {
                break;
            }
            let left = self.bytes.len() - self.at;
            if item.tag != tags::ITEM || item.length as usize > left {
                return Err(undecodable(format!(
                    "fragment {} of the pixel data, at byte {}, is {} of {} bytes, and {left} are left: the \
                    file is truncated or damaged",
                    fragments.len(),
                    self.at,
                    named(item.tag),
                    item.length
                )));
            }
            fragments.push(self.at..self.at + item.length as usize);
            self.at += item.length as usize;
        }
        Ok(Value::Fragments(fragments))
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take::<2>()?;
        Ok(if self.syntax.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take::<4>()?;
        Ok(if self.syntax.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        let bytes = *bytes.ok_or_else(|| {
            undecodable(format!("the file ends inside an element, at byte {}: it is truncated", self.at))
        })?;
        self.at += N;
        Ok(bytes)
    }
}

/// A tag as DICOM writes it: `(0028,0010)`.
pub(super) fn named(tag: Tag) -> String {
    format!("({:04x},{:04x})", tag >> 16, tag & 0xffff)
}
