//! The conversation that a sample is: its messages, or a question, a caption or a document as messages.

use mm_data::{Document, Fault, Message, MessagePart, Question, Role, Sample, SampleImage};
use mm_text::{ChatMessage, ChatPart};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the schema of a document stands in its prompt.
const SCHEMA: &str = "{schema}";

/// What of a sample becomes a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Its messages.
    Chat,
    /// A prompt to read the page, and what it says as compact JSON.
    Document,
    /// One of its questions with one of the given answers.
    Questions,
    /// A prompt to describe the image, and one of its captions.
    Captions,
}

/// `[input.prompts]`: what the user says about samples that have no messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptsConfig {
    /// Before a caption.
    pub caption: String,
    /// Before the content of a document; `{schema}` stands for its schema.
    pub document: String,
}

impl Default for PromptsConfig {
    fn default() -> Self {
        Self { caption: "Describe the image.".to_owned(), document: format!("Read the {SCHEMA}.") }
    }
}

/// What is chosen of a sample that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Question,
    Answer,
    Caption,
}

/// From samples to conversations.
#[derive(Clone, Debug)]
pub(crate) struct Conversations {
    /// What becomes a conversation; none: the first of messages, a document, questions and captions that a
    /// sample has.
    pub content: Option<Content>,
    pub prompts: PromptsConfig,
}

/// A conversation whose last message is the assistant's.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub messages: Vec<ChatMessage>,
    pub reference: Reference,
}

/// What the last answer is compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reference {
    /// Nothing but its own text.
    Chat,
    /// What is on a page.
    Document(Value),
    /// The given answers of the question.
    Question(Question),
    /// All captions of the image.
    Captions(Vec<String>),
}

impl Conversations {
    /// The conversation of `sample`; `choose` gives a number below the one that it is given.
    ///
    /// # Errors
    /// The sample has no such content.
    pub fn of(
        &self,
        sample: &Sample,
        mut choose: impl FnMut(Choice, usize) -> usize,
    ) -> mm_data::Result<Conversation> {
        let answered = || sample.questions.iter().filter(|question| !question.answers.is_empty());
        let found = self.content.or_else(|| {
            let available = [
                (Content::Chat, !sample.messages.is_empty()),
                (Content::Document, sample.document.is_some()),
                (Content::Questions, answered().next().is_some()),
                (Content::Captions, !sample.captions.is_empty()),
            ];
            available.into_iter().find_map(|(content, is_there)| is_there.then_some(content))
        });
        let missing = |what: &str| Err(mm_data::Error::bad(Fault::Other, format!("no {what}")));
        match found {
            None => missing("messages, document, questions or captions"),
            Some(Content::Chat) => match chat(&sample.messages) {
                Some(messages) => Ok(Conversation { messages, reference: Reference::Chat }),
                None => missing("message of the assistant"),
            },
            Some(Content::Document) => match &sample.document {
                Some(document) => {
                    let prompt = self.prompts.document.replace(SCHEMA, &document.schema);
                    let value = document.value.to_json();
                    Ok(about_image(prompt, compact(document)?, Reference::Document(value)))
                }
                None => missing("document"),
            },
            Some(Content::Questions) => {
                let answered: Vec<&Question> = answered().collect();
                if answered.is_empty() {
                    return missing("question with an answer");
                }
                let question = answered[choose(Choice::Question, answered.len())];
                let answer = choose(Choice::Answer, question.answers.len());
                let answer = question.answers[answer].clone();
                Ok(about_image(question.text.clone(), answer, Reference::Question(question.clone())))
            }
            Some(Content::Captions) => match &sample.captions[..] {
                [] => missing("caption"),
                captions => {
                    let caption = captions[choose(Choice::Caption, captions.len())].clone();
                    let reference = Reference::Captions(captions.to_vec());
                    Ok(about_image(self.prompts.caption.clone(), caption, reference))
                }
            },
        }
    }
}

impl Conversation {
    /// The images of `sample` that the conversation is about.
    ///
    /// # Errors
    /// It has more or fewer places of images.
    pub fn images<'a>(&self, sample: &'a Sample) -> mm_data::Result<&'a [SampleImage]> {
        let images = |message: &ChatMessage| {
            message.content.iter().filter(|part| matches!(part, ChatPart::Image)).count()
        };
        let (places, count) = (self.messages.iter().map(images).sum::<usize>(), sample.images.len());
        match (places == count, count) {
            (true, _) => Ok(&sample.images),
            (false, 0) => Err(mm_data::Error::bad(Fault::NoImage, "the sample has no image")),
            (false, _) => {
                let problem = format!("the sample has {count} images for {places} places in its messages");
                Err(mm_data::Error::bad(Fault::Other, problem))
            }
        }
    }

    /// The last message of the user, for people.
    pub fn prompt(&self) -> String {
        let asked = self.messages.iter().rfind(|message| message.role == Role::User.name());
        asked.map_or_else(String::new, text)
    }

    /// The last answer.
    pub fn answer(&self) -> String {
        self.messages.last().map_or_else(String::new, text)
    }
}

/// The texts of a message.
fn text(message: &ChatMessage) -> String {
    let texts = message.content.iter().filter_map(|part| match part {
        ChatPart::Text(text) => Some(text.as_str()),
        ChatPart::Image => None,
    });
    texts.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// `messages` up to the last one of the assistant, after which nothing is learned; none without any.
fn chat(messages: &[Message]) -> Option<Vec<ChatMessage>> {
    let last = messages.iter().rposition(|message| message.role == Role::Assistant)?;
    let part = |part: &MessagePart| match part {
        MessagePart::Text(text) => ChatPart::Text(text.clone()),
        MessagePart::Image => ChatPart::Image,
    };
    let message =
        |message: &Message| ChatMessage::new(message.role.name(), message.content.iter().map(part).collect());
    Some(messages[..=last].iter().map(message).collect())
}

/// An image with a prompt, and the answer to it.
fn about_image(prompt: String, answer: String, reference: Reference) -> Conversation {
    let asked = ChatMessage::new(Role::User.name(), vec![ChatPart::Image, ChatPart::Text(prompt)]);
    let messages = vec![asked, ChatMessage::text(Role::Assistant.name(), answer)];
    Conversation { messages, reference }
}

/// What a page says as JSON without white space between its parts, its keys in their order.
fn compact(document: &Document) -> mm_data::Result<String> {
    serde_json::to_string(&document.value)
        .map_err(|error| mm_data::Error::bad(Fault::Other, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::DocumentValue;
    use std::sync::Arc;

    const FIRST: Conversations = Conversations {
        content: None,
        prompts: PromptsConfig { caption: String::new(), document: String::new() },
    };

    fn conversations(content: Option<Content>) -> Conversations {
        Conversations { content, prompts: PromptsConfig::default() }
    }

    fn sample() -> Sample {
        let value = DocumentValue::Object(vec![("total".to_owned(), DocumentValue::Text("9.50".to_owned()))]);
        let question = |answers: &[&str]| Question {
            text: "How much?".to_owned(),
            answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
            ..Question::default()
        };
        Sample {
            captions: vec!["a bill".to_owned(), "a receipt".to_owned()],
            questions: vec![question(&[]), question(&["9", "9.50"])],
            document: Some(Arc::new(Document::new("invoice", value))),
            ..Sample::new("a", SampleImage::Static(b""))
        }
    }

    #[test]
    fn each_content_becomes_a_prompt_about_the_image_and_an_answer() {
        for (content, prompt, answer) in [
            (None, "Read the invoice.", r#"{"total":"9.50"}"#),
            (Some(Content::Questions), "How much?", "9.50"),
            (Some(Content::Captions), "Describe the image.", "a receipt"),
        ] {
            let found = conversations(content).of(&sample(), |_, count| count - 1).unwrap();
            assert_eq!((&found.prompt()[..], &found.answer()[..]), (prompt, answer));
            assert_eq!(found.messages[0].content[0], ChatPart::Image);
            assert_eq!(found.images(&sample()).unwrap().len(), 1);
        }
    }

    #[test]
    fn messages_come_first_and_end_with_the_assistants_last() {
        let messages = vec![
            Message::text(Role::User, "Hello"),
            Message::text(Role::Assistant, "Hi."),
            Message::text(Role::User, "Bye"),
        ];
        let chat = Sample { messages, images: Vec::new(), ..sample() };
        let found = FIRST.of(&chat, |_, _| 0).unwrap();
        assert_eq!((found.messages.len(), &found.answer()[..]), (2, "Hi."));
        assert!(found.images(&chat).unwrap().is_empty());
        let error = found.images(&sample()).unwrap_err().to_string();
        assert_eq!(error, "the sample has 1 images for 0 places in its messages");
    }

    #[test]
    fn a_sample_without_the_content_is_bad() {
        let empty = Sample::new("a", SampleImage::Static(b""));
        for (content, expected) in [
            (None, "no messages, document, questions or captions"),
            (Some(Content::Chat), "no message of the assistant"),
            (Some(Content::Questions), "no question with an answer"),
            (Some(Content::Captions), "no caption"),
            (Some(Content::Document), "no document"),
        ] {
            let error = conversations(content).of(&empty, |_, _| 0).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
