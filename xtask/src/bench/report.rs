//! The results of `bench clip` and `bench small` as a table, in the terminal, in JSON and in
//! docs/benchmarks.md.

use std::fmt::Write;

use serde::Serialize;

use super::program::{Sample, median};
use crate::markdown::{table, today};
use crate::processor;

/// The results of one run.
#[derive(Serialize)]
pub struct Report {
    date: String,
    processor: String,
    batch: u32,
    limits: Vec<Limit>,
    rows: Vec<Row>,
    start: Option<Start>,
}

/// The speed of matrix products of the model's shapes on this machine.
#[derive(Serialize)]
pub struct Limit {
    pub precision: &'static str,
    pub gflops: f64,
}

/// Our side of one comparison; rates are items per second.
#[derive(Serialize)]
pub struct Row {
    pub work: &'static str,
    pub precision: &'static str,
    pub note: &'static str,
    pub rate: f64,
    pub share_of_limit: f64,
    pub peak_mb: f64,
    pub peers: Vec<PeerResult>,
}

/// A peer's side of it; `ratio` is our rate divided by the peer's.
#[derive(Serialize)]
pub struct PeerResult {
    pub name: &'static str,
    pub rate: f64,
    pub share_of_limit: f64,
    pub peak_mb: f64,
    pub ratio: f64,
}

/// Time from process start to answer, in seconds.
#[derive(Serialize)]
pub struct Start {
    pub seconds: f64,
    pub transformers_seconds: Option<f64>,
}

/// The median of a figure over the rounds.
fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&samples.iter().map(figure).collect::<Vec<_>>())
}

impl Row {
    /// The medians of our `samples`, one a round; `limit` is the matrix limit in GFLOP/s. `work` is title,
    /// precision and note.
    pub fn new(
        work: [&'static str; 3],
        samples: &[Sample],
        limit: f64,
        peers: impl IntoIterator<Item = PeerResult>,
    ) -> Self {
        let [work, precision, note] = work;
        Self {
            work,
            precision,
            note,
            rate: middle(samples, Sample::rate),
            share_of_limit: middle(samples, Sample::gflops) / limit,
            peak_mb: middle(samples, |sample| sample.peak_mb),
            peers: peers.into_iter().collect(),
        }
    }
}

impl PeerResult {
    /// The medians of a peer's samples, and of the ratios of `ours` to them within a round.
    pub fn new(name: &'static str, ours: &[Sample], theirs: &[Sample], limit: f64) -> Self {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours.rate() / theirs.rate()).collect();
        Self {
            name,
            rate: middle(theirs, Sample::rate),
            share_of_limit: middle(theirs, Sample::gflops) / limit,
            peak_mb: middle(theirs, |sample| sample.peak_mb),
            ratio: median(&ratios),
        }
    }
}

impl Report {
    /// A report with today's date and this machine's processor.
    pub fn new(batch: u32, limits: Vec<Limit>, rows: Vec<Row>, start: Option<Start>) -> Self {
        Self { date: today(), processor: processor::name(), batch, limits, rows, start }
    }

    /// A table with one row for our program and one for each peer.
    pub fn markdown(&self) -> String {
        let mut text =
            format!("Measured on {}, {}, batch {}, medians.\n", self.date, self.processor, self.batch);
        let limits: Vec<_> = self
            .limits
            .iter()
            .map(|limit| format!("{:.0} GFLOP/s in {}", limit.gflops, limit.precision))
            .collect();
        if !limits.is_empty() {
            let _ = writeln!(text, "Matrix limit in the same run: {}.", limits.join(", "));
        }
        if !self.rows.is_empty() {
            text.push('\n');
            text.push_str(&table(&self.lines()));
        }
        if let Some(start) = &self.start {
            let peer = start.transformers_seconds.map(|seconds| format!("; transformers: {seconds:.2} s"));
            let seconds = start.seconds;
            let _ = writeln!(
                text,
                "\n`mm classify` on a small model, start to answer: {seconds:.2} s{}.",
                peer.unwrap_or_default()
            );
        }
        text
    }

    fn lines(&self) -> Vec<[String; 7]> {
        let head = ["work", "precision", "program", "items/s", "of the limit", "peak MB", "mm is"];
        let mut lines = vec![head.map(String::from)];
        for row in &self.rows {
            let work = if row.note.is_empty() {
                row.work.to_owned()
            } else {
                format!("{} ({})", row.work, row.note)
            };
            let figures = |name: &str, rate: f64, share: f64, peak: f64, ratio: String| {
                let (rate, share, peak) =
                    (format!("{rate:.1}"), format!("{:.0}%", share * 100.0), format!("{peak:.0}"));
                [work.clone(), row.precision.to_owned(), name.to_owned(), rate, share, peak, ratio]
            };
            lines.push(figures("mm", row.rate, row.share_of_limit, row.peak_mb, String::new()));
            for peer in &row.peers {
                let (rate, share) = (peer.rate, peer.share_of_limit);
                lines.push(figures(peer.name, rate, share, peer.peak_mb, format!("{:.2}x", peer.ratio)));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_row_after_ours_with_its_ratio() {
        let peer =
            PeerResult { name: "open_clip", rate: 16.0, share_of_limit: 0.8, peak_mb: 1400.0, ratio: 1.125 };
        let (rate, share_of_limit, peak_mb) = (18.0, 0.9, 900.0);
        let row = Row {
            work: "texts",
            precision: "f32",
            note: "peers pad to 77",
            rate,
            share_of_limit,
            peak_mb,
            peers: vec![peer],
        };
        let text =
            Report::new(16, vec![Limit { precision: "f32", gflops: 185.4 }], vec![row], None).markdown();
        assert!(text.contains("185 GFLOP/s in f32"), "{text}");
        let row = [
            "texts (peers pad to 77)",
            "f32      ",
            "open_clip",
            "16.0   ",
            "80%         ",
            "1400   ",
            "1.12x",
        ];
        assert!(text.contains(&row.join(" | ")), "{text}");
    }
}
