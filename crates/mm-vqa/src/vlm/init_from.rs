//! The initial model of a run: from a checkpoint, or new with a tokenizer of the training set's texts.

use super::conversation::Conversations;
use super::images::VlmImages;
use super::run_config::VlmRunConfig;
use super::{Vlm, VlmFolder, VlmParts, VlmPipeline, VlmProcessor};
use crate::{Error, Result};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_text::generate::GenerationConfig;
use mm_text::{ChatMessage, ChatPart, ChatTemplate, Tokenizer, chat_tokenizer, train_chat_bpe};
use mm_train::TaskContext;
use mm_vision::Idefics3Processor;
use std::sync::Arc;
use tch::nn::VarStore;

/// The samples that are read before training, for the words that their texts have.
const READ_FIRST: usize = 4000;

/// Tiles along a side of a split image, as SmolVLM's files set them.
const TILES: u32 = 4;

/// The chat template of a new model: the form of SmolVLM's conversations, with an end token after each
/// message.
const TEMPLATE: &str = "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:\
                        {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\
                        {% else %}{% if loop.first %}{{ ' ' }}{% endif %}{{ part['text'] }}{% endif %}\
                        {% endfor %}<end_of_utterance>{{ '\\n' }}{% endfor %}\
                        {% if add_generation_prompt %}Assistant:{% endif %}";

/// Builds the model of `config` on `vs`, and moves the parts that do not train into a store of their own.
///
/// # Errors
/// A checkpoint cannot be opened or does not fit, or the training set has no texts.
pub(crate) fn build(
    config: &VlmRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<(VlmPipeline, VarStore)> {
    seed::set(config.run.seed, "init", 0);
    let mut pipeline = match &config.model.from {
        Some(from) => from_checkpoint(from, config, context, vs)?,
        None => new(config, context, vs)?,
    };
    if let Some(generation) = &config.generate {
        pipeline.generation = generation.clone();
    }
    let family = pipeline.config.family;
    let frozen = take_frozen(vs, |name| config.model.is_frozen(family, name));
    Ok((pipeline, frozen))
}

/// The model of the checkpoint `from`; of the run's own checkpoint if that is missing.
fn from_checkpoint(
    from: &str,
    config: &VlmRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<VlmPipeline> {
    let mut folder = context.open_base(from, VlmFolder::open, VlmFolder::open_last_step)?;
    folder.config.set_gradient_checkpointing(config.train.gradient_checkpointing);
    VlmPipeline::load(&folder, vs)
}

/// A new model.
fn new(config: &VlmRunConfig, context: &TaskContext, vs: &VarStore) -> Result<VlmPipeline> {
    let missing = || Error::Model("[model] has no image tower or no decoder".to_owned());
    let text = config.model.text.as_ref().ok_or_else(missing)?;
    // The tokenizer of a resumed run is the checkpoint's: texts are not read again.
    let own =
        context.checkpoint.map(|checkpoint| VlmFolder::open_last_step(checkpoint)?.parts()).transpose()?;
    let tokenizer = match &own {
        Some(own) => Arc::clone(&own.tokenizer),
        None => Arc::new(tokenizer(config, context, text.max_position_embeddings as usize)?),
    };
    let mut model = config.model.new_model(tokenizer.vocab_size() as i64).ok_or_else(missing)?;
    model.set_gradient_checkpointing(config.train.gradient_checkpointing);
    let parts = match own {
        Some(own) => own,
        None => {
            let tile = model.vision.image_size as u32;
            let splits = config.input.image_splitting;
            let longest_edge = if splits { TILES * tile } else { tile };
            let images = VlmImages::Tiles(Idefics3Processor::new(longest_edge, tile, splits));
            let eos = vec![tokenizer.eos_id()];
            VlmParts {
                processor: VlmProcessor::new(&model, images, &tokenizer, &eos)?,
                pad: tokenizer.pad_id(),
                tokenizer,
                template: Some(Arc::new(ChatTemplate::new(TEMPLATE)?)),
                generation: GenerationConfig::default(),
                eos,
            }
        }
    };
    Ok(VlmPipeline::new(Vlm::new(&vs.root(), &model)?, model, parts, vs.device()))
}

/// A tokenizer that is trained on the first conversations of the training set. Rank 0 reads them and
/// broadcasts the result.
fn tokenizer(config: &VlmRunConfig, context: &TaskContext, context_length: usize) -> Result<Tokenizer> {
    let missing = || Error::Model("[tokenizer] is missing".to_owned());
    let vocab_size = config.tokenizer.ok_or_else(missing)?.vocab_size;
    if context.dataset.stream().is_some() {
        return Err(Error::Model(format!(
            "`{}` is a stream, which is read once: a tokenizer cannot be trained on its texts first",
            context.dataset.name()
        )));
    }
    let mut json = String::new();
    if context.group.is_main() {
        json = train_chat_bpe(texts(config, context).into_iter(), vocab_size, context_length)?.to_json()?;
    }
    let json = String::from_utf8_lossy(&context.group.broadcast_bytes(json.as_bytes())?).into_owned();
    Ok(chat_tokenizer(&json, context_length)?)
}

/// The texts of the first conversations, each after the name of its author as the template writes it.
fn texts(config: &VlmRunConfig, context: &TaskContext) -> Vec<String> {
    let conversations =
        Conversations { content: config.input.content, prompts: config.input.prompts.clone() };
    let total = context.dataset.len().min(READ_FIRST);
    let mut texts = Vec::new();
    for index in 0..total {
        context.progress.report("conversations read for the tokenizer", index as u64 + 1, total as u64);
        // A sample that cannot be read is counted when training reads it.
        let Ok(sample) = context.dataset.sample(index) else { continue };
        let Ok(conversation) = conversations.of(&sample, |_, count| index % count) else { continue };
        texts.extend(conversation.messages.iter().map(text));
    }
    texts
}

/// A message as the template of new models writes it, without the marks.
fn text(message: &ChatMessage) -> String {
    let mut text = message.role.clone();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.push(':');
    for (place, part) in message.content.iter().enumerate() {
        if let ChatPart::Text(part) = part {
            // Behind an image a text begins at once.
            text.push_str(if place == 0 { " " } else { "\n" });
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_new_models_continues_each_conversation_and_ends_each_message() {
        let template = ChatTemplate::new(TEMPLATE).unwrap();
        let question = vec![ChatPart::Image, ChatPart::Text("Red?".to_owned())];
        let messages = [
            ChatMessage::text("system", "Be short."),
            ChatMessage::new("user", question),
            ChatMessage::text("assistant", "Yes."),
            ChatMessage::text("user", "Sure?"),
        ];
        let expected = "<|im_start|>System: Be short.<end_of_utterance>\nUser:<image>Red?<end_of_utterance>\n\
                        Assistant: Yes.<end_of_utterance>\nUser: Sure?<end_of_utterance>\nAssistant:";
        assert_eq!(template.render(&messages, true).unwrap(), expected);
        for count in 1..=messages.len() {
            assert!(expected.starts_with(&template.render(&messages[..count], false).unwrap()));
        }
        assert_eq!(text(&messages[2]), "Assistant: Yes.");
        assert_eq!(text(&messages[1]), "User:\nRed?");
    }
}
