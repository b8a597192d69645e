//! Chat templates: the messages of a conversation as the one text that a model was trained on.
//!
//! The files of a chat model hold a Jinja template. [`ChatTemplate`] renders it as transformers'
//! `apply_chat_template` does (`utils/chat_template_utils.py`, 5.23): blocks are trimmed,
//! `raise_exception`, `strftime_now`, `tojson`, `{% generation %}`, `break` and `continue`, the methods of
//! Python's strings and dictionaries, and the tokenizer's special tokens are there. Templates of
//! vision-language models place `<image>` or a like token for each [`ChatPart::Image`].
//!
//! A template comes with a model and is not trusted: it reads nothing but the conversation, and one that does
//! not end is an error.

mod content;
mod environment;
mod files;
mod json;
mod namespaces;
#[cfg(test)]
mod tests;

use crate::{Error, Result};
use chrono::{Local, NaiveDateTime};
use content::{Content, Record};
use environment::{RaisedError, STEPS};
use minijinja::{Environment, ErrorKind, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Usually `system`, `user` or `assistant`.
    pub role: String,
    /// What the message consists of, in order.
    pub content: Vec<ChatPart>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatPart {
    /// A text.
    Text(String),
    /// The place of an image.
    Image,
}

impl ChatMessage {
    /// A message of parts.
    pub fn new(role: impl Into<String>, content: Vec<ChatPart>) -> Self {
        Self { role: role.into(), content }
    }

    /// A message of one text.
    pub fn text(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(role, vec![ChatPart::Text(text.into())])
    }

    /// The texts, joined by line ends; `None` if a part is an image.
    fn joined_text(&self) -> Option<String> {
        let text = |part: &ChatPart| match part {
            ChatPart::Text(text) => Some(text.clone()),
            ChatPart::Image => None,
        };
        let texts: Option<Vec<String>> = self.content.iter().map(text).collect();
        Some(texts?.join("\n"))
    }
}

/// The chat template of a model folder.
///
/// ```
/// use mm_text::{ChatMessage, ChatTemplate};
///
/// let source = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}\
///               {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
/// let template = ChatTemplate::new(source)?;
/// let text = template.render(&[ChatMessage::text("user", "What is it?")], true)?;
/// assert_eq!(text, "user: What is it?\nassistant:");
/// # Ok::<(), mm_text::Error>(())
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// Where the template comes from, for errors.
    file: PathBuf,
    /// Such as `bos_token` and `<s>`.
    special_tokens: Vec<(&'static str, String)>,
}

/// The address space of the stack on which a template is rendered; memory is taken as it is used.
const STACK_BYTES: usize = 256 << 20;

/// The name of the template in its environment.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// The template of a folder: that of `chat_template.jinja`, or else of `chat_template.json`,
    /// `processor_config.json` or `tokenizer_config.json`, whose list of named templates must have a
    /// `default`. `None` if the folder has no template.
    ///
    /// # Errors
    /// A file cannot be read, has another layout, or its template is malformed: the error names the line.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let Some((file, source)) = files::template(folder)? else { return Ok(None) };
        Self::parse(source, file, files::special_tokens(folder)?).map(Some)
    }

    /// A template without special tokens.
    ///
    /// # Errors
    /// It is malformed.
    pub fn new(source: &str) -> Result<Self> {
        Self::parse(source.to_owned(), NAME.into(), Vec::new())
    }

    fn parse(source: String, file: PathBuf, special_tokens: Vec<(&'static str, String)>) -> Result<Self> {
        if let Some((line, name)) = namespaces::as_value(&source) {
            let reason =
                format!("line {line}: it uses the namespace {name} as a value, which is not offered");
            return Err(Error::Format { path: file, reason: format!("the chat template, {reason}") });
        }
        let mut environment = environment::new();
        environment
            .add_template_owned(NAME, environment::with_known_blocks(&source))
            .map_err(|error| format_error(&file, &error))?;
        Ok(Self { environment, source, file, special_tokens })
    }

    /// The template's Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Writes the template as `chat_template.jinja` into a folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(files::JINJA);
        std::fs::write(&path, &self.source).map_err(|source| Error::Io { path, source })
    }

    /// The text of a conversation, and with `add_generation_prompt` the beginning of the answer.
    ///
    /// A message has the form that the template reads: a list of `{"type": "text", "text": ...}` and
    /// `{"type": "image"}` if the template reads these keys, else one text, in which several parts are
    /// separated by line ends.
    ///
    /// # Errors
    /// The template refuses the conversation (`raise_exception`), takes texts alone where a message has an
    /// image, uses a value that is not there, or takes too many steps: the error names the line.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        self.render_at(messages, add_generation_prompt, Local::now().naive_local())
    }

    /// [`ChatTemplate::render`] at the time that `strftime_now` gives.
    fn render_at(&self, messages: &[ChatMessage], generation: bool, now: NaiveDateTime) -> Result<String> {
        // A template can nest values as deeply as it has steps, and to drop them takes a call a level.
        let rendered = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || self.render_here(messages, generation, now));
            thread.map(|thread| thread.join())
        });
        match rendered {
            Ok(Ok(rendered)) => rendered,
            Ok(Err(_)) => Err(self.error("the template engine failed".to_owned())),
            Err(error) => Err(self.error(format!("no thread can be started: {error}"))),
        }
    }

    fn render_here(&self, messages: &[ChatMessage], generation: bool, now: NaiveDateTime) -> Result<String> {
        let mut texts: Vec<Option<String>> = vec![None; messages.len()];
        let mut first_error = None;
        // Each round turns the messages of at least one role into texts.
        loop {
            let contents: Vec<Arc<Content>> =
                messages.iter().map(|message| Arc::new(Content::new(&message.content))).collect();
            let rendered = self.render_once(messages, &contents, &texts, generation, now);
            let ends = rendered.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::OutOfFuel);
            let is_text = |at: usize| {
                let is_unread = rendered.is_err() && !contents[at].is_read_as_parts();
                texts[at].is_none() && (contents[at].is_printed() || is_unread)
            };
            let as_text = |at: &usize| is_text(*at) && messages[*at].joined_text().is_some();
            if let Some(first) = (0..messages.len()).find(as_text).filter(|_| ends) {
                for (text, message) in texts.iter_mut().zip(messages) {
                    if message.role == messages[first].role {
                        *text = text.take().or_else(|| message.joined_text());
                    }
                }
                first_error = first_error.or(rendered.err());
                continue;
            }
            if let Some(at) = (0..messages.len()).find(|&at| contents[at].is_printed() && texts[at].is_none())
            {
                return Err(self.error(format!(
                    "it takes texts alone, and message {} ({}) has an image: the template is that of a text \
                     model",
                    at + 1,
                    messages[at].role
                )));
            }
            return rendered.map_err(|error| format_error(&self.file, &first_error.unwrap_or(error)));
        }
    }

    /// Renders messages whose content is one of `texts`, or else one of `contents`.
    fn render_once(
        &self,
        messages: &[ChatMessage],
        contents: &[Arc<Content>],
        texts: &[Option<String>],
        add_generation_prompt: bool,
        now: NaiveDateTime,
    ) -> std::result::Result<String, minijinja::Error> {
        let message = |at: usize| {
            let content = match &texts[at] {
                Some(text) => Value::from(text.as_str()),
                None => Value::from_dyn_object(Arc::clone(&contents[at])),
            };
            Value::from_object(Record(vec![
                ("role", Value::from(messages[at].role.as_str())),
                ("content", content),
            ]))
        };
        let mut context = vec![
            ("messages", (0..messages.len()).map(message).collect()),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("strftime_now", environment::strftime_at(now)),
        ];
        let tokens = self.special_tokens.iter();
        context.extend(tokens.map(|(role, token)| (*role, Value::from(token.as_str()))));
        self.environment.get_template(NAME)?.render(Value::from_object(Record(context)))
    }

    fn error(&self, reason: String) -> Error {
        Error::Format { path: self.file.clone(), reason: format!("the chat template: {reason}") }
    }
}

/// The error of a template, with its line in the template.
fn format_error(file: &Path, error: &minijinja::Error) -> Error {
    let raised = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RaisedError>());
    let detail = error.detail().unwrap_or_default();
    let reason = match (raised, error.kind()) {
        (Some(raised), _) => format!("it refuses the conversation: {raised}"),
        (None, ErrorKind::OutOfFuel) => format!("it takes more than {STEPS} steps: it does not end"),
        (None, kind) if detail.is_empty() => kind.to_string(),
        (None, kind) => format!("{kind}: {detail}"),
    };
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    Error::Format { path: file.to_owned(), reason: format!("the chat template{line}: {reason}") }
}
