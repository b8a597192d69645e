//! From the members of a tar to a sample and back: `KEY.jpg`, `KEY.txt`, `KEY.json`, `KEY.cls`.

use std::io::Read;

use serde::Serialize;
use serde_json::Value;
use tar::{Archive, Entry, EntryType};

use super::groups::{Group, Groups, Name};
use crate::readers::broken::shortened;
use mm_image::IMAGE_EXTENSIONS;

use crate::{Error, Fault, Question, Result, Sample, SampleImage, json, text};

/// A sample of more bytes than this is refused.
pub(super) const MAX_SAMPLE_BYTES: u64 = 1 << 28;

/// The fields that may say something of an image.
pub(super) const TEXTS: [&str; 3] = ["txt", "json", "cls"];

/// One file of a sample: what stands behind the key's dot, and its bytes.
pub(crate) struct Member {
    pub extension: String,
    pub bytes: Vec<u8>,
}

/// The name of what stands in a tar, if it is a file of a sample: no folder or link, and with both key and
/// extension.
pub(super) fn of_sample(entry: &Entry<impl Read>) -> Option<Name> {
    let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
    is_file.then(|| Name::parse(&entry.path_bytes())).flatten()
}

/// The members in the bytes of one sample, as they stand in the tar from byte `start` on.
///
/// Errors: a field that repeats, bytes that are no tar.
pub(super) fn members(bytes: &[u8], start: u64) -> Result<Vec<Member>> {
    let broken =
        |reason: String| Error::bad(Fault::Shard, format!("no tar where the index says one is: {reason}"));
    let unreadable = |error: std::io::Error| broken(error.to_string());
    let mut groups = Groups::default();
    let mut end = start;
    for entry in Archive::new(bytes).entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let begin = end;
        end = start.saturating_add(padded_end(&entry));
        let Some(name) = of_sample(&entry) else { continue };
        let field = name.field();
        if groups.begin(&name, &field, begin).next().is_some() {
            return Err(broken("members of several samples".into()));
        }
        let mut content = Vec::with_capacity(entry.size().min(bytes.len() as u64) as usize);
        entry.read_to_end(&mut content).map_err(unreadable)?;
        groups.add(name, field, begin..end, content);
    }
    match groups.finish().next() {
        Some(group) => of_group(group),
        None => Err(broken("no member".into())),
    }
}

/// The first byte behind a member, of an archive that was read from its beginning.
pub(super) fn padded_end(entry: &Entry<impl Read>) -> u64 {
    entry.raw_file_position().saturating_add(entry.size().div_ceil(512).saturating_mul(512))
}

/// Errors: a field that repeats.
pub(super) fn of_group(group: Group<Vec<u8>>) -> Result<Vec<Member>> {
    match group.repeated {
        Some(reason) => Err(Error::bad(Fault::Repeated, reason)),
        None => Ok(group
            .members
            .into_iter()
            .map(|(extension, placed)| Member { extension, bytes: placed.content })
            .collect()),
    }
}

/// The error of a sample that lacks a member, where its key also stands elsewhere in the tar, at byte
/// `other`.
pub(super) fn apart(error: Error, other: Option<u64>) -> Error {
    match (error.fault(), other) {
        (fault @ (Fault::NoImage | Fault::NoCaption), Some(other)) => Error::bad(
            fault,
            format!(
                "{error}; members of its key also lie apart, at byte {other}: write the tar with its files sorted by name"
            ),
        ),
        _ => error,
    }
}

/// The sample of these members. `txt` is the canonical caption; those of `json` follow. What is wrong with a
/// `json` that is not needed is the sample's warning.
///
/// Errors: no image, neither caption, label nor question, a `txt` or `cls` that is no text.
pub(super) fn sample(key: &str, members: Vec<Member>, caption_field: &str) -> Result<Sample> {
    let (mut image, mut captions, mut label, mut said) = (None, Vec::new(), None, Said::default());
    let names =
        members.iter().map(|member| format!("`.{}`", member.extension)).collect::<Vec<_>>().join(", ");
    for Member { extension, bytes } in members {
        let text = |bytes| {
            let not_text = |not_text| Error::bad(Fault::Text, format!("its .{extension}: {not_text}"));
            text::decode(bytes).map(|text| text.trim().to_owned()).map_err(not_text)
        };
        match extension.as_str() {
            "txt" => captions.extend(Some(text(bytes)?).filter(|text| !text.is_empty())),
            "cls" => label = Some(text(bytes)?),
            "json" => said = Said::read(bytes, caption_field),
            _ => {
                let rank = |extension: &str| IMAGE_EXTENSIONS.iter().position(|known| *known == extension);
                let better = |(there, _): &(usize, _)| rank(&extension).is_some_and(|new| new < *there);
                if image.as_ref().is_none_or(better) {
                    image = rank(&extension).map(|rank| (rank, bytes)).or(image);
                }
            }
        }
    }
    let none =
        || Error::bad(Fault::NoImage, format!("no image (jpg, png, webp, ...) among its members {names}"));
    let (_, image) = image.ok_or_else(none)?;
    let Said { captions: others, label: other_label, questions, variant_of, problem } = said;
    for caption in others {
        if !caption.trim().is_empty() && !captions.contains(&caption) {
            captions.push(caption);
        }
    }
    let label = label.or(other_label);
    if captions.is_empty() && label.is_none() && questions.is_empty() {
        return Err(problem.map_or_else(
            || {
                Error::bad(
                    Fault::NoCaption,
                    format!("no caption, label or question among its members {names}"),
                )
            },
            |problem| Error::bad(Fault::Json, problem),
        ));
    }
    let image = SampleImage::Memory(image);
    Ok(Sample { captions, label, questions, variant_of, warning: problem, ..Sample::new(key, image) })
}

/// What a `.json` member says of its sample.
#[derive(Default)]
struct Said {
    /// Those under the config's name first, then those of `captions`.
    captions: Vec<String>,
    label: Option<String>,
    questions: Vec<Question>,
    variant_of: Option<String>,
    /// What of it, or that all of it, cannot be read.
    problem: Option<String>,
}

impl Said {
    /// Reads what can be read. Others write other things under the same names: each is taken for itself.
    fn read(bytes: Vec<u8>, caption_field: &str) -> Self {
        let parsed = text::decode(bytes).map_err(|not_text| not_text.to_string());
        let parsed = parsed.and_then(|text| json::parse::<Value>(&text).map_err(|error| error.to_string()));
        let object = parsed.and_then(|value| match value {
            Value::Object(object) => Ok(object),
            other => Err(format!("{}, not an object", kind(&other))),
        });
        let mut object = match object {
            Ok(object) => object,
            Err(reason) => {
                return Self { problem: Some(shortened(format!("its .json: {reason}"))), ..Self::default() };
            }
        };
        let mut problems = Vec::new();
        let mut take = |name: &str| object.remove(name).unwrap_or_default();
        let mut captions = Vec::new();
        for name in [caption_field, "captions"] {
            match take(name) {
                Value::Null => {}
                Value::String(text) => captions.push(text),
                Value::Array(list) => {
                    for value in list {
                        match value {
                            Value::String(text) => captions.push(text),
                            Value::Null => {}
                            other => problems.push(format!("`{name}` has {} among its texts", kind(&other))),
                        }
                    }
                }
                other => {
                    problems.push(format!("`{name}` is {}, not a text or a list of texts", kind(&other)))
                }
            }
        }
        let label = match take("label") {
            Value::Null => None,
            Value::String(label) => Some(label),
            Value::Number(label) => Some(label.to_string()),
            Value::Bool(label) => Some(label.to_string()),
            other => {
                problems.push(format!("`label` is {}, not a text or a number", kind(&other)));
                None
            }
        };
        let questions = match take("questions") {
            Value::Null => Vec::new(),
            value => serde_json::from_value(value).unwrap_or_else(|error| {
                problems.push(format!("`questions` are not of the form that mm writes: {error}"));
                Vec::new()
            }),
        };
        let variant_of = match take("variant_of") {
            Value::Null => None,
            Value::String(key) => Some(key),
            other => {
                problems.push(format!("`variant_of` is {}, not a key", kind(&other)));
                None
            }
        };
        problems.dedup();
        let problem =
            (!problems.is_empty()).then(|| shortened(format!("its .json: {}", problems.join("; "))));
        Self { captions, label, questions, variant_of, problem }
    }
}

/// What a value is, for a message: the value itself may be long.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    variant_of: &'a Option<String>,
    key: &'a str,
}

/// The members that [`sample`] reads as this sample again, with `image`, its encoded bytes, of the kind
/// `extension`. The key that it had stands in `.json`; `.cls` is written of labels that are whole numbers,
/// since the Python library reads it as one.
///
/// Errors: neither caption, label nor question.
pub(crate) fn members_of(sample: &Sample, extension: &str, image: Vec<u8>) -> Result<Vec<Member>> {
    let Sample { key, captions, label, questions, variant_of, .. } = sample;
    let mut trimmed: Vec<String> = Vec::with_capacity(captions.len());
    for caption in captions.iter().map(|caption| caption.trim()).filter(|caption| !caption.is_empty()) {
        if !trimmed.iter().any(|known| known == caption) {
            trimmed.push(caption.to_owned());
        }
    }
    if trimmed.is_empty() && label.is_none() && questions.is_empty() {
        return Err(Error::bad(Fault::NoCaption, "no caption, label or question"));
    }
    let member = |extension: &str, bytes: Vec<u8>| Member { extension: extension.to_owned(), bytes };
    let mut members = vec![member(extension, image)];
    members.extend(trimmed.first().map(|canonical| member("txt", canonical.clone().into_bytes())));
    let number = label.as_ref().filter(|label| label.parse::<i64>().is_ok());
    members.extend(number.map(|label| member("cls", label.clone().into_bytes())));
    let written = Written { captions: &trimmed, label, questions, variant_of, key };
    let json = serde_json::to_vec(&written).map_err(|error| Error::bad(Fault::Json, error.to_string()))?;
    members.push(member("json", json));
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(members: &[(&str, &[u8])]) -> Result<Sample> {
        let member =
            |&(extension, bytes): &(&str, &[u8])| Member { extension: extension.into(), bytes: bytes.into() };
        sample("a", members.iter().map(member).collect(), "caption")
    }

    fn fault(members: &[(&str, &[u8])]) -> Fault {
        of(members).unwrap_err().fault()
    }

    #[test]
    fn captions_of_txt_come_first_and_those_of_json_follow() {
        let json =
            br#"{"caption": "two", "captions": ["one", "three"], "label": 7, "width": 5, "url": null}"#;
        let sample =
            of(&[("json", json), ("png", b"P"), ("txt", b" one\n"), ("jpg", b"J"), ("seg.png", b"S")])
                .unwrap();
        assert_eq!((sample.captions.join("|"), sample.label.as_deref()), ("one|two|three".into(), Some("7")));
        assert_eq!(&*sample.image.bytes().unwrap(), b"J");
        for extension in ["jfif", "jpe", "tif", "bmp"] {
            assert_eq!(&*of(&[(extension, b"I"), ("txt", b"one")]).unwrap().image.bytes().unwrap(), b"I");
        }
        assert_eq!(of(&[("png", b"P"), ("cls", b"cat\n")]).unwrap().label.as_deref(), Some("cat"));
    }

    #[test]
    fn what_is_written_of_a_sample_reads_back_as_it() {
        let question = Question {
            id: 7,
            text: "how many?".into(),
            answers: vec!["2".into()],
            kind: Some("count".into()),
        };
        for label in [None, Some("animals & nature".to_owned()), Some("7".to_owned())] {
            let written = Sample {
                captions: vec!["two".into(), "\u{e9} \"three\"".into()],
                label,
                questions: vec![question.clone()],
                variant_of: Some("other".into()),
                ..Sample::new("path/a.b.png", SampleImage::Memory(b"P".to_vec()))
            };
            let members = members_of(&written, "png", b"P".to_vec()).unwrap();
            let extensions: Vec<&str> = members.iter().map(|member| member.extension.as_str()).collect();
            assert_eq!(extensions.contains(&"cls"), written.label.as_deref() == Some("7"));
            let read = sample("0", members, "caption").unwrap();
            assert_eq!((&read.captions, &read.label), (&written.captions, &written.label));
            assert_eq!((&read.questions, &read.variant_of), (&written.questions, &written.variant_of));
            assert_eq!(&*read.image.bytes().unwrap(), b"P");
        }
        let bare = Sample { captions: vec![" ".into()], ..Sample::new("a", SampleImage::Static(b"P")) };
        assert_eq!(members_of(&bare, "png", Vec::new()).err().unwrap().fault(), Fault::NoCaption);
    }

    #[test]
    fn what_is_missing_or_lies_is_told_by_kind() {
        let image: (&str, &[u8]) = ("jpg", b"J");
        assert_eq!(fault(&[("txt", b"one")]), Fault::NoImage);
        assert_eq!(fault(&[image]), Fault::NoCaption);
        assert_eq!(fault(&[image, ("txt", b" \n")]), Fault::NoCaption);
        assert_eq!(fault(&[image, ("txt", b"\xff")]), Fault::Text);
        assert_eq!(fault(&[image, ("cls", b"\xff\xfea")]), Fault::Text);
        assert_eq!(fault(&[image, ("json", b"{}")]), Fault::NoCaption);
        for json in [
            &b"{"[..],
            b"[1]",
            br#"{"caption": 5}"#,
            br#"{"label": []}"#,
            br#"{"questions": ["why?"]}"#,
            b"{\"a\": \"\xe9\"}",
        ] {
            assert_eq!(fault(&[image, ("json", json)]), Fault::Json, "{}", String::from_utf8_lossy(json));
        }
    }

    #[test]
    fn a_json_that_python_wrote_is_read() {
        let json = br#"{"caption": ["one", null], "captions": null, "label": true, "score": NaN, "limit": -Infinity, "x": "\ud83d"}"#;
        let sample = of(&[("jpg", b"J"), ("json", json)]).unwrap();
        assert_eq!((&sample.captions[..], sample.label.as_deref()), (&["one".to_owned()][..], Some("true")));
        assert_eq!(sample.warning, None);
        let sample = of(&[("jpg", b"J"), ("json", b"\xef\xbb\xbf{\"captions\": \"one\"}")]).unwrap();
        assert_eq!((&sample.captions[..], sample.warning), (&["one".to_owned()][..], None));
    }

    #[test]
    fn a_json_that_nobody_needs_is_passed_over_and_said_so() {
        let said = |json: &[u8]| {
            let sample = of(&[("jpg", b"J"), ("txt", b"\xef\xbb\xbfone\r\n"), ("json", json)]).unwrap();
            assert_eq!(sample.captions[0], "one");
            let of_label = of(&[("jpg", b"J"), ("cls", b"\xef\xbb\xbf7"), ("json", json)]).unwrap();
            assert_eq!((of_label.label.as_deref(), &of_label.warning), (Some("7"), &sample.warning));
            sample.warning.unwrap()
        };
        assert_eq!(said(b"[{\"caption\": \"two\"}]"), "its .json: a list, not an object");
        assert_eq!(said(b"{\"caf\xe9\": 1}"), "its .json: column 6: not UTF-8 text: convert it with iconv");
        assert!(said(b"{'caption': 'two'}").starts_with("its .json: key must be a string"));
        assert_eq!(
            said(br#"{"caption": 5.5}"#),
            "its .json: `caption` is 5.5, not a text or a list of texts"
        );
        assert_eq!(
            said(br#"{"captions": [1, {}, "two"], "label": {"a": 1}}"#),
            "its .json: `captions` has 1 among its texts; `captions` has an object among its texts; `label` is an object, not a text or a number"
        );
        assert!(
            said(br#"{"questions": [{"question": "why?", "answer": "so"}]}"#)
                .contains("not of the form that mm writes")
        );
        assert!(said(br#"{"variant_of": 5}"#).ends_with("`variant_of` is 5, not a key"));
        // What can be read of it is read.
        let json = br#"{"caption": "two", "label": 3, "questions": "none"}"#;
        let sample = of(&[("jpg", b"J"), ("json", json)]).unwrap();
        assert_eq!(
            (&*sample.captions[0], sample.label.as_deref(), sample.warning.is_some()),
            ("two", Some("3"), true)
        );
    }
}
