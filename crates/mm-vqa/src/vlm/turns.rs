//! The tokens of a conversation, and which of them are learned.

use super::pipeline::VlmPipeline;
use super::processor::VlmProcessor;
use crate::{Error, Result};
use mm_data::Role;
use mm_text::{ChatMessage, ChatTemplate, Tokenizer};
use mm_vision::ImageTiles;
use std::sync::Arc;

/// The tokens of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChatTokens {
    /// From the begin token to the end token of the last answer.
    pub token_ids: Vec<u32>,
    /// Which of them are learned: the answers of the assistant, each with the token that ends it.
    pub is_label: Vec<bool>,
    /// The number of tokens before the last answer.
    pub prompt_length: usize,
}

/// From conversations to tokens, on any thread.
#[derive(Clone, Debug)]
pub(crate) struct TurnEncoder {
    pub processor: VlmProcessor,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    image_token_id: u32,
    eos: Vec<u32>,
}

impl TurnEncoder {
    /// The encoder of a model's conversations, whose images `processor` makes tiles of.
    ///
    /// # Errors
    /// The model has no chat template.
    pub fn new(pipeline: &VlmPipeline, processor: VlmProcessor) -> Result<Self> {
        let missing = "the model has no chat template, in whose form conversations are learned: add a \
                       chat_template.jinja to its folder";
        let template = pipeline.template.clone().ok_or_else(|| Error::Model(missing.to_owned()))?;
        Ok(Self {
            processor,
            tokenizer: Arc::clone(&pipeline.tokenizer),
            template,
            image_token_id: pipeline.config.image_token_id,
            eos: pipeline.eos.clone(),
        })
    }

    /// The tokens of `messages`, the last of which is the assistant's, about `images`.
    ///
    /// The labels of an answer begin where the template's beginning of an answer ends, and end with the end
    /// token that the template writes after it. A template that writes none gets one after the last answer,
    /// without which the model would learn to go on for ever.
    ///
    /// # Errors
    /// The template refuses the messages or does not write a conversation as the continuation of its
    /// beginning, a text has a placeholder of its own, or an answer has no tokens.
    pub fn encode(&self, messages: &[ChatMessage], images: &[ImageTiles]) -> Result<ChatTokens> {
        let whole = self.template.render(messages, false)?;
        let mut token_ids = self.ids(&whole, images)?;
        let mut is_label = vec![false; token_ids.len()];
        let (mut prompt_length, mut length) = (0, 0);
        let is_answer = |message: &ChatMessage| message.role == Role::Assistant.name();
        for place in (0..messages.len()).filter(|&place| is_answer(&messages[place])) {
            let is_last = place + 1 == messages.len();
            let before = self.template.render(&messages[..place], true)?;
            let begin = self.tokens_in(&before, &whole, place, &token_ids, images)?;
            let mut end = token_ids.len();
            if !is_last {
                let after = self.template.render(&messages[..=place], false)?;
                end = self.tokens_in(&after, &whole, place + 1, &token_ids, images)?;
            }
            let answer = token_ids.get(begin..end).unwrap_or_default();
            if let Some(last) = answer.iter().rposition(|id| self.eos.contains(id)) {
                end = begin + last + 1; // what follows belongs to the form
            }
            if begin >= end {
                return Err(Error::Model(format!("message {}: the answer has no tokens", place + 1)));
            }
            is_label[begin..end].fill(true);
            (prompt_length, length) = (begin, end);
        }
        if length == 0 {
            return Err(Error::Model("the conversation has no answer".to_owned()));
        }
        token_ids.truncate(length);
        is_label.truncate(length);
        if let (Some(&end), Some(last)) = (self.eos.first(), token_ids.last())
            && !self.eos.contains(last)
        {
            token_ids.push(end);
            is_label.push(true);
        }
        let placeholders = token_ids.iter().zip(&mut is_label).filter(|(id, _)| **id == self.image_token_id);
        placeholders.for_each(|(_, is_label)| *is_label = false);
        Ok(ChatTokens { token_ids, is_label, prompt_length })
    }

    /// The number of the first of `token_ids`, those of `whole`, that `text` has, the first `messages`
    /// messages of it.
    fn tokens_in(
        &self,
        text: &str,
        whole: &str,
        messages: usize,
        token_ids: &[u32],
        images: &[ImageTiles],
    ) -> Result<usize> {
        if !whole.starts_with(text) {
            return Err(Error::Model(format!(
                "the chat template does not write a conversation as the continuation of its first {messages} \
                 messages, so that its answers cannot be found: such a template cannot be trained with"
            )));
        }
        // A token over the boundary belongs to the answer.
        Ok(self.ids(text, images)?.iter().zip(token_ids).take_while(|(a, b)| a == b).count())
    }

    /// The tokens of `text`, which has the places of the first of `images`.
    fn ids(&self, text: &str, images: &[ImageTiles]) -> Result<Vec<u32>> {
        let places = text.matches(self.processor.image_token()).count();
        self.processor.encode(&self.tokenizer, text, &images[..places.min(images.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlm::VlmFolder;
    use mm_image::RgbImage;
    use mm_text::ChatPart;
    use std::path::Path;
    use tch::Device;
    use tch::nn::VarStore;

    fn pipeline(name: &str) -> VlmPipeline {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/vlm").join(name);
        let folder = VlmFolder::open(folder.to_str().unwrap()).unwrap();
        VlmPipeline::load(&folder, &VarStore::new(Device::Cpu)).unwrap()
    }

    fn messages() -> Vec<ChatMessage> {
        let question = vec![ChatPart::Image, ChatPart::Text("red?".to_owned())];
        vec![
            ChatMessage::new("user", question),
            ChatMessage::text("assistant", "no"),
            ChatMessage::text("user", "the red one?"),
            ChatMessage::text("assistant", "in there is one"),
        ]
    }

    /// The texts of the tokens that are learned, one for each answer.
    fn learned(tokens: &ChatTokens, tokenizer: &Tokenizer) -> Vec<(String, u32)> {
        let mut runs: Vec<Vec<u32>> = Vec::new();
        let mut was_label = false;
        for (&id, &is_label) in tokens.token_ids.iter().zip(&tokens.is_label) {
            if is_label && !was_label {
                runs.push(Vec::new());
            }
            if let (true, Some(run)) = (is_label, runs.last_mut()) {
                run.push(id);
            }
            was_label = is_label;
        }
        let text = |run: Vec<u32>| (tokenizer.decode(&run).unwrap(), *run.last().unwrap());
        runs.into_iter().map(text).collect()
    }

    #[test]
    fn answers_and_their_ends_alone_are_learned_after_the_prompts_of_inference() {
        let image = RgbImage::from_pixel(30, 20, mm_image::image::Rgb([90, 120, 10]));
        for name in ["smolvlm", "llava", "llava-interleave"] {
            let pipeline = pipeline(name);
            let encoder = TurnEncoder::new(&pipeline, pipeline.processor.clone()).unwrap();
            let images = [pipeline.processor.tiles(&image).unwrap()];
            let tokens = encoder.encode(&messages(), &images).unwrap();
            let learned = learned(&tokens, &pipeline.tokenizer);
            let texts: Vec<&str> = learned.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(texts, ["no", "in there is one"], "{name}");
            let ends = learned.iter().filter(|(_, last)| pipeline.eos.contains(last)).count();
            // LLaVA's template writes no end tokens: the last answer gets one.
            assert_eq!(ends, if name == "llava" { 1 } else { 2 }, "{name}");
            assert!(pipeline.eos.contains(tokens.token_ids.last().unwrap()));
            let prompt = pipeline.prompt(&messages()[..3], std::slice::from_ref(&image)).unwrap();
            assert_eq!(tokens.token_ids[..tokens.prompt_length], prompt.input_ids, "{name}");
            let first = encoder.encode(&messages()[..2], &images).unwrap();
            let length = first.token_ids.len() - usize::from(name == "llava");
            assert_eq!(first.token_ids[..length], tokens.token_ids[..length], "{name}");
            assert_eq!(first.is_label[..length], tokens.is_label[..length], "{name}");
        }
    }

    #[test]
    fn a_template_that_rewrites_earlier_messages_is_refused() {
        let pipeline = pipeline("smolvlm");
        let mut encoder = TurnEncoder::new(&pipeline, pipeline.processor.clone()).unwrap();
        let source = "{{ messages | length }}{% for message in messages %}{{ message['role'] }}: \
                      {{ message['content'] }}\n{% endfor %}";
        encoder.template = Arc::new(ChatTemplate::new(source).unwrap());
        let messages = [ChatMessage::text("user", "red?"), ChatMessage::text("assistant", "no")];
        let error = encoder.encode(&messages, &[]).unwrap_err().to_string();
        assert!(error.contains("as the continuation of its first 1 messages"), "{error}");
    }

    #[test]
    fn a_placeholder_that_is_written_in_a_text_is_refused() {
        let pipeline = pipeline("smolvlm");
        let encoder = TurnEncoder::new(&pipeline, pipeline.processor.clone()).unwrap();
        let messages = [ChatMessage::text("user", "<image>"), ChatMessage::text("assistant", "no")];
        let error = encoder.encode(&messages, &[]).unwrap_err().to_string();
        assert!(error.contains("1 image tokens (<image>) for 0 images"), "{error}");
    }
}
