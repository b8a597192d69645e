//! `cargo xtask demo search`: the emoji, indexed with the demo's CLIP, on the web page of `mm serve`.

use std::fs;

use anyhow::{Context, Result};

use crate::setup;
use crate::workspace::{Workspace, exec, run as run_command};

/// The CLIP, its index of the emoji, and the models file of the server.
const MODEL: &str = "runs/demo/model";
const INDEX: &str = "runs/demo/emoji.index";
const MODELS: &str = "runs/demo/models.toml";

/// The other demos, which are served where they have been trained: their task and their model.
const OTHERS: [(&str, &str); 3] = [
    ("caption", "runs/demo-caption/model"),
    ("vqa", "runs/demo-vqa/model"),
    ("diffusion", "runs/demo-diffusion/model"),
];

/// Whether the CLIP has been trained.
pub fn has_model(workspace: &Workspace) -> bool {
    workspace.path(MODEL).exists()
}

/// Indexes the emoji and serves them, until Ctrl-C.
pub fn run(workspace: &Workspace) -> Result<()> {
    let libtorch = setup::ensure(workspace)?;
    let mm = workspace.build(&libtorch, "mm", &["--bin", "mm"])?;
    let command = |arguments: &[&str]| {
        let mut command = workspace.program(&mm, &libtorch);
        command.current_dir(workspace.path("")).args(arguments);
        command
    };
    let data = "kind = \"emoji\", split = \"all\"";
    run_command(&mut command(&["search", "index", "--model", MODEL, "--data", data, "--index", INDEX]))?;
    let served = OTHERS.into_iter().filter(|(_, model)| workspace.path(model).exists());
    let models = models_file(&served.collect::<Vec<_>>());
    fs::write(workspace.path(MODELS), models).with_context(|| format!("cannot write {MODELS}"))?;
    println!("\nOpen the address below in a browser; Ctrl-C ends the server.");
    exec(&mut command(&["serve", "--models", MODELS]))
}

/// The models file: the CLIP with its index, and the `others`.
fn models_file(others: &[(&str, &str)]) -> String {
    let mut text = format!("[models.clip]\ntask = \"clip\"\nfrom = \"{MODEL}\"\n");
    for (task, model) in others {
        text += &format!("\n[models.{task}]\ntask = \"{task}\"\nfrom = \"{model}\"\n");
    }
    text + &format!("\n[indexes.emoji]\npath = \"{INDEX}\"\nmodel = \"clip\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_file_has_the_clip_its_index_and_the_other_demos() {
        let table: toml::Table = models_file(&OTHERS[1..2]).parse().unwrap();
        let models: Vec<&String> = table["models"].as_table().unwrap().keys().collect();
        assert_eq!(models, ["clip", "vqa"]);
        assert_eq!(table["indexes"]["emoji"]["model"].as_str(), Some("clip"));
    }
}
