//! `cargo xtask demo rlhf`: two judges, a weak model, and every method on it, compared in one table.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::markdown;
use crate::ranks;
use crate::run::execute;
use crate::workspace::Workspace;

/// What is trained before the methods: configurations with what is overridden in them.
const BEFORE: [(&str, &[&str]); 3] = [
    ("configs/diffusion/shapes-judge.toml", &[]),
    ("configs/diffusion/shapes-judge.toml", &["run.name=shapes-judge-2", "run.seed=8"]),
    ("configs/rlhf/shapes-base.toml", &[]),
];

/// A method of the table.
struct Method {
    name: &'static str,
    config: &'static str,
    /// Images that are made for a sample of a step, or pairs that are read: one, but for several passes.
    samples: &'static str,
}

/// The main method first.
const METHODS: [Method; 5] = [
    Method { name: "DiffusionNFT", config: "configs/rlhf/shapes-nft.toml", samples: "images" },
    Method { name: "Flow-GRPO", config: "configs/rlhf/shapes-grpo.toml", samples: "images" },
    Method { name: "DDPO", config: "configs/rlhf/shapes-ddpo.toml", samples: "images" },
    Method { name: "DRaFT", config: "configs/rlhf/shapes-draft.toml", samples: "images" },
    Method { name: "Diffusion-DPO", config: "configs/rlhf/shapes-dpo.toml", samples: "pairs" },
];

/// The metric of held-out prompts that are all right, as the second judge sees them.
const RIGHT: &str = "held_out/guard_scene";

/// An evaluation of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    samples: f64,
    seconds: f64,
    right: f64,
    before: f64,
    fallen: f64,
}

/// Runs the demo.
pub fn run(workspace: &Workspace, seed: Option<u64>, force: bool) -> Result<()> {
    let root = workspace.path("");
    let folder = |method: &Method| format!("demo-rlhf-{}", method.name.to_lowercase());
    for method in &METHODS {
        let run = workspace.path(format!("runs/{}", folder(method)));
        if force && run.exists() {
            fs::remove_dir_all(&run).with_context(|| format!("cannot remove {}", run.display()))?;
        }
    }
    let main = format!("runs/{}", folder(&METHODS[0]));
    ensure!(
        !workspace.path(format!("{main}/report.html")).exists(),
        "{main} holds a finished demo: look at {main}/report.html, or start again with `cargo xtask demo \
         rlhf --force`"
    );
    let train = |config: &str, overrides: &[String]| {
        execute(workspace, &root, Path::new(config), overrides, &ranks::Options::default())
    };
    for (config, overrides) in BEFORE {
        train(config, &overrides.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())?;
    }
    let mut curves = Vec::new();
    for method in &METHODS {
        let mut overrides = vec![format!("run.name={}", folder(method))];
        overrides.extend(seed.map(|seed| format!("run.seed={seed}")));
        let finished = train(method.config, &overrides)?;
        curves.push((method, points(&root.join(&finished.run))?));
    }
    let table = table(&curves);
    let file = workspace.path(format!("{main}/methods.md"));
    fs::write(&file, &table).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\n{table}");
    println!("Look at {main}/report.html: images before and after, and the weights between and beyond.");
    println!("The table is also in {main}/methods.md. The trained model is {main}/model.");
    Ok(())
}

/// The evaluations of the run in `folder`, from its `metrics.jsonl` and `config.toml`.
fn points(folder: &Path) -> Result<Vec<Point>> {
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let config: toml::Table = read("config.toml")?.parse().context("config.toml of the run is damaged")?;
    let number = |table: &str, key: &str| config.get(table)?.get(key)?.as_integer();
    let batch_size = number("train", "batch_size").context("the run's config.toml has no batch_size")?;
    let epochs = number("rl", "epochs").unwrap_or(1).max(1);
    Ok(points_of(&read("metrics.jsonl")?, batch_size as f64 / epochs as f64))
}

/// The evaluations in the lines of a `metrics.jsonl`; a step takes `samples`.
fn points_of(lines: &str, samples: f64) -> Vec<Point> {
    let mut seconds = 0.0;
    let mut points = Vec::new();
    for record in lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let number = |key: &str| record.get(key).and_then(Value::as_f64);
        seconds = number("seconds").unwrap_or(seconds);
        let (Some(right), Some(step)) = (number(RIGHT), number("step")) else { continue };
        let before = number(&format!("{RIGHT}_before")).unwrap_or(f64::NAN);
        let fallen = number("held_out/guards_fallen").unwrap_or(0.0);
        points.push(Point { samples: step * samples, seconds, right, before, fallen });
    }
    points
}

/// The methods at equal samples and at equal time: those that the one with the least of them has.
fn table(curves: &[(&Method, Vec<Point>)]) -> String {
    let least = |of: fn(&Point) -> f64| {
        curves.iter().filter_map(|(_, points)| points.last().map(of)).fold(f64::INFINITY, f64::min)
    };
    let (samples, seconds) = (least(|point| point.samples), least(|point| point.seconds));
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |(method, points): &(&Method, Vec<Point>)| -> [String; 8] {
        let at = |of: fn(&Point) -> f64, limit: f64| {
            let found = points.iter().rev().find(|point| of(point) <= limit);
            found.map_or("-".to_owned(), |point| share(point.right))
        };
        let Some(last) = points.last() else {
            return std::array::from_fn(|column| if column == 0 { method.name } else { "-" }.to_owned());
        };
        [
            method.name.to_owned(),
            share(last.before),
            at(|point| point.samples, samples),
            at(|point| point.seconds, seconds),
            share(last.right),
            format!("{:.0} {}", last.samples, method.samples),
            format!("{:.0} s", last.seconds),
            if last.fallen == 0.0 { "hold".to_owned() } else { format!("{:.0} fell", last.fallen) },
        ]
    };
    let head = [
        "method".to_owned(),
        "before".to_owned(),
        format!("after {samples:.0} samples"),
        format!("after {seconds:.0} s"),
        "at its end".to_owned(),
        "samples".to_owned(),
        "time".to_owned(),
        "guards".to_owned(),
    ];
    let lines: Vec<[String; 8]> = std::iter::once(head).chain(curves.iter().map(row)).collect();
    let title =
        "Held-out prompts whose images are all right, as a judge sees them that no method was trained on";
    format!("{title}\n\n{}", markdown::table(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_compared_at_the_samples_and_the_time_of_the_one_with_the_least() {
        let lines = "{\"step\":10,\"kind\":\"train\",\"seconds\":5.0}\n\
            {\"step\":10,\"kind\":\"eval\",\"held_out/guard_scene\":0.5,\"held_out/guard_scene_before\":0.4}\n\
            {\"step\":20,\"kind\":\"train\",\"seconds\":10.0}\n\
            {\"step\":20,\"kind\":\"eval\",\"held_out/guard_scene\":0.7,\"held_out/guard_scene_before\":0.4,\
            \"held_out/guards_fallen\":1.0}\n";
        let fast = points_of(lines, 8.0);
        assert_eq!(fast[0], Point { samples: 80.0, seconds: 5.0, right: 0.5, before: 0.4, fallen: 0.0 });
        let slow = vec![Point { samples: 100.0, seconds: 50.0, right: 0.6, before: 0.4, fallen: 0.0 }];
        let text = table(&[(&METHODS[0], fast), (&METHODS[1], slow)]);
        let rows: Vec<&str> = text.lines().filter(|line| line.contains('%')).collect();
        assert!(text.contains("after 100 samples") && text.contains("after 10 s"), "{text}");
        assert!(
            rows[0].contains("50.0 %") && rows[0].contains("70.0 %") && rows[0].contains("1 fell"),
            "{text}"
        );
        assert!(rows[1].contains("hold"), "{text}");
    }
}
