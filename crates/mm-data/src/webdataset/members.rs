//! From the members of a tar to a sample and back: `KEY.jpg`, `KEY.txt`, `KEY.json`, `KEY.cls`.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tar::{Archive, Entry, EntryType};

use crate::{Error, Fault, Question, Result, Sample, SampleImage};

/// A sample of more bytes than this is refused.
pub(super) const MAX_SAMPLE_BYTES: u64 = 1 << 28;

/// The kinds of image that are looked for, the first of them taken.
const IMAGES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];

/// One file of a sample: what stands behind the key's dot, and its bytes.
pub(crate) struct Member {
    pub extension: String,
    pub bytes: Vec<u8>,
}

/// Key and extension of a member's name, as the webdataset library parts them: at the first dot of the last part.
pub(super) fn key_and_extension(name: &[u8]) -> Option<(String, String)> {
    let name = String::from_utf8_lossy(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
    Some((name[..dot].to_owned(), name[dot + 1..].to_lowercase()))
}

/// Key and extension of what stands in a tar, if it is a file of a sample: no folder or link, and with a name that has both.
pub(super) fn of_sample(entry: &Entry<impl Read>) -> Option<(String, String)> {
    let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
    is_file.then(|| key_and_extension(&entry.path_bytes())).flatten()
}

/// The members in the bytes of one sample, as they stand in the tar.
pub(super) fn members(bytes: &[u8]) -> Result<Vec<Member>> {
    let broken =
        |error: std::io::Error| Error::bad(Fault::Shard, format!("no tar where the index says one is: {error}"));
    let mut members = Vec::new();
    for entry in Archive::new(bytes).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let Some((_, extension)) = of_sample(&entry) else { continue };
        let mut bytes = Vec::with_capacity(entry.size().min(bytes.len() as u64) as usize);
        entry.read_to_end(&mut bytes).map_err(broken)?;
        members.push(Member { extension, bytes });
    }
    Ok(members)
}

/// What a `.json` member may say of its sample, beside the caption under a name of the config's choice.
#[derive(Serialize, Deserialize, Default)]
struct Said {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    captions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    questions: Vec<Question>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant_of: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// The sample of these members. `txt` is the canonical caption; those of `json` follow.
///
/// Errors: no image, neither caption, label nor question, text that is not UTF-8, JSON that is none or holds another type.
pub(super) fn sample(key: &str, members: Vec<Member>, caption_field: &str) -> Result<Sample> {
    let (mut image, mut captions, mut label, mut said) = (None, Vec::new(), None, Said::default());
    let names = members.iter().map(|member| format!("`.{}`", member.extension)).collect::<Vec<_>>().join(", ");
    for Member { extension, bytes } in members {
        let utf8 = |bytes| {
            String::from_utf8(bytes).map_err(|_| Error::bad(Fault::Text, format!("its .{extension} is not UTF-8")))
        };
        match extension.as_str() {
            "txt" => captions.extend(Some(utf8(bytes)?.trim().to_owned()).filter(|text| !text.is_empty())),
            "cls" => label = Some(utf8(bytes)?.trim().to_owned()),
            "json" => {
                let wrong = |error| Error::bad(Fault::Json, format!("its .json: {error}"));
                said = serde_json::from_slice(&bytes).map_err(wrong)?;
            }
            _ => {
                let rank = |extension: &str| IMAGES.iter().position(|known| *known == extension);
                let better = |(there, _): &(usize, _)| rank(&extension).is_some_and(|new| new < *there);
                if image.as_ref().is_none_or(better) {
                    image = rank(&extension).map(|rank| (rank, bytes)).or(image);
                }
            }
        }
    }
    let none = || Error::bad(Fault::NoImage, format!("no jpg, jpeg, png, webp or gif among its members {names}"));
    let (_, image) = image.ok_or_else(none)?;
    let written = said.others.remove(caption_field);
    for caption in texts(written, caption_field)?.into_iter().chain(said.captions) {
        if !caption.trim().is_empty() && !captions.contains(&caption) {
            captions.push(caption);
        }
    }
    let label = label.or(match said.label {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) => Some(label),
        Some(Value::Number(label)) => Some(label.to_string()),
        Some(other) => {
            return Err(Error::bad(Fault::Json, format!("its .json: `label` is {other}, neither text nor number")));
        }
    });
    if captions.is_empty() && label.is_none() && said.questions.is_empty() {
        let hint = format!("no caption, label or question among its members {names}");
        return Err(Error::bad(Fault::NoCaption, hint));
    }
    let Said { questions, variant_of, .. } = said;
    Ok(Sample { captions, label, questions, variant_of, ..Sample::new(key, SampleImage::Memory(image)) })
}

/// The members that [`sample`] reads as this sample again, with `image`, its encoded bytes, of the kind `extension`. The key that
/// it had stands in `.json`; `.cls` is written of labels that are whole numbers, since the Python library reads it as one.
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
    let said = Said {
        captions: trimmed,
        label: label.clone().map(Value::String),
        questions: questions.clone(),
        variant_of: variant_of.clone(),
        others: [("key".to_owned(), Value::String(key.clone()))].into_iter().collect(),
    };
    let json = serde_json::to_vec(&said).map_err(|error| Error::bad(Fault::Json, error.to_string()))?;
    members.push(member("json", json));
    Ok(members)
}

/// One text or a list of texts.
fn texts(value: Option<Value>, field: &str) -> Result<Vec<String>> {
    let wrong = |value: &Value| Error::bad(Fault::Json, format!("its .json: `{field}` is {value}, no text"));
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(texts)) => {
            texts.into_iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(|| wrong(&text))).collect()
        }
        Some(other) => Err(wrong(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(members: &[(&str, &[u8])]) -> Result<Sample> {
        let member = |&(extension, bytes): &(&str, &[u8])| Member { extension: extension.into(), bytes: bytes.into() };
        sample("a", members.iter().map(member).collect(), "caption")
    }

    fn fault(members: &[(&str, &[u8])]) -> Fault {
        of(members).unwrap_err().fault()
    }

    #[test]
    fn names_part_at_the_first_dot_of_the_file() {
        let parts = |name: &str| key_and_extension(name.as_bytes());
        let some = |key: &str, extension: &str| Some((key.to_owned(), extension.to_owned()));
        assert_eq!(parts("a.b/000.seg.PNG"), some("a.b/000", "seg.png"));
        assert_eq!(parts("./0001.jpg"), some("./0001", "jpg"));
        assert_eq!((parts("a/.hidden"), parts("a/b"), parts("a/")), (None, None, None));
    }

    #[test]
    fn captions_of_txt_come_first_and_those_of_json_follow() {
        let json = br#"{"caption": "two", "captions": ["one", "three"], "label": 7, "width": 5, "url": null}"#;
        let sample =
            of(&[("json", json), ("png", b"P"), ("txt", b" one\n"), ("jpg", b"J"), ("seg.png", b"S")]).unwrap();
        assert_eq!((sample.captions.join("|"), sample.label.as_deref()), ("one|two|three".into(), Some("7")));
        assert_eq!(&*sample.image.bytes().unwrap(), b"J");
        assert_eq!(of(&[("png", b"P"), ("cls", b"cat\n")]).unwrap().label.as_deref(), Some("cat"));
    }

    #[test]
    fn what_is_written_of_a_sample_reads_back_as_it() {
        let question =
            Question { id: 7, text: "how many?".into(), answers: vec!["2".into()], kind: Some("count".into()) };
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
        assert_eq!(fault(&[image, ("json", b"{")]), Fault::Json);
        assert_eq!(fault(&[image, ("json", br#"{"caption": 5}"#)]), Fault::Json);
        assert_eq!(fault(&[image, ("json", br#"{"captions": "one"}"#)]), Fault::Json);
        assert_eq!(fault(&[image, ("txt", b"one"), ("json", b"[1]")]), Fault::Json);
    }
}
