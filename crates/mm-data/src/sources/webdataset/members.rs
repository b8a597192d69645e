//! Converts between the members of a tar and a sample: `KEY.jpg`, `KEY.txt`, `KEY.json`, `KEY.cls`.

use std::collections::BTreeMap;
use std::io::Read;

use mm_image::IMAGE_EXTENSIONS;
use tar::{Archive, Entry, EntryType};

use super::groups::{Group, Groups, Name};
use super::json_member::{self, JsonMember};
use crate::{Error, Fault, Result, Sample, SampleImage, text};

/// The limit on the size of a sample in bytes.
pub(super) const MAX_SAMPLE_BYTES: u64 = 1 << 28;

/// The extensions of members with text or labels.
pub(super) const TEXTS: [&str; 3] = ["txt", "json", "cls"];

/// The extension of the member with the mask of a sample.
pub(crate) const MASK: &str = "mask.png";

/// A member of a sample: the part of its name after the key, and its bytes.
pub(crate) struct Member {
    pub extension: String,
    pub bytes: Vec<u8>,
}

/// The name of a tar entry if it is a member of a sample: a file, not a folder or link, with key and
/// extension.
pub(super) fn of_sample(entry: &Entry<impl Read>) -> Option<Name> {
    let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
    is_file.then(|| Name::parse(&entry.path_bytes())).flatten()
}

/// The members in the bytes of one sample, which start at byte `start` of the tar.
///
/// # Errors
/// A repeated extension, or bytes that are not a tar.
pub(super) fn members(bytes: &[u8], start: u64) -> Result<Vec<Member>> {
    let broken =
        |reason: String| Error::bad(Fault::Shard, format!("no sample at its place in the index: {reason}"));
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

/// The first byte after an entry with its padding, in an archive that is read from its start.
pub(super) fn padded_end(entry: &Entry<impl Read>) -> u64 {
    entry.raw_file_position().saturating_add(entry.size().div_ceil(512).saturating_mul(512))
}

/// The members of a group.
///
/// # Errors
/// A repeated extension.
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

/// Adds to the error of a sample without image or caption that its key also occurs at byte `other` of the
/// tar.
pub(super) fn with_other_place(error: Error, other: Option<u64>) -> Error {
    match (error.fault(), other) {
        (fault @ (Fault::NoImage | Fault::NoCaption), Some(other)) => Error::bad(
            fault,
            format!(
                "{error}; other members of its key are at byte {other}: write the tar with its files sorted \
                 by name"
            ),
        ),
        _ => error,
    }
}

/// The images among the members of a sample.
#[derive(Default)]
struct Images {
    /// The image with the first of [`IMAGE_EXTENSIONS`], and the place of its extension there.
    single: Option<(usize, Vec<u8>)>,
    /// Numbered images (`KEY.0.jpg`, `KEY.1.jpg`), in the same way.
    numbered: BTreeMap<usize, (usize, Vec<u8>)>,
}

impl Images {
    /// Adds a member if it is an image.
    fn add(&mut self, extension: &str, bytes: Vec<u8>) {
        let place = |extension: &str| IMAGE_EXTENSIONS.iter().position(|known| *known == extension);
        if let Some(place) = place(extension) {
            if self.single.as_ref().is_none_or(|(known, _)| place < *known) {
                self.single = Some((place, bytes));
            }
        } else if let Some((number, place)) =
            extension.split_once('.').and_then(|(number, kind)| Some((number.parse().ok()?, place(kind)?)))
            && self.numbered.get(&number).is_none_or(|(known, _)| place < *known)
        {
            self.numbered.insert(number, (place, bytes));
        }
    }

    /// The single image, or else the numbered ones.
    ///
    /// # Errors
    /// No image, or a gap in the numbers. `names` are the members, for the message.
    fn finish(self, names: &str) -> Result<Vec<SampleImage>> {
        if let Some((_, bytes)) = self.single {
            return Ok(vec![SampleImage::Memory(bytes)]);
        }
        if let Some(missing) = (0..self.numbered.len()).find(|number| !self.numbered.contains_key(number)) {
            let reason = format!("no image with number {missing} among its members {names}");
            return Err(Error::bad(Fault::NoImage, reason));
        }
        if self.numbered.is_empty() {
            let reason = format!("no image (jpg, png, webp, ...) among its members {names}");
            return Err(Error::bad(Fault::NoImage, reason));
        }
        Ok(self.numbered.into_values().map(|(_, bytes)| SampleImage::Memory(bytes)).collect())
    }
}

/// The sample of these members. `txt` is the canonical caption; those of `json` follow. Problems of a `json`
/// that is not needed are the sample's warning.
///
/// # Errors
/// No image, no caption, label, question or instruction, or a `txt` or `cls` that is not text.
pub(super) fn sample(key: &str, members: Vec<Member>, caption_field: &str) -> Result<Sample> {
    let mut captions = Vec::new();
    let mut label = None;
    let mut mask = None;
    let mut images = Images::default();
    let mut json = JsonMember::default();
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
            "json" => json = JsonMember::read(bytes, caption_field),
            MASK => mask = Some(SampleImage::Memory(bytes)),
            _ => images.add(&extension, bytes),
        }
    }
    let images = images.finish(&names)?;
    if json.instruction.is_some() && !json.captions.is_empty() {
        captions = json.captions; // one for each image of an edit, in order
    } else {
        for caption in json.captions {
            if !caption.trim().is_empty() && !captions.contains(&caption) {
                captions.push(caption);
            }
        }
    }
    let JsonMember { questions, negatives, instruction, preferred, variant_of, group, problem, .. } = json;
    let label = label.or(json.label);
    if captions.is_empty() && label.is_none() && questions.is_empty() && instruction.is_none() {
        return Err(match problem {
            Some(problem) => Error::bad(Fault::Json, problem),
            None => Error::bad(
                Fault::NoCaption,
                format!("no caption, label or question among its members {names}"),
            ),
        });
    }
    Ok(Sample {
        key: key.to_owned(),
        images,
        mask,
        captions,
        negatives,
        label,
        questions,
        instruction,
        preferred,
        variant_of,
        group,
        scene: None,
        document: None,
        messages: Vec::new(),
        warning: problem,
    })
}

/// The members that [`sample`] reads as this sample again. `images` are the extension and the encoded bytes
/// of each image; several are numbered: `0.jpg`, `1.jpg`. `.json` has the key of the sample; `.cls` is
/// written for labels that are whole numbers, since the Python library reads it as a number. `.mask.png` is
/// the mask.
///
/// # Errors
/// No image; or no caption, label, question or instruction.
pub(crate) fn members_of(sample: &Sample, images: Vec<(&str, Vec<u8>)>) -> Result<Vec<Member>> {
    let Sample { captions, label, questions, instruction, .. } = sample;
    if images.is_empty() {
        return Err(Error::bad(Fault::NoImage, "no image: a shard holds images with their texts"));
    }
    let mut trimmed: Vec<String> = Vec::with_capacity(captions.len());
    for caption in captions.iter().map(|caption| caption.trim()).filter(|caption| !caption.is_empty()) {
        // An edit has one caption for each image; they may be equal.
        if instruction.is_some() || !trimmed.iter().any(|known| known == caption) {
            trimmed.push(caption.to_owned());
        }
    }
    if trimmed.is_empty() && label.is_none() && questions.is_empty() && instruction.is_none() {
        return Err(Error::bad(Fault::NoCaption, "no caption, label or question"));
    }
    let member = |extension: String, bytes: Vec<u8>| Member { extension, bytes };
    let is_single = images.len() == 1;
    let mut members: Vec<Member> = (0..)
        .zip(images)
        .map(|(number, (kind, bytes))| {
            member(if is_single { kind.to_owned() } else { format!("{number}.{kind}") }, bytes)
        })
        .collect();
    members.extend(trimmed.first().map(|canonical| member("txt".into(), canonical.clone().into_bytes())));
    let number = label.as_ref().filter(|label| label.parse::<i64>().is_ok());
    members.extend(number.map(|label| member("cls".into(), label.clone().into_bytes())));
    let json =
        json_member::written(sample, &trimmed).map_err(|error| Error::bad(Fault::Json, error.to_string()))?;
    members.push(member("json".into(), json));
    if let Some(mask) = &sample.mask {
        members.push(member(MASK.into(), mask.png_bytes()?));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NegativeCaption, Question};

    fn bytes(sample: &Sample) -> &[u8] {
        match sample.image().unwrap() {
            SampleImage::Memory(bytes) => bytes,
            other => panic!("not in memory: {other:?}"),
        }
    }

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
        assert_eq!(bytes(&sample), b"J");
        for extension in ["jfif", "jpe", "tif", "bmp"] {
            assert_eq!(bytes(&of(&[(extension, b"I"), ("txt", b"one")]).unwrap()), b"I");
        }
        assert_eq!(of(&[("png", b"P"), ("cls", b"cat\n")]).unwrap().label.as_deref(), Some("cat"));
    }

    #[test]
    fn a_written_sample_reads_back_unchanged() {
        let question = Question {
            id: 7,
            text: "how many?".into(),
            answers: vec!["2".into()],
            kind: Some("count".into()),
            choices: vec!["2".into(), "3".into()],
            tags: [("modality".into(), "CT".into())].into(),
            ..Question::default()
        };
        for label in [None, Some("animals & nature".to_owned()), Some("7".to_owned())] {
            let written = Sample {
                captions: vec!["two".into(), "\u{e9} \"three\"".into()],
                label,
                questions: vec![question.clone()],
                variant_of: Some("other".into()),
                group: Some("patient 7".into()),
                ..Sample::new("path/a.b.png", SampleImage::Memory(b"P".to_vec()))
            };
            let members = members_of(&written, vec![("png", b"P".to_vec())]).unwrap();
            let extensions: Vec<&str> = members.iter().map(|member| member.extension.as_str()).collect();
            assert_eq!(extensions.contains(&"cls"), written.label.as_deref() == Some("7"));
            let read = sample("0", members, "caption").unwrap();
            assert_eq!((&read.captions, &read.label), (&written.captions, &written.label));
            assert_eq!((&read.questions, &read.variant_of), (&written.questions, &written.variant_of));
            assert_eq!(read.group, written.group);
            assert_eq!(bytes(&read), b"P");
        }
        let bare = Sample { captions: vec![" ".into()], ..Sample::new("a", SampleImage::Static(b"P")) };
        assert_eq!(members_of(&bare, vec![("png", Vec::new())]).err().unwrap().fault(), Fault::NoCaption);
    }

    #[test]
    fn a_sample_with_several_images_reads_back_in_order() {
        let image = |bytes: &'static [u8]| SampleImage::Static(bytes);
        let negative = NegativeCaption { positive: "a".into(), negative: "b".into(), kind: None };
        let edit = Sample {
            key: "e".into(),
            images: vec![image(b"A"), image(b"B")],
            negatives: vec![negative],
            instruction: Some("make it snow".into()),
            preferred: Some(0.25),
            ..Sample::default()
        };
        let images = vec![("jpg", b"A".to_vec()), ("png", b"B".to_vec())];
        let members = members_of(&edit, images).unwrap();
        let extensions: Vec<&str> = members.iter().map(|member| member.extension.as_str()).collect();
        assert_eq!(extensions, ["0.jpg", "1.png", "json"]);
        let read = sample("0", members, "caption").unwrap();
        let bytes = read.image_pair().unwrap().map(|image| image.bytes().unwrap().into_owned());
        assert_eq!(bytes, [b"A", b"B"]);
        assert_eq!((&read.instruction, read.preferred), (&edit.instruction, edit.preferred));
        assert_eq!((read.negatives, read.warning), (edit.negatives, None));
        let gap = of(&[("0.jpg", b"A"), ("2.jpg", b"C"), ("txt", b"one")]).unwrap_err().to_string();
        assert!(gap.starts_with("no image with number 1 among its members"), "{gap}");
        let prompt = Sample { captions: vec!["a fox".into()], ..Sample::default() };
        assert_eq!(members_of(&prompt, Vec::new()).err().unwrap().fault(), Fault::NoImage);
        assert_eq!(of(&[("jpg", b"J"), ("0.jpg", b"A"), ("txt", b"one")]).unwrap().images.len(), 1);
    }

    #[test]
    fn a_mask_is_read_again_as_png_and_is_no_image_of_its_own() {
        let mut bitmap = std::io::Cursor::new(Vec::new());
        mm_image::RgbImage::new(3, 2).write_to(&mut bitmap, mm_image::image::ImageFormat::Bmp).unwrap();
        let written = Sample {
            captions: vec!["one".into()],
            mask: Some(SampleImage::Memory(bitmap.into_inner())),
            ..Sample::new("a", SampleImage::Static(b"P"))
        };
        let members = members_of(&written, vec![("png", b"P".to_vec())]).unwrap();
        let read = sample("0", members, "caption").unwrap();
        assert_eq!((bytes(&read), read.images.len()), (&b"P"[..], 1));
        assert_eq!(read.mask.unwrap().dimensions().unwrap(), (3, 2));
        assert_eq!(fault(&[("mask.png", b"P"), ("txt", b"one")]), Fault::NoImage);
    }

    #[test]
    fn missing_and_invalid_members_have_their_kind_of_fault() {
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
    fn json_of_python_is_read() {
        let json = br#"{"caption": ["one", null], "captions": null, "label": true, "score": NaN,
"limit": -Infinity, "x": "\ud83d"}"#;
        let sample = of(&[("jpg", b"J"), ("json", json)]).unwrap();
        assert_eq!((&sample.captions[..], sample.label.as_deref()), (&["one".to_owned()][..], Some("true")));
        assert_eq!(sample.warning, None);
        let sample = of(&[("jpg", b"J"), ("json", b"\xef\xbb\xbf{\"captions\": \"one\"}")]).unwrap();
        assert_eq!((&sample.captions[..], sample.warning), (&["one".to_owned()][..], None));
    }

    #[test]
    fn invalid_json_that_is_not_needed_is_a_warning() {
        let message_of = |json: &[u8]| {
            let sample = of(&[("jpg", b"J"), ("txt", b"\xef\xbb\xbfone\r\n"), ("json", json)]).unwrap();
            assert_eq!(sample.captions[0], "one");
            let of_label = of(&[("jpg", b"J"), ("cls", b"\xef\xbb\xbf7"), ("json", json)]).unwrap();
            assert_eq!((of_label.label.as_deref(), &of_label.warning), (Some("7"), &sample.warning));
            sample.warning.unwrap()
        };
        assert_eq!(message_of(b"[{\"caption\": \"two\"}]"), "its .json: a list, not an object");
        assert_eq!(
            message_of(b"{\"caf\xe9\": 1}"),
            "its .json: column 6: not UTF-8 text: convert it with iconv"
        );
        assert!(message_of(b"{'caption': 'two'}").starts_with("its .json: key must be a string"));
        assert_eq!(
            message_of(br#"{"caption": 5.5}"#),
            "its .json: `caption` is 5.5, not a text or a list of texts"
        );
        assert_eq!(
            message_of(br#"{"captions": [1, {}, "two"], "label": {"a": 1}}"#),
            "its .json: `captions` has 1 among its texts; `captions` has an object among its texts; \
             `label` is an object, not a text or a number"
        );
        assert!(
            message_of(br#"{"questions": [{"question": "why?", "answer": "so"}]}"#)
                .contains("not of the form that mm writes")
        );
        assert!(message_of(br#"{"variant_of": 5}"#).ends_with("`variant_of` is 5, not a key"));
        // Valid fields are read.
        let json = br#"{"caption": "two", "label": 3, "questions": "none"}"#;
        let sample = of(&[("jpg", b"J"), ("json", json)]).unwrap();
        assert_eq!(
            (&*sample.captions[0], sample.label.as_deref(), sample.warning.is_some()),
            ("two", Some("3"), true)
        );
    }
}
