//! The initial model of a run: from a checkpoint, or new with a tokenizer of the training set's characters.

use super::folder::DocumentFolder;
use super::run_config::DocumentRunConfig;
use super::target::{TargetEncoder, Vocabulary};
use super::tokens::{SEPARATOR, tag};
use super::{DocumentModel, DocumentPipeline};
use crate::{Error, Result};
use mm_core::nn::take_frozen;
use mm_core::seed;
use mm_data::Document;
use mm_text::decoder::SpecialTokens;
use mm_text::generate::GenerationConfig;
use mm_text::{Tokenizer, character_tokenizer};
use mm_train::TaskContext;
use mm_vision::DocumentProcessor;
use std::sync::Arc;
use tch::nn::VarStore;

/// The documents that are read before training, for the characters and tags that they have.
const READ_FIRST: usize = 4000;

/// Builds the model of `config` on `vs`, and moves a frozen encoder into a store of its own.
///
/// # Errors
/// A checkpoint cannot be opened or does not fit, or the tokenizer cannot encode a character of the training
/// set.
pub(crate) fn build(
    config: &DocumentRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<(DocumentPipeline, VarStore)> {
    seed::set(config.run.seed, "init", 0);
    let mut pipeline = match &config.model.from {
        Some(from) => from_checkpoint(from, config, context, vs)?,
        None => new(config, context, vs)?,
    };
    if let Some(generation) = &config.generate {
        pipeline.generation = generation.clone();
    }
    if context.checkpoint.is_none() {
        check_characters(&pipeline, config, context)?;
    }
    let frozen = take_frozen(vs, |name| config.model.freeze_encoder && name.starts_with("encoder."));
    Ok((pipeline, frozen))
}

/// The model of the checkpoint `from`, with tokens for the tags that its tokenizer does not have; of the
/// run's own checkpoint if that is missing.
fn from_checkpoint(
    from: &str,
    config: &DocumentRunConfig,
    context: &TaskContext,
    vs: &VarStore,
) -> Result<DocumentPipeline> {
    let mut folder = context.open_base(from, DocumentFolder::open, DocumentFolder::open_last_step)?;
    folder.config.decoder.gradient_checkpointing = config.train.gradient_checkpointing;
    let mut tags = vocabulary(config, context)?.tags;
    tags.insert(SEPARATOR.to_owned());
    tags.insert(tag(&config.input.schema, false));
    DocumentPipeline::load_with_tags(&mut folder, vs, &config.input.schema, &tags)
}

/// A new model.
fn new(config: &DocumentRunConfig, context: &TaskContext, vs: &VarStore) -> Result<DocumentPipeline> {
    let missing = || Error::Model("[model] has no encoder or no decoder".to_owned());
    let mut model = config.model.new_model().ok_or_else(missing)?;
    let tokenizer = match context.checkpoint {
        // That of a resumed run is the checkpoint's: documents are not read again.
        Some(checkpoint) => DocumentFolder::open_last_step(checkpoint)?.tokenizer()?,
        None => tokenizer(config, context, model.decoder.max_position_embeddings as usize)?,
    };
    model.decoder.vocab_size = tokenizer.vocab_size() as i64;
    model.decoder.gradient_checkpointing = config.train.gradient_checkpointing;
    let prompt = tag(&config.input.schema, false);
    let unknown = || Error::Model(format!("the tokenizer has no token {prompt}"));
    let start = tokenizer.token_id(&prompt).ok_or_else(unknown)?;
    let tokens = SpecialTokens { start: Some(start), end: tokenizer.eos_id(), pad: tokenizer.pad_id() };
    let [height, width] = model.encoder.image_size;
    Ok(DocumentPipeline {
        model: DocumentModel::new(&vs.root(), &model)?,
        processor: DocumentProcessor::new(width as u32, height as u32),
        config: model,
        schema: Some(config.input.schema.clone()),
        prompt: start,
        tokens,
        tokenizer: Arc::new(tokenizer),
        generation: GenerationConfig::default(),
        device: vs.device(),
    })
}

/// A tokenizer with a token for each character and each tag of the training set.
fn tokenizer(config: &DocumentRunConfig, context: &TaskContext, max_length: usize) -> Result<Tokenizer> {
    let Vocabulary { characters, tags } = vocabulary(config, context)?;
    // Printable ASCII is there in any case: the first documents need not have every digit and letter.
    let characters = characters.into_iter().chain(' '..='~');
    let mut all = vec![tag(&config.input.schema, false), SEPARATOR.to_owned()];
    all.extend(tags.into_iter().filter(|tag| !all.contains(tag)).collect::<Vec<_>>());
    Ok(character_tokenizer(characters, &all, max_length)?)
}

/// The characters and tags of the first documents of the training set.
fn vocabulary(config: &DocumentRunConfig, context: &TaskContext) -> Result<Vocabulary> {
    let mut vocabulary = Vocabulary::default();
    for document in documents(config, context) {
        vocabulary.add(&document);
    }
    if vocabulary.tags.is_empty() {
        let schema = &config.input.schema;
        let problem = format!("is a document of `input.schema` {schema:?}");
        return Err(Error::Model(format!("none of the first {READ_FIRST} training samples {problem}")));
    }
    Ok(vocabulary)
}

/// The first documents of the training set that have the schema of the run.
fn documents<'a>(
    config: &'a DocumentRunConfig,
    context: &'a TaskContext,
) -> impl Iterator<Item = Arc<Document>> + 'a {
    let total = context.dataset.len().min(READ_FIRST);
    (0..total).filter_map(move |index| {
        context.progress.report("documents read for the tokenizer", index as u64 + 1, total as u64);
        // A sample that cannot be read is counted when training reads it.
        let document = context.dataset.sample(index).ok()?.document?;
        (document.schema == config.input.schema).then_some(document)
    })
}

/// Checks that the tokenizer encodes every character of the first documents: that of published Donuts has no
/// token for a "1" by itself.
fn check_characters(
    pipeline: &DocumentPipeline,
    config: &DocumentRunConfig,
    context: &TaskContext,
) -> Result<()> {
    let encoder =
        TargetEncoder { tokenizer: &pipeline.tokenizer, prompt: pipeline.prompt, end: pipeline.tokens.end };
    documents(config, context).try_for_each(|document| encoder.encode(&document).map(|_| ()))
}
