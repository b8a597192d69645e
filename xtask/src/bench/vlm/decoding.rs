//! Answers: what a program prints of one, and its line in the table.

use serde::{Deserialize, Serialize};

use crate::bench::program::{Sample, median};

/// The output of a program that answers.
#[derive(Deserialize)]
pub struct Answer {
    /// From pixels and prompt to the first token.
    pub first: Sample,
    /// The tokens after it.
    pub later: Sample,
    ids: Vec<u32>,
    /// Some of the logits of the first token.
    logits: Vec<f64>,
    /// Of our program alone.
    memory: Option<Memory>,
}

/// What a token reads, and what the memory gives.
#[derive(Deserialize, Clone, Copy)]
struct Memory {
    /// Weights, keys and values of a token, in MB.
    read_mb: f64,
    /// The bandwidth in GB/s.
    bandwidth: f64,
}

/// Answers of one program in one precision: medians over the rounds.
#[derive(Serialize)]
pub struct Decoding {
    precision: &'static str,
    program: &'static str,
    first_seconds: f64,
    token_seconds: f64,
    /// Of our program alone.
    reads: Option<Reads>,
    /// The tokens that are those of our f32 answer at their places, and all.
    equal_tokens: [usize; 2],
    /// The largest difference of the first token's logits from our f32 logits.
    logits_off: f64,
}

/// What a token reads of the memory.
#[derive(Serialize)]
struct Reads {
    mb: f64,
    gb_per_second: f64,
    bandwidth: f64,
    share_of_bandwidth: f64,
}

impl Answer {
    /// GB/s that the tokens after the first read.
    fn gb_per_second(&self, memory: Memory) -> f64 {
        memory.read_mb / 1e3 * self.later.rate()
    }

    fn share_of_bandwidth(&self, memory: Memory) -> f64 {
        self.gb_per_second(memory) / memory.bandwidth
    }

    /// Prints what was measured to standard error.
    pub fn print(&self, program: &str) {
        let share = self.memory.map(|memory| self.share_of_bandwidth(memory) * 100.0);
        eprintln!(
            "  {program}: first token {:.2} s, then {:.1} tokens/s{}, {:.0} MB",
            1.0 / self.first.rate(),
            self.later.rate(),
            share.map(|share| format!(", {share:.0}% of the bandwidth")).unwrap_or_default(),
            self.later.peak_mb
        );
    }

    /// The tokens that are those of `reference` at their places, and all.
    fn equal_tokens(&self, reference: &Self) -> [usize; 2] {
        let pairs = self.ids.iter().zip(&reference.ids);
        [pairs.filter(|(token, reference)| token == reference).count(), reference.ids.len()]
    }

    /// The largest difference of the first token's logits.
    fn logits_off(&self, reference: &Self) -> f64 {
        largest_difference(self.logits.iter().copied().zip(reference.logits.iter().copied()))
    }
}

/// The largest difference of two numbers that belong together.
pub fn largest_difference(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The median of a figure over the rounds.
fn middle<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

impl Decoding {
    /// The medians of the answers of `rounds`, if there are any. `of` is the precision and the program;
    /// `reference` is our f32 answer.
    pub fn new(of: [&'static str; 2], rounds: &[Answer], reference: &Answer) -> Option<Self> {
        let [precision, program] = of;
        let first = rounds.first()?;
        let of_memory = |figure: fn(&Answer, Memory) -> f64| {
            middle(rounds, |answer| answer.memory.map_or(0.0, |memory| figure(answer, memory)))
        };
        let reads = first.memory.map(|memory| Reads {
            mb: memory.read_mb,
            gb_per_second: of_memory(Answer::gb_per_second),
            bandwidth: of_memory(|_, memory| memory.bandwidth),
            share_of_bandwidth: of_memory(Answer::share_of_bandwidth),
        });
        Some(Self {
            precision,
            program,
            first_seconds: middle(rounds, |answer| 1.0 / answer.first.rate()),
            token_seconds: middle(rounds, |answer| 1.0 / answer.later.rate()),
            reads,
            equal_tokens: first.equal_tokens(reference),
            logits_off: first.logits_off(reference),
        })
    }

    /// The line of the table.
    pub fn line(&self) -> [String; 9] {
        let [reads, rate, share] = self.reads.as_ref().map_or_else(Default::default, |reads| {
            let share = format!("{:.0}% of {:.1}", reads.share_of_bandwidth * 100.0, reads.bandwidth);
            [format!("{:.0} MB", reads.mb), format!("{:.1}", reads.gb_per_second), share]
        });
        let [equal, all] = self.equal_tokens;
        [
            self.precision.to_owned(),
            self.program.to_owned(),
            format!("{:.2} s", self.first_seconds),
            format!("{:.1} ms", self.token_seconds * 1e3),
            reads,
            rate,
            share,
            format!("{equal} of {all}"),
            format!("{:.1e}", self.logits_off),
        ]
    }
}
