//! Prompts, from arguments or a file.

use anyhow::{Context, Result, ensure};
use mm_diffusion::ImageRequest;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The prompts, and how many images each gets.
#[derive(clap::Args)]
pub struct PromptArgs {
    /// The prompts.
    #[arg(required_unless_present = "prompts", value_name = "PROMPT")]
    prompt: Vec<String>,
    /// A file of prompts, one a line; in .jsonl an object a line: {"prompt", "negative_prompt", "seed"}.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// What images must not show, where the file of prompts has nothing of its own.
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// Images of each prompt, with the seeds SEED, SEED + 1, ...
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// The seed of a prompt's first image: equal seeds give equal images.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A line of a `.jsonl` file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u64>,
}

impl PromptArgs {
    /// The images, prompt by prompt.
    pub fn requests(&self) -> Result<Vec<ImageRequest>> {
        let lines = match &self.prompts {
            Some(file) => read(file)?,
            None => self.prompt.iter().map(|prompt| Line::of(prompt)).collect(),
        };
        let mut requests = Vec::new();
        for line in lines {
            let negative_prompt = line.negative_prompt.or_else(|| self.negative.clone());
            for text in [Some(&line.prompt), negative_prompt.as_ref()].into_iter().flatten() {
                ensure!(!text.contains('\0'), "a prompt has the character NUL: {text:?}");
            }
            for index in 0..u64::from(self.count) {
                requests.push(ImageRequest {
                    prompt: line.prompt.clone(),
                    negative_prompt: negative_prompt.clone(),
                    seed: line.seed.unwrap_or(self.seed).wrapping_add(index),
                });
            }
        }
        Ok(requests)
    }
}

impl Line {
    fn of(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), negative_prompt: None, seed: None }
    }
}

/// The prompts of `file`, without empty lines.
fn read(file: &Path) -> Result<Vec<Line>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the prompts {shown}"))?;
    // By the name alone: a prompt may begin with a brace.
    let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(number, line)| match is_json {
        true => serde_json::from_str(line).with_context(|| {
            format!(
                "{shown}:{number}: a line is {{\"prompt\": TEXT, \"negative_prompt\": TEXT, \"seed\": N}}"
            )
        }),
        false => Ok(Line::of(line.trim())),
    });
    let lines = parsed.collect::<Result<Vec<_>>>()?;
    ensure!(!lines.is_empty(), "there is no prompt in {shown}: write one a line");
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(name: &str, text: &str) -> Result<Vec<ImageRequest>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let (negative, prompts) = (Some("blurry".to_owned()), Some(file));
        PromptArgs { prompt: Vec::new(), prompts, negative, count: 2, seed: 5 }.requests()
    }

    #[test]
    fn a_file_has_a_prompt_a_line_and_jsonl_has_more() {
        let plain = requests("a.txt", "{a cat|a dog}\n\n  a star \n").unwrap();
        let found: Vec<_> = plain.iter().map(|request| (request.prompt.as_str(), request.seed)).collect();
        assert_eq!(found, [("{a cat|a dog}", 5), ("{a cat|a dog}", 6), ("a star", 5), ("a star", 6)]);
        assert_eq!(plain[0].negative_prompt.as_deref(), Some("blurry"));
        let text = "{\"prompt\": \"a\", \"seed\": 18446744073709551615, \"negative_prompt\": \"\"}\n";
        let json = requests("a.jsonl", text).unwrap();
        assert_eq!((json[0].seed, json[1].seed), (u64::MAX, 0));
        assert_eq!(json[0].negative_prompt.as_deref(), Some(""));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let message = |name: &str, text: &str| format!("{:#}", requests(name, text).map(drop).unwrap_err());
        assert!(message("a.jsonl", "{\"prompt\": \"a\"}\n{\"promt\": 1}").contains("a.jsonl:2: a line is"));
        assert!(message("a.txt", "\n \n").contains("there is no prompt"));
        assert!(message("a.jsonl", "{\"prompt\": \"a\\u0000b\"}").contains("NUL"));
    }
}
