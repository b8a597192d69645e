//! The arguments of generation.

use anyhow::{Result, ensure};
use mm_text::generate::GenerationConfig;

/// How captions are generated. What is not given is the model's default.
#[derive(clap::Args)]
#[command(next_help_heading = "Generation (defaults are the model's)")]
pub struct GenerationArgs {
    /// Beams of the search; 1 is greedy.
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Captions for each image: the N best of a search of at least N beams, or N drawn ones with --sample.
    #[arg(long, value_name = "N")]
    num_captions: Option<usize>,
    /// The largest number of new tokens; a caption that reaches it is marked as not finished.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// The smallest number of new tokens.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// A caption's score is the sum of its log-probabilities over its length to this power: above 0 long
    /// captions are preferred, below 0 short ones.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// No sequence of N tokens occurs twice in a caption; 0 for no such rule.
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Lowers the scores of tokens that the caption has already; 1 for no such rule.
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// Draw captions by their probabilities, each independently unless --num-beams is given.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sample: Option<bool>,
    /// Divides the logits before drawing: below 1 captions are less varied.
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Draw from the K most probable tokens only; 0 for all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the smallest set of tokens whose probabilities sum to P.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed of the draws; image i of the command draws by this seed together with i [default: 0].
    #[arg(long)]
    seed: Option<u64>,
}

impl GenerationArgs {
    /// The model's `defaults` with what is given in their place.
    ///
    /// # Errors
    /// A value is out of its range, or an argument has no effect beside the others.
    pub fn over(&self, defaults: &GenerationConfig) -> Result<GenerationConfig> {
        let do_sample = self.sample.unwrap_or(defaults.do_sample);
        let for_drawing = [
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
        ];
        if let Some((name, _)) = for_drawing.iter().find(|(_, is_given)| *is_given && !do_sample) {
            anyhow::bail!("{name} is for drawn captions: add --sample");
        }
        let captions = self.num_captions.unwrap_or(defaults.num_return_sequences);
        let beams = match self.num_beams {
            Some(beams) => {
                ensure!(
                    captions <= beams || (do_sample && beams == 1),
                    "--num-captions {captions} is more than --num-beams {beams}: a search finds at most as \
                     many captions as it has beams"
                );
                beams
            }
            None if self.sample == Some(true) => 1,
            None if do_sample && defaults.num_beams == 1 => 1,
            None => defaults.num_beams.max(captions),
        };
        let config = GenerationConfig {
            num_beams: beams,
            num_return_sequences: captions,
            max_new_tokens: self.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(defaults.min_new_tokens),
            length_penalty: self.length_penalty.unwrap_or(defaults.length_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(defaults.no_repeat_ngram_size),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            do_sample,
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            seed: self.seed.unwrap_or(defaults.seed),
            ..defaults.clone()
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        generation: GenerationArgs,
        #[arg(required = true)]
        images: Vec<String>,
    }

    fn over(arguments: &str, defaults: &GenerationConfig) -> Result<GenerationConfig, String> {
        let words = ["mm"].into_iter().chain(arguments.split_whitespace()).chain(["a.png"]);
        Line::try_parse_from(words).unwrap().generation.over(defaults).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_given_replaces_the_models_default_and_nothing_else_does() {
        let model = GenerationConfig {
            num_beams: 4,
            max_new_tokens: 16,
            suppress_tokens: vec![7],
            ..GenerationConfig::default()
        };
        assert_eq!(over("", &model), Ok(model.clone()));
        let found = over("--max-new-tokens 9 --length-penalty -1", &model);
        assert_eq!(found, Ok(GenerationConfig { max_new_tokens: 9, length_penalty: -1.0, ..model.clone() }));
        let searched = |line: &str| over(line, &model).map(|config| (config.num_beams, config.do_sample));
        assert_eq!(searched("--num-captions 6"), Ok((6, false)));
        assert_eq!(searched("--num-captions 2"), Ok((4, false)));
        assert_eq!(searched("--num-captions 6 --sample"), Ok((1, true)));
        assert_eq!(searched("--num-captions 2 --sample --num-beams 3"), Ok((3, true)));
        let drawing = GenerationConfig { do_sample: true, ..GenerationConfig::default() };
        assert_eq!(over("--num-captions 5", &drawing).map(|config| config.num_beams), Ok(1));
        assert_eq!(over("--sample=false", &drawing), Ok(GenerationConfig::default()));
    }

    #[test]
    fn arguments_that_do_not_go_together_or_are_out_of_range_are_refused() {
        let refused = |line: &str| over(line, &GenerationConfig::default()).unwrap_err();
        assert!(refused("--num-captions 3 --num-beams 2").contains("more than --num-beams 2"));
        assert!(refused("--top-p 0.9").contains("--top-p is for drawn captions: add --sample"));
        assert!(refused("--sample --top-p 1.5").contains("top_p is 1.5"));
        assert!(refused("--max-new-tokens 0").contains("max_new_tokens is 0"));
        assert!(refused("--num-captions 0").contains("num_return_sequences is 0"));
        assert!(refused("--min-new-tokens 30").contains("min_new_tokens is 30"));
    }
}
