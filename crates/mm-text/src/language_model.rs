//! A text model of Llama's form with its tokenizer: opened from a folder, used for texts.

use crate::decoder::{GENERATION_CONFIG_FILE, Llama, LlamaConfig, TextDecoder};
use crate::generate::{GenerationConfig, Hypothesis, Prompt, generate, generate_stream};
use crate::{Error, Result, Tokenizer};
use mm_core::checkpoint::TensorLayout;
use mm_core::hf::{CONFIG_FILE, HfFolder};
use mm_core::nn::matrices_in;
use mm_core::{OpenOptions, read_json};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use tch::Device;
use tch::nn::VarStore;

/// The architectures of text models.
const CLASSES: [&str; 2] = ["LlamaForCausalLM", "Qwen2ForCausalLM"];

/// The names of the token embeddings and of the output layer in their files.
const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A `LlamaForCausalLM` or `Qwen2ForCausalLM` with its tokenizer and its defaults of generation.
///
/// ```no_run
/// use mm_core::OpenOptions;
/// use mm_text::LanguageModel;
///
/// let model = LanguageModel::open("HuggingFaceTB/SmolLM2-135M", &OpenOptions::default())?;
/// let prompts = [model.prompt("The capital of France is", 0)?];
/// let texts = model.generate(&prompts, &model.generation)?;
/// println!("{}", model.decode(&texts[0][0])?);
/// # Ok::<(), mm_text::Error>(())
/// ```
#[derive(Debug)]
pub struct LanguageModel {
    /// From tokens to the next token.
    pub decoder: Llama,
    /// Its sizes.
    pub config: LlamaConfig,
    /// The token that the tokenizer puts before a text, if any.
    pub begin: Option<u32>,
    /// The tokens that end a text.
    pub end: Vec<u32>,
    /// From texts to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's defaults of generation.
    pub generation: GenerationConfig,
    /// The device of the model.
    pub device: Device,
}

impl LanguageModel {
    /// Whether the folder or the hub name `model` has the config of a text model of this form. Errors of a
    /// model that cannot be found or read are those of opening it.
    pub fn is_language_model(model: &str) -> bool {
        let config: mm_core::Result<Value> = HfFolder::open(model).and_then(|folder| folder.config());
        config.is_ok_and(|config| {
            let model_type = config["model_type"].as_str();
            ["llama", "qwen2"].iter().any(|&offered| model_type == Some(offered))
                && config["architectures"][0].as_str().is_none_or(|class| CLASSES.contains(&class))
        })
    }

    /// Opens the text model in a folder or of a hub name for inference. In bf16 its weights are never in
    /// memory in f32.
    ///
    /// # Errors
    /// A file is missing or damaged, the architecture is not supported, or config, weights and tokenizer do
    /// not match.
    pub fn open(model: &str, options: &OpenOptions) -> Result<Self> {
        let vs = VarStore::new(options.resolve_device()?);
        let folder = HfFolder::open(model)?;
        let mut model = matrices_in(options.precision.kind(), || Self::load(&folder, &vs))?;
        options.warn_if_slow(&vs);
        // Otherwise all weights would be in memory twice: packing a layer frees its own.
        drop(vs);
        // One row goes through large matrices in each step: packed weights are faster in f32 too.
        model.decoder.pack(options.precision);
        Ok(model)
    }

    /// Builds the text model of `folder` on `vs` and fills it.
    ///
    /// # Errors
    /// As [`LanguageModel::open`].
    pub fn load(folder: &HfFolder, vs: &VarStore) -> Result<Self> {
        let file = folder.file(CONFIG_FILE);
        let json: Value = folder.config()?;
        let mut config = read_config(&json).map_err(|error| at(&file, error))?;
        let generation_file = folder.file(GENERATION_CONFIG_FILE);
        let generation: Value =
            if generation_file.exists() { read_json(&generation_file)? } else { Value::Null };
        let end = [&generation, &json].into_iter().map(end_tokens).find(|end| !end.is_empty());
        let end = end.ok_or_else(|| wrong(&file, "no eos_token_id, with which texts end".to_owned()))?;

        let tokenizer = open_tokenizer(folder, &config, &end)?;
        let begin = tokenizer.encode("")?.first().copied().filter(|id| !end.contains(id));
        let mut weights = folder.weights("model")?;
        config.drop_copies(&mut weights, EMBEDDINGS, HEAD)?;
        let decoder = weights.build(vs, &TensorLayout::HF, |path| {
            Llama::new(&(path / "model"), &(path / "lm_head"), &config)
        })?;
        let generation = GenerationConfig::from_folder(folder, &json, usize::from(begin.is_some()))?;
        let tokenizer = Arc::new(tokenizer);
        Ok(Self { decoder, config, begin, end, tokenizer, generation, device: vs.device() })
    }

    /// The prompt of texts that begin with `text`, with the seed of their draws.
    ///
    /// # Errors
    /// The tokenizer does not cover the text.
    pub fn prompt(&self, text: &str, seed: u64) -> Result<Prompt> {
        let mut tokens: Vec<u32> = self.begin.into_iter().collect();
        tokens.extend(self.tokenizer.encode_words(text)?);
        Ok(Prompt { tokens, seed })
    }

    /// As [`LanguageModel::prompt`], of a text that a chat template wrote, the begin token included.
    ///
    /// # Errors
    /// As [`LanguageModel::prompt`].
    pub fn chat_prompt(&self, rendered: &str, seed: u64) -> Result<Prompt> {
        Ok(Prompt { tokens: self.tokenizer.encode_words(rendered)?, seed })
    }

    /// Texts after `prompts`, of any lengths: those of each prompt, the best first.
    ///
    /// # Errors
    /// As [`generate`](crate::generate::generate()).
    pub fn generate(&self, prompts: &[Prompt], config: &GenerationConfig) -> Result<Vec<Vec<Hypothesis>>> {
        generate(&self.decoder, None, prompts, config, &self.end)
    }

    /// One text after `prompt`, token by token.
    ///
    /// # Errors
    /// As [`generate_stream`].
    pub fn generate_stream(
        &self,
        prompt: &Prompt,
        config: &GenerationConfig,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Hypothesis> {
        generate_stream(&self.decoder, None, prompt, config, &self.end, on_token)
    }

    /// The text of a hypothesis, without its prompt and without special tokens.
    ///
    /// # Errors
    /// The tokenizer cannot decode it.
    pub fn decode(&self, hypothesis: &Hypothesis) -> Result<String> {
        self.tokenizer.decode(&hypothesis.tokens)
    }
}

/// Reads the config of a text model.
fn read_config(json: &Value) -> Result<LlamaConfig> {
    if let Some(class) = json["architectures"][0].as_str().filter(|class| !CLASSES.contains(class)) {
        return Err(Error::Config(format!(
            "architectures names {class}: text models are {} and {}",
            CLASSES[0], CLASSES[1]
        )));
    }
    LlamaConfig::from_hf(json)
}

/// The end tokens that `config` names: one, or a list.
fn end_tokens(config: &Value) -> Vec<u32> {
    let ids = match &config["eos_token_id"] {
        Value::Array(ids) => ids.as_slice(),
        id => std::slice::from_ref(id),
    };
    ids.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// Opens the tokenizer in `folder` and checks it against the decoder and its end tokens.
fn open_tokenizer(folder: &HfFolder, config: &LlamaConfig, end: &[u32]) -> Result<Tokenizer> {
    let path = folder.tokenizer_folder();
    let tokenizer = Tokenizer::for_decoder(&path)?;
    config.check_tokenizer(&tokenizer).map_err(|error| at(&path, error))?;
    match end.iter().find(|&&id| tokenizer.token(id).is_none()) {
        None => Ok(tokenizer),
        Some(id) => Err(wrong(
            &path,
            format!(
                "the tokenizer has no token {id}, with which texts end in {CONFIG_FILE}: take the tokenizer \
                 that the model was trained with"
            ),
        )),
    }
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::Format { path: path.to_owned(), reason }
}

/// `error` as one of the file `path`.
fn at(path: &Path, error: Error) -> Error {
    wrong(path, error.to_string())
}
