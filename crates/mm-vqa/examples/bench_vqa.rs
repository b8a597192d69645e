//! What `cargo xtask bench vqa` measures of ours: answers of BLIP-VQA base to a question about each of 8
//! images. Prints one line of JSON, as `xtask/peers/vqa.py` does for transformers.
//!
//! `bench_vqa greedy|beams|rank|each --folder DIR [--precision f32|bf16|int8] [--iterations N] [--warmup N]`,
//! DIR being what `vqa.py --make DIR` writes. `each` scores the candidates of `rank` one after the other, as
//! the peer does.

use mm_core::nn::Context;
use mm_core::{Precision, peak_memory};
use mm_text::TokenBatch;
use mm_text::decoder::{CaptionTokens, NextTokens};
use mm_text::generate::{GenerationConfig, Prompt};
use mm_text::rank::AnswerList;
use mm_vqa::{BlipVqa, BlipVqaConfig, VqaConfig, VqaFolder};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const IMAGES: usize = 8;
/// Tokens of a question, and new tokens of an answer.
const QUESTION: usize = 10;
const TOKENS: usize = 4;
const BEAMS: usize = 3;
const CANDIDATES: usize = 128;
/// Answers that are printed of each question.
const TOP: usize = 5;
const THREADS: i32 = 2;
const CLS: u32 = 101;
const SEP: u32 = 102;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Options {
    work: String,
    folder: String,
    precision: Precision,
    iterations: usize,
    warmup: usize,
}

/// The model and the questions.
struct Bench {
    model: BlipVqa,
    config: BlipVqaConfig,
    answers: AnswerList,
    tokens: Vec<Vec<u32>>,
    pixel_values: Tensor,
    questions: TokenBatch,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    tch::set_num_threads(THREADS);
    let bench = Bench::open(&options)?;
    // `each` scores those of `rank`.
    let candidates = if options.work == "each" { bench.ranked(&bench.encode()?)? } else { Vec::new() };
    let (mut whole, mut encoded) = (Vec::new(), Vec::new());
    let mut answers = Value::Null;
    for iteration in 0..options.warmup + options.iterations {
        let start = Instant::now();
        let contexts = bench.encode()?;
        let encode_seconds = start.elapsed().as_secs_f64();
        answers = bench.answer(&options.work, &contexts, &candidates)?;
        if iteration >= options.warmup {
            whole.push(start.elapsed().as_secs_f64());
            encoded.push(encode_seconds);
        }
    }
    let peak_mb = peak_memory().ok_or("the system reports no peak memory")? as f64 / (1 << 20) as f64;
    let measured = json!({
        "work": options.work,
        "precision": options.precision,
        "items_per_iteration": IMAGES,
        "seconds": whole,
        "gflop_per_iteration": bench.gflop(&options.work),
        "encode_seconds": median(encoded),
        "peak_mb": peak_mb,
        "answers": answers,
    });
    println!("{measured}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let work = arguments.next().ok_or("greedy, beams, rank or each is needed")?;
    let mut options =
        Options { work, folder: String::new(), precision: Precision::F32, iterations: 3, warmup: 1 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--folder" => options.folder = value,
            "--precision" => options.precision = serde_json::from_value(value.into())?,
            "--iterations" => options.iterations = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    if options.folder.is_empty() || options.iterations == 0 {
        return Err("--folder DIR and at least one iteration are needed".into());
    }
    Ok(options)
}

impl Bench {
    fn open(options: &Options) -> Result<Self> {
        let folder = VqaFolder::open(&options.folder)?;
        let VqaConfig::Blip(config) = folder.config.clone() else { return Err("not a BLIP".into()) };
        let parts = folder.parts()?;
        let texts = parts.answers.ok_or("the folder has no answers.json")?;
        let answers = AnswerList::new(&parts.tokenizer, texts.all(), &[config.start()], config.tokens.end)?;
        let tokens = texts
            .all()
            .iter()
            .map(|text| parts.tokenizer.encode_words(text))
            .collect::<mm_text::Result<_>>()?;
        let vs = VarStore::new(Device::Cpu);
        let mut model = folder.build(&vs, |path| BlipVqa::new(path, &config))?;
        drop((vs, folder)); // the weights would be in memory twice
        model.pack(options.precision);
        let pixels = Tensor::read_safetensors(Path::new(&options.folder).join("pixels.safetensors"))?;
        let pixel_values = pixels.into_iter().find(|(name, _)| name == "pixel_values");
        let pixel_values = pixel_values.ok_or("pixels.safetensors has no pixel_values")?.1;
        let questions = TokenBatch::from_rows(&questions(), 0, config.tokens.pad);
        Ok(Self { model, config, answers, tokens, pixel_values, questions })
    }

    fn encode(&self) -> Result<Context> {
        let index: Vec<i64> = (0..IMAGES as i64).collect();
        Ok(mm_sys::inference_mode(|| {
            let states = self.model.encode_images(&self.pixel_values);
            self.model.encode_questions(&states, &index, &self.questions)
        })?)
    }

    fn answer(&self, work: &str, contexts: &Context, candidates: &[Vec<usize>]) -> Result<Value> {
        match work {
            "greedy" => self.generate(contexts, 1),
            "beams" => self.generate(contexts, BEAMS),
            "rank" => Ok(json!(self.ranked(contexts)?.iter().map(|row| &row[..TOP]).collect::<Vec<_>>())),
            "each" => self.score_each(contexts, candidates),
            _ => Err(format!("unknown work {work}: greedy, beams, rank or each").into()),
        }
    }

    fn generate(&self, contexts: &Context, num_beams: usize) -> Result<Value> {
        let config = GenerationConfig {
            num_beams,
            min_new_tokens: TOKENS,
            max_new_tokens: TOKENS,
            ..GenerationConfig::default()
        };
        let prompt = |seed: usize| Prompt { tokens: vec![self.config.start()], seed: seed as u64 };
        let prompts: Vec<Prompt> = (0..IMAGES).map(prompt).collect();
        let texts = self.model.generate(contexts, &prompts, &config, &[self.config.tokens.end])?;
        Ok(json!(texts.iter().map(|texts| texts.first().map(|best| &best.tokens)).collect::<Vec<_>>()))
    }

    /// The candidates of each question, the most likely first.
    fn ranked(&self, contexts: &Context) -> Result<Vec<Vec<usize>>> {
        let rankings = self.model.rank(contexts, &self.answers, CANDIDATES)?;
        Ok(rankings.iter().map(|one| one.answers.iter().map(|answer| answer.answer).collect()).collect())
    }

    /// The best score of each question, of `candidates` that are scored one after the other, for all
    /// questions at once.
    fn score_each(&self, contexts: &Context, candidates: &[Vec<usize>]) -> Result<Value> {
        let mut best = [f32::NEG_INFINITY; IMAGES];
        for place in 0..CANDIDATES {
            let row = |candidates: &Vec<usize>| {
                let mut token_ids = vec![self.config.start()];
                token_ids.extend(&self.tokens[candidates[place]]);
                token_ids.push(self.config.tokens.end);
                CaptionTokens { token_ids, prompt_length: 1 }
            };
            let next = NextTokens::new(&candidates.iter().map(row).collect::<Vec<_>>(), 0);
            let logits = mm_sys::inference_mode(|| self.model.next_token_logits(contexts, &next));
            let logs = logits.to_kind(Kind::Float).log_softmax(-1, None);
            let logs: Vec<f32> = Vec::try_from(logs.gather(1, &next.labels.unsqueeze(1), false).view(-1))?;
            let mut logs = logs.into_iter();
            for (best, &length) in best.iter_mut().zip(&next.lengths) {
                *best = best.max(logs.by_ref().take(length).sum());
            }
        }
        Ok(json!(best))
    }

    /// The matrix products of a batch, a multiply-add being two operations.
    fn gflop(&self, work: &str) -> f64 {
        let (image, text) = (&self.config.image, &self.config.text);
        let [width, mlp] = [text.hidden_size, text.intermediate_size].map(|size| size as f64);
        let (patches, values) = (image.patch_grid().pow(2) as f64, (3 * image.patch_size.pow(2)) as f64);
        let states = patches + 1.0;
        let vision_layers = image.num_hidden_layers as f64;
        let vision = 2.0 * states * (4.0 * width * width + 2.0 * width * mlp) + 4.0 * states * states * width;
        let vision = vision_layers * vision + 2.0 * patches * values * width;
        // The tokens of one of the text's stacks, over states whose keys and values are computed too.
        let stack = |tokens: f64, states: f64| {
            let token = 2.0 * (6.0 * width * width + 2.0 * width * mlp) + 4.0 * states * width;
            text.num_hidden_layers as f64 * (tokens * token + 4.0 * width * width * states)
        };
        let head = 2.0 * (width * width + width * text.vocab_size as f64);
        let read: usize = self.tokens.iter().map(|tokens| tokens.len() + 1).sum();
        let tokens = match work {
            "greedy" => TOKENS as f64,
            "beams" => (TOKENS * BEAMS) as f64,
            _ => CANDIDATES as f64 * read as f64 / self.tokens.len() as f64,
        };
        let question = QUESTION as f64;
        let answer = stack(tokens, question) + tokens * head;
        IMAGES as f64 * (vision + stack(question, states) + answer) / 1e9
    }
}

/// Questions of any words.
fn questions() -> Vec<Vec<u32>> {
    let question = |image: usize| {
        let word = |place: usize| (1000 + (image * QUESTION + place) * 181) as u32;
        let mut ids: Vec<u32> = (0..QUESTION).map(word).collect();
        (ids[0], ids[QUESTION - 1]) = (CLS, SEP);
        ids
    };
    (0..IMAGES).map(question).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
