//! Textual inversion (Gal et al. 2022): learned vectors of new tokens, in the files of diffusers.
//!
//! A file maps a token to one vector `[d]` or several `[n, d]`. Several vectors are several tokens in a row,
//! `TOKEN`, `TOKEN_1`, ..., and the token in a prompt stands for all of them. Files for SDXL have the vectors
//! of both text encoders, `clip_l` and `clip_g`, and the token is the file's name.

use crate::{Error, Result};
use mm_core::checkpoint::{Weights, write};
use std::borrow::Cow;
use std::path::Path;
use tch::{Kind, Tensor};

/// The keys of SDXL's files: the vectors of the first and of the second text encoder.
const SDXL_KEYS: [&str; 2] = ["clip_l", "clip_g"];

/// Far more vectors than a prompt has room for.
pub(crate) const MAX_VECTORS: i64 = 1024;

/// The vectors of a new token.
#[derive(Debug)]
pub struct TextualInversion {
    token: String,
    /// `[n, d]` of the first text encoder.
    vectors: Tensor,
    /// `[n, d]` of SDXL's second.
    vectors_2: Option<Tensor>,
}

impl TextualInversion {
    /// The token `token` with `vectors` `[d]` or `[n, d]`, and those of SDXL's second text encoder.
    ///
    /// # Errors
    /// The token is empty or has spaces, or the vectors are of another shape, not finite, or not as many of
    /// one encoder as of the other.
    pub fn new(token: &str, vectors: Tensor, vectors_2: Option<Tensor>) -> Result<Self> {
        let bad = |problem: String| Error::Model(format!("textual inversion: {problem}"));
        if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad(format!("the token {token:?} must be a word without spaces")));
        }
        let vectors = rows(&vectors).map_err(bad)?;
        let vectors_2 = vectors_2.map(|vectors| rows(&vectors)).transpose().map_err(bad)?;
        let (count, count_2) = (vectors.size()[0], vectors_2.as_ref().map(|vectors| vectors.size()[0]));
        if count_2.is_some_and(|count_2| count_2 != count) {
            return Err(bad(format!("{count} vectors of one text encoder and {count_2:?} of the other")));
        }
        Ok(Self { token: token.to_owned(), vectors, vectors_2 })
    }

    /// Reads the safetensors file at `path`. `token` renames the token; SDXL's files name none, and have that
    /// of the file's name unless it is given.
    ///
    /// # Errors
    /// The file is damaged, a pickle or no textual inversion; otherwise as [`TextualInversion::new`].
    pub fn open(path: &Path, token: Option<&str>) -> Result<Self> {
        let bad = |problem: String| Error::Lora { path: path.to_owned(), problem };
        let extension =
            path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if matches!(extension.as_str(), "pt" | "bin" | "pth" | "ckpt") {
            return Err(bad("a pickle, and reading one runs the code in it; convert it if you trust it: \
                 python -c \"import sys, torch, safetensors.torch as s; \
                 d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); \
                 d = {d['name']: d['string_to_param']['*']} if 'string_to_param' in d else d; \
                 s.save_file({k: v.detach().contiguous() for k, v in d.items()}, sys.argv[2])\" \
                 IN OUT.safetensors"
                .to_owned()));
        }
        let weights = Weights::open(path)?;
        let names: Vec<String> = weights.list().into_iter().map(|tensor| tensor.name).collect();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let read = |name: &str| -> Result<Tensor> {
            // Checked before it is read: a model's weights are no vectors.
            match weights.shape(name) {
                Some([_] | [_, _]) => Ok(weights.tensor(name)?),
                shape => Err(bad(format!("{name} is {shape:?}: vectors are [d] or [n, d]"))),
            }
        };
        let found = match names.as_slice() {
            [second, first] if [first.as_str(), second.as_str()] == SDXL_KEYS => {
                Self::new(token.unwrap_or(&stem), read(first)?, Some(read(second)?))
            }
            [name] => Self::new(token.unwrap_or(name), read(name)?, None),
            names => {
                let shown = names[..names.len().min(3)].join(", ");
                return Err(bad(format!(
                    "no textual inversion, which has one tensor or clip_l and clip_g: it has {} ({shown})",
                    names.len()
                )));
            }
        };
        found.map_err(|error| match error {
            Error::Model(problem) => bad(problem),
            error => error,
        })
    }

    /// Writes the file that diffusers reads: the token and its vectors, or `clip_l` and `clip_g`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let tensors = match &self.vectors_2 {
            Some(vectors_2) => {
                let [first, second] = SDXL_KEYS.map(str::to_owned);
                vec![(first, self.vectors.shallow_clone()), (second, vectors_2.shallow_clone())]
            }
            None => vec![(self.token.clone(), self.vectors.shallow_clone())],
        };
        Ok(write(path, &tensors)?)
    }

    /// The token as it stands in a prompt.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The tokens of the vectors, in their order: `TOKEN`, `TOKEN_1`, ...
    pub fn tokens(&self) -> Vec<String> {
        let numbered = (1..self.vectors.size()[0]).map(|number| format!("{}_{number}", self.token));
        std::iter::once(self.token.clone()).chain(numbered).collect()
    }

    /// The vectors of the first text encoder, `[n, d]`.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// The vectors of SDXL's second text encoder, `[n, d]`.
    pub fn vectors_2(&self) -> Option<&Tensor> {
        self.vectors_2.as_ref()
    }

    /// `prompt` with every occurrence of the token replaced by the tokens of all vectors, as diffusers'
    /// `maybe_convert_prompt` does. One that is numbered already stays.
    pub fn expand(&self, prompt: &str) -> String {
        expand(&[self.tokens()], prompt).into_owned()
    }
}

/// `prompt` with each first token of `inversions` replaced by all of its inversion. At every place the
/// longest token counts, as in tokenizers.
pub(crate) fn expand<'a>(inversions: &[Vec<String>], prompt: &'a str) -> Cow<'a, str> {
    if inversions.iter().all(|tokens| tokens.len() < 2) {
        return prompt.into();
    }
    let (mut expanded, mut rest) = (String::new(), prompt);
    while let Some(character) = rest.chars().next() {
        let tokens = inversions.iter().flat_map(|tokens| tokens.iter().map(move |token| (token, tokens)));
        let found = tokens.filter(|(token, _)| rest.starts_with(token.as_str()));
        let length = match found.max_by_key(|(token, _)| token.len()) {
            Some((token, tokens)) if *token == tokens[0] => {
                expanded.push_str(&tokens.join(" "));
                token.len()
            }
            Some((token, _)) => {
                expanded.push_str(token);
                token.len()
            }
            None => {
                expanded.push(character);
                character.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    expanded.into()
}

/// `vectors` as `[n, d]` in f32.
fn rows(vectors: &Tensor) -> Result<Tensor, String> {
    let size = vectors.size();
    let rows = match size.as_slice() {
        [width] if *width > 0 => vectors.f_unsqueeze(0),
        [count, width] if (1..=MAX_VECTORS).contains(count) && *width > 0 => Ok(vectors.shallow_clone()),
        _ => {
            return Err(format!(
                "the vectors are {size:?}: they must be [d], or [n, d] with n to {MAX_VECTORS}"
            ));
        }
    };
    let rows =
        rows.and_then(|rows| rows.detach().f_to_kind(Kind::Float)).map_err(|error| error.to_string())?;
    let sum =
        rows.f_abs().and_then(|sizes| sizes.f_sum(Kind::Double)).and_then(|sum| sum.f_double_value(&[]));
    match sum.map_err(|error| error.to_string())?.is_finite() {
        true => Ok(rows),
        false => Err("the vectors have NaN or infinite numbers".to_owned()),
    }
}
