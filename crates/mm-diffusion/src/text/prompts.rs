//! What a denoiser reads of prompts, by the rules of each family.

use super::encoder::ClipStates;
use super::new_tokens::added;
use super::{ClipTextEncoder, T5TextEncoder};
use crate::{Error, Result};
use mm_core::Precision;
use mm_text::Padding;
use std::borrow::Cow;
use tch::{Device, Kind, Tensor};

/// How a family of pipelines reads its text encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextRules {
    /// Stable Diffusion 1 and 2: the last states of one CLIP, after its final norm. SD 2's folder leaves out
    /// the last layer itself.
    Sd,
    /// SDXL: the last but one states of two CLIPs, without the final norm, and the second's vector.
    Sdxl {
        /// Whether no negative prompt means zeros, in place of the states of an empty text.
        zeros_for_no_negative: bool,
    },
    /// SD3: as SDXL, both vectors, then the states of T5, or zeros in their place.
    Sd3 {
        /// Width of the states.
        width: i64,
    },
    /// Models in pixels that are trained here: the last states of one CLIP and its vector; padding is hidden.
    Masked,
}

/// The text encoders of a pipeline.
#[derive(Debug)]
pub(crate) struct TextEncoders {
    pub rules: TextRules,
    pub first: ClipTextEncoder,
    pub second: Option<ClipTextEncoder>,
    pub t5: Option<T5TextEncoder>,
    /// The tokens of each textual inversion.
    pub new_tokens: Vec<Vec<String>>,
}

/// What a denoiser reads of N prompts.
#[derive(Debug)]
pub(crate) struct TextConditions {
    /// States, `[N, L, D]`.
    pub states: Tensor,
    /// One vector a prompt, `[N, P]`; none in SD 1 and 2.
    pub pooled: Option<Tensor>,
    /// `[N, L]`: 0 for padding that is hidden; none where padding is read.
    pub mask: Option<Tensor>,
}

impl TextConditions {
    /// Of a model in pixels: the last states, the vector, and the padding that is hidden.
    pub(crate) fn masked(states: ClipStates) -> Self {
        Self { states: states.last, pooled: Some(states.pooled), mask: Some(states.attention_mask) }
    }

    /// The same conditions.
    pub(crate) fn shallow_clone(&self) -> Self {
        let copy = |x: &Option<Tensor>| x.as_ref().map(Tensor::shallow_clone);
        Self { states: self.states.shallow_clone(), pooled: copy(&self.pooled), mask: copy(&self.mask) }
    }

    /// `self` and then `other`. Where padding is hidden, the shorter ones get more of it.
    pub(crate) fn followed_by(&self, other: &Self) -> Self {
        let length = self.states.size()[1].max(other.states.size()[1]);
        let padded = |x: &Tensor| match x.dim() {
            3 => x.constant_pad_nd([0, 0, 0, length - x.size()[1]]),
            _ => x.constant_pad_nd([0, length - x.size()[1]]),
        };
        let join = |a: &Option<Tensor>, b: &Option<Tensor>| Some(Tensor::cat(&[a.as_ref()?, b.as_ref()?], 0));
        let mask = match (&self.mask, &other.mask) {
            (Some(mask), Some(other)) => Some(Tensor::cat(&[padded(mask), padded(other)], 0)),
            _ => None,
        };
        Self {
            states: Tensor::cat(&[padded(&self.states), padded(&other.states)], 0),
            pooled: join(&self.pooled, &other.pooled),
            mask,
        }
    }
}

impl TextEncoders {
    /// The encoders with the tokens that their tokenizers have.
    pub(crate) fn new(
        rules: TextRules,
        first: ClipTextEncoder,
        second: Option<ClipTextEncoder>,
        t5: Option<T5TextEncoder>,
    ) -> Self {
        let new_tokens = added(&first.tokenizer);
        Self { rules, first, second, t5, new_tokens }
    }

    /// What the denoiser reads of `prompts`. With `clip_skip` k, CLIP's states are those of k layers earlier.
    pub(crate) fn encode(&self, prompts: &[&str], clip_skip: usize) -> Result<TextConditions> {
        let padding = if self.rules == TextRules::Masked { Padding::Longest } else { Padding::Fixed };
        let expanded = self.expanded(prompts);
        let prompts: Vec<&str> = expanded.iter().map(AsRef::as_ref).collect();
        let prompts = prompts.as_slice();
        let states = self.first.encode(prompts, padding)?;
        // The states `back` layers before the last.
        let at = |hidden: &[Tensor], back: usize| -> Result<Tensor> {
            let layers = hidden.len() - 1;
            match layers.checked_sub(back) {
                Some(index) => Ok(hidden[index].shallow_clone()),
                None => {
                    Err(Error::Request(format!("clip_skip {clip_skip}: a text encoder has {layers} layers")))
                }
            }
        };
        match self.rules {
            TextRules::Sd => {
                let states = self.first.model.final_norm(&at(&states.hidden, clip_skip)?);
                Ok(TextConditions { states, pooled: None, mask: None })
            }
            TextRules::Masked => {
                let last = self.first.model.final_norm(&at(&states.hidden, clip_skip)?);
                Ok(TextConditions {
                    states: last,
                    pooled: Some(states.pooled),
                    mask: Some(states.attention_mask),
                })
            }
            TextRules::Sdxl { .. } | TextRules::Sd3 { .. } => {
                let second = self.second()?.encode(prompts, padding)?;
                let hidden = [at(&states.hidden, clip_skip + 1)?, at(&second.hidden, clip_skip + 1)?];
                let clip = Tensor::cat(&hidden, -1);
                let TextRules::Sd3 { width } = self.rules else {
                    return Ok(TextConditions { states: clip, pooled: Some(second.pooled), mask: None });
                };
                let missing = width - clip.size()[2];
                if missing < 0 {
                    let found = clip.size()[2];
                    return Err(Error::Model(format!(
                        "the CLIPs give {found} numbers, the transformer reads {width}"
                    )));
                }
                let clip = clip.constant_pad_nd([0, missing]);
                let t5 = match &self.t5 {
                    Some(t5) => t5.encode(prompts)?.to_kind(clip.kind()),
                    None => Tensor::zeros(
                        [prompts.len() as i64, T5TextEncoder::LENGTH as i64, width],
                        (clip.kind(), clip.device()),
                    ),
                };
                Ok(TextConditions {
                    states: Tensor::cat(&[clip, t5], 1),
                    pooled: Some(Tensor::cat(&[states.pooled, second.pooled], -1)),
                    mask: None,
                })
            }
        }
    }

    /// What the denoiser reads of negative prompts, which are never read from an earlier layer; `None` is no
    /// negative prompt. `like` are the conditions of the prompts.
    pub(crate) fn encode_negative(
        &self,
        negative: &[Option<&str>],
        like: &TextConditions,
    ) -> Result<TextConditions> {
        let zeros = matches!(self.rules, TextRules::Sdxl { zeros_for_no_negative: true });
        if zeros && negative.iter().all(Option::is_none) {
            return Ok(TextConditions {
                states: like.states.zeros_like(),
                pooled: like.pooled.as_ref().map(Tensor::zeros_like),
                mask: None,
            });
        }
        let texts: Vec<&str> = negative.iter().map(|text| text.unwrap_or_default()).collect();
        self.encode(&texts, 0)
    }

    fn second(&self) -> Result<&ClipTextEncoder> {
        self.second.as_ref().ok_or_else(|| Error::Model("the pipeline has no text_encoder_2".to_owned()))
    }

    /// The ends of `prompts` that no CLIP reads, each with its prompt.
    pub(crate) fn cut<'a>(&self, prompts: &[&'a str]) -> Result<Vec<(&'a str, String)>> {
        let expanded = self.expanded(prompts);
        let cut = |(&prompt, expanded): (&&'a str, &Cow<str>)| {
            Ok(self.first.cut(expanded)?.map(|end| (prompt, end)))
        };
        prompts.iter().zip(&expanded).map(cut).filter_map(Result::transpose).collect()
    }

    pub(crate) fn pack(&mut self, precision: Precision) {
        self.first.pack(precision);
        self.second.iter_mut().for_each(|encoder| encoder.pack(precision));
        self.t5.iter_mut().for_each(|encoder| encoder.pack(precision));
    }
}

/// The embedding of a distilled model's guidance scale, `[N, width]` (Luo et al. 2023).
pub(crate) fn guidance_embedding(scale: f64, count: i64, width: i64, device: Device) -> Tensor {
    let numbers = Tensor::full([count], 1000.0 * (scale - 1.0), (Kind::Float, device));
    crate::layers::sinusoid(&numbers, width, false, 1.0)
}
