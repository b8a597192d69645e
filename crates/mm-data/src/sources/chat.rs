//! Conversations about images, as vision-language models are trained on.

use std::collections::HashSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sources::broken::{Broken, check_some};
use crate::sources::json_file::{JsonFile, entry};
use crate::sources::lines::rows;
use crate::sources::listed::root_beside;
use crate::{Dataset, Error, Fault, Message, MessagePart, Result, Role, Sample, SampleImage, json, text};

/// The place of an image in a text.
const PLACEHOLDER: &str = "<image>";

/// Conversations about images: a file of JSON lines, or of one JSON list, with records in one of the two
/// forms in circulation.
///
/// The form of chat templates, in which a content may also be one text:
///
/// ```json
/// {"images": ["a.jpg"], "messages": [
///   {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
///   {"role": "assistant", "content": "A dog."}]}
/// ```
///
/// LLaVA's (Liu et al. 2023, <https://arxiv.org/abs/2304.08485>):
///
/// ```json
/// {"id": "7", "image": "a.jpg", "conversations": [
///   {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}
/// ```
///
/// In texts of both, `<image>` is the place of an image; a line end beside it is dropped. A sample is a
/// record with its [`messages`](Sample::messages) and as many images as these have places. Its key is `id`,
/// else its number in the file, from 1; an `id` that an earlier record has is followed by that number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// The file.
    pub path: PathBuf,
    /// The folder of the images; by default that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_root: Option<PathBuf>,
}

/// Conversations as a [`Dataset`].
pub(crate) struct ChatDataset {
    name: String,
    root: PathBuf,
    conversations: Vec<std::result::Result<Conversation, Broken>>,
}

/// A valid record.
#[derive(Debug)]
struct Conversation {
    key: String,
    images: Vec<String>,
    messages: Vec<Message>,
}

/// A record of either form.
#[derive(Deserialize)]
struct Record {
    id: Option<Value>,
    #[serde(default, alias = "image")]
    images: Images,
    messages: Option<Vec<Turn>>,
    conversations: Option<Vec<Turn>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the path of an image or a list of paths")]
enum Images {
    None(()),
    One(String),
    Many(Vec<String>),
}

impl Default for Images {
    fn default() -> Self {
        Self::None(())
    }
}

#[derive(Deserialize)]
struct Turn {
    #[serde(alias = "from")]
    role: String,
    #[serde(alias = "value")]
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of {\"type\", \"text\"}")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

impl ChatDataset {
    /// Reads all conversations, and no image. An invalid record is a bad sample in its place.
    ///
    /// # Errors
    /// The file cannot be read, is neither JSON lines nor a JSON list, or has no valid record.
    pub(crate) fn open(config: &ChatConfig) -> Result<Self> {
        let path = &config.path;
        let mut file = text::open(path)?;
        let is_list = file.fill_buf().map_err(Error::io(path))?.trim_ascii_start().starts_with(b"[");
        let records = if is_list { from_list(path)? } else { from_lines(path, file)? };
        let mut keys = HashSet::with_capacity(records.len());
        let conversations: Vec<_> = (1..)
            .zip(records)
            .map(|(number, (place, record)): (usize, _)| {
                let conversation = record.and_then(|record| conversation(record, number));
                let mut conversation =
                    conversation.map_err(|reason| Broken::new(Fault::Json, format!("{place}: {reason}")))?;
                if !keys.insert(conversation.key.clone()) {
                    conversation.key = format!("{}:{number}", conversation.key);
                }
                Ok(conversation)
            })
            .collect();
        let name = path.display().to_string();
        check_some(&name, &conversations)?;
        Ok(Self { name, root: root_beside(path, config.images_root.as_ref()), conversations })
    }
}

/// Records with their places in the file.
type Records = Vec<(String, std::result::Result<Record, String>)>;

fn from_list(path: &Path) -> Result<Records> {
    let file = JsonFile::read(path)?;
    let records: Vec<&RawValue> = file.parse("a list of conversations")?;
    Ok((1..).zip(records).map(|(number, raw): (u64, _)| (format!("record {number}"), entry(raw))).collect())
}

fn from_lines(path: &Path, file: impl BufRead) -> Result<Records> {
    let parsed = rows(path, file, |line| Ok(json::parse::<Record>(line).map_err(|error| error.to_string())))?;
    Ok(parsed.into_iter().map(|(line, record)| (format!("line {line}"), record)).collect())
}

/// The conversation of record `number`, or the reason why it has none.
fn conversation(record: Record, number: usize) -> std::result::Result<Conversation, String> {
    let turns = match (record.messages, record.conversations) {
        (Some(turns), None) | (None, Some(turns)) => turns,
        (None, None) => return Err("it has neither `messages` nor `conversations`".to_owned()),
        (Some(_), Some(_)) => return Err("it has both `messages` and `conversations`".to_owned()),
    };
    let images = match record.images {
        Images::None(()) => Vec::new(),
        Images::One(image) => vec![image],
        Images::Many(images) => images,
    };
    if images.iter().any(|image| image.trim().is_empty()) {
        return Err("the path of an image is empty".to_owned());
    }
    let read = |(number, turn): (usize, Turn)| {
        message(turn).map_err(|problem| format!("message {number}: {problem}"))
    };
    let messages: Vec<Message> = (1..).zip(turns).map(read).collect::<std::result::Result<_, _>>()?;
    if messages.iter().all(|message| message.role != Role::Assistant) {
        return Err("there is no message of the assistant, so nothing to learn".to_owned());
    }
    let (places, count) = (messages.iter().map(Message::images).sum::<usize>(), images.len());
    if places != count {
        return Err(format!(
            "its messages have {places} places of images ({PLACEHOLDER}) for {count} images"
        ));
    }
    let key = match record.id {
        Some(Value::String(id)) if !id.trim().is_empty() => id,
        Some(Value::Number(id)) => id.to_string(),
        _ => number.to_string(),
    };
    Ok(Conversation { key, images, messages })
}

fn message(Turn { role, content }: Turn) -> std::result::Result<Message, String> {
    let role = match &role[..] {
        "system" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" => Role::Assistant,
        other => {
            let known = "system, user or human, assistant or gpt";
            return Err(format!("the role is {other:?}: it must be {known}"));
        }
    };
    let mut parts = Vec::new();
    match content {
        Content::Text(text) => split(&text, &mut parts),
        Content::Parts(given) => {
            for Part { kind, text } in given {
                match (&kind[..], text) {
                    ("image", _) => parts.push(MessagePart::Image),
                    ("text", Some(text)) => split(&text, &mut parts),
                    ("text", None) => return Err("a part of type text has no `text`".to_owned()),
                    _ => return Err(format!("a part is of type {kind:?}: it must be image or text")),
                }
            }
        }
    }
    let message = Message { role, content: parts };
    if message.content.is_empty() {
        return Err("it is empty".to_owned());
    }
    if role == Role::Assistant && message.images() > 0 {
        return Err("the assistant's message has an image, which no model here can write".to_owned());
    }
    Ok(message)
}

/// Appends the parts of `text`, cut at its places of images. A text without any has no part if it is blank.
fn split(text: &str, parts: &mut Vec<MessagePart>) {
    let mut pieces = text.split(PLACEHOLDER).peekable();
    let mut is_first = true;
    while let Some(mut piece) = pieces.next() {
        if !is_first {
            parts.push(MessagePart::Image);
            piece = piece.strip_prefix('\n').unwrap_or(piece);
        }
        if pieces.peek().is_some() {
            piece = piece.strip_suffix('\n').unwrap_or(piece);
        }
        if !piece.trim().is_empty() {
            parts.push(MessagePart::Text(piece.to_owned()));
        }
        is_first = false;
    }
}

impl Dataset for ChatDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.conversations.len()
    }

    fn key(&self, index: usize) -> String {
        let conversation = self.conversations[index].as_ref();
        conversation.map_or_else(|_| format!("#{index}"), |conversation| conversation.key.clone())
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let Conversation { key, images, messages } =
            self.conversations[index].as_ref().map_err(|broken| broken.error(&self.name))?;
        let images = images.iter().map(|image| SampleImage::File(self.root.join(image))).collect();
        Ok(Sample { key: key.clone(), images, messages: messages.clone(), ..Sample::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<ChatDataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        std::fs::write(&path, text).unwrap();
        ChatDataset::open(&ChatConfig { path, images_root: Some("photos".into()) })
    }

    fn texts(message: &Message) -> Vec<String> {
        let text = |part: &MessagePart| match part {
            MessagePart::Text(text) => text.clone(),
            MessagePart::Image => "IMAGE".to_owned(),
        };
        message.content.iter().map(text).collect()
    }

    const CHAT: &str = concat!(
        r#"{"images": ["a.jpg", "b.jpg"], "messages": [{"role": "system", "content": "Be short."}, "#,
        r#"{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "or"}, "#,
        r#"{"type": "image"}]}, "#,
        r#"{"role": "assistant", "content": [{"type": "text", "text": "The first."}]}]}"#,
    );
    const LLAVA: &str = concat!(
        r#"{"id": "7", "image": "a.jpg", "conversations": ["#,
        r#"{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}, "#,
        r#"{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]}"#,
    );
    const TEXT: &str = concat!(
        r#"{"id": "7", "image": null, "conversations": ["#,
        r#"{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]}"#,
    );

    #[test]
    fn both_forms_are_read_from_lines_and_from_a_list() {
        let (lines, list) = ([CHAT, "", LLAVA, TEXT].join("\n"), format!(" [{CHAT}, {LLAVA}, {TEXT}]"));
        for text in [lines, list] {
            let dataset = open(&text).unwrap();
            let keys: Vec<String> = (0..dataset.len()).map(|index| dataset.key(index)).collect();
            assert_eq!(keys, ["1", "7", "7:3"]);
            let [chat, llava, plain] = [0, 1, 2].map(|index| dataset.sample(index).unwrap());
            let roles: Vec<Role> = chat.messages.iter().map(|message| message.role).collect();
            assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
            assert_eq!(texts(&chat.messages[1]), ["IMAGE", "or", "IMAGE"]);
            assert!(matches!(&chat.images[1], SampleImage::File(path) if path == Path::new("photos/b.jpg")));
            assert_eq!(texts(&llava.messages[0]), ["IMAGE", "What is it?"]);
            assert_eq!(texts(&llava.messages[3]), ["Yes."]);
            assert_eq!((llava.images.len(), plain.images.len(), &plain.key[..]), (1, 0, "7:3"));
        }
    }

    #[test]
    fn a_wrong_record_is_a_bad_sample_with_its_line() {
        let with = |images: &str, role: &str, content: &str| {
            let asked = format!(r#"{{"role": "{role}", "content": {content}}}"#);
            let answer = r#"{"role": "assistant", "content": "Yes."}"#;
            format!(r#"{{"images": {images}, "messages": [{asked}, {answer}]}}"#)
        };
        let lines = [
            with("[]", "user", r#""<image>What?""#),
            with(r#"["a.jpg", "b.jpg"]"#, "user", r#""<image>What?""#),
            with("[]", "bot", r#""What?""#),
            r#"{"messages": [{"role": "user", "content": "What?"}]}"#.to_owned(),
            r#"{"images": "a.jpg", "caption": "A dog."}"#.to_owned(),
            with(r#"["a.jpg"]"#, "gpt", r#""<image>""#),
            with("[]", "user", r#"[{"type": "video"}]"#),
            with("[]", "user", r#""  ""#),
            with(r#"[" "]"#, "user", r#""<image>""#),
            with("7", "user", r#""What?""#),
            "{".to_owned(),
        ];
        let dataset = open(&[&[LLAVA.to_owned()], &lines[..]].concat().join("\n")).unwrap();
        let expected = [
            "line 2: its messages have 1 places of images (<image>) for 0 images",
            "line 3: its messages have 1 places of images (<image>) for 2 images",
            "line 4: message 1: the role is \"bot\": it must be system",
            "line 5: there is no message of the assistant",
            "line 6: it has neither `messages` nor `conversations`",
            "line 7: message 1: the assistant's message has an image",
            "line 8: message 1: a part is of type \"video\"",
            "line 9: message 1: it is empty",
            "line 10: the path of an image is empty",
            "line 11: expected the path of an image or a list of paths",
            "line 12: EOF while parsing",
        ];
        assert_eq!(dataset.len(), 1 + expected.len());
        for (index, expected) in (1..).zip(expected) {
            let error = dataset.sample(index).unwrap_err();
            assert_eq!(error.fault(), Fault::Json);
            assert!(error.to_string().contains(&format!("chat.json: {expected}")), "{error}");
        }
        let error = open("[]").err().unwrap().to_string();
        assert!(error.contains("the file lists none"), "{error}");
    }
}
