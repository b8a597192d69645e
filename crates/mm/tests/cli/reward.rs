//! `mm reward`: scores of images by one reward and by several.

use crate::common::{failure, success};
use serde_json::Value;
use std::fs;

fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn photo(name: &str) -> String {
    golden(&format!("images/photos/{name}.png"))
}

/// The JSON lines of `mm reward --json` with `arguments`.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let printed = success(&[&["reward", "--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn reward(line: &Value) -> f64 {
    line["reward"].as_f64().unwrap()
}

#[test]
fn images_are_scored_with_a_prompt_or_without_alone_as_in_a_batch() {
    let (clip, [chelsea, rocket]) = (golden("rlhf/clip"), ["chelsea", "rocket"].map(photo));
    let both = lines(&["--model", &clip, &chelsea, &rocket, "a red circle"]);
    assert_eq!(both.len(), 2);
    assert!(both[0]["image"] == *chelsea && both[0]["prompt"] == "a red circle", "{both:?}");
    assert_eq!(both[1]["parts"]["clip"], both[1]["reward"]);
    let alone = lines(&["--model", &clip, &rocket, "a red circle"]);
    assert!((reward(&alone[0]) - reward(&both[1])).abs() < 1e-6);
    let pick = lines(&[
        "--model",
        &clip,
        "--kind",
        "pick_score",
        "--batch-size",
        "1",
        &chelsea,
        &rocket,
        "a red circle",
    ]);
    assert!((reward(&pick[1]) - reward(&both[1]) * 2f64.exp()).abs() < 1e-4, "{pick:?}");

    let head = golden("rlhf/laion.safetensors");
    let aesthetic = lines(&["--kind", "aesthetic", "--model", &clip, "--head", &head, &chelsea, &rocket]);
    assert!(aesthetic.len() == 2 && aesthetic[0]["prompt"].is_null(), "{aesthetic:?}");
    let jpeg = lines(&["--kind", "jpeg_compressibility", &chelsea]);
    assert!(reward(&jpeg[0]) < -5.0, "{jpeg:?}");
    let image_reward = golden("rlhf/image-reward");
    let table = success(&["reward", "--kind", "image_reward", "--model", &image_reward, &chelsea, "cat"]);
    assert!(table.starts_with("image") && table.contains("image_reward") && table.contains("chelsea.png"));
}

#[test]
fn a_config_gives_the_weighted_sum() {
    let folder = tempfile::tempdir().unwrap();
    let (config, chelsea) = (folder.path().join("rewards.toml"), photo("chelsea"));
    let rewards = format!(
        "[[reward]]\nkind = \"clip\"\nmodel = {:?}\nweight = 2.0\n\n\
         [[reward]]\nkind = \"jpeg_compressibility\"\nquality = 50\nweight = 0.1\n",
        golden("rlhf/clip")
    );
    fs::write(&config, &rewards).unwrap();
    let arguments = ["--config", config.to_str().unwrap(), &chelsea, "two dogs"];
    let line = &lines(&arguments)[0];
    let part = |name: &str| line["parts"][name].as_f64().unwrap();
    let expected = 2.0 * part("clip") + 0.1 * part("jpeg_compressibility");
    assert!((reward(line) - expected).abs() < 1e-5, "{line}");
    let table = success(&[&["reward"], &arguments[..]].concat());
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["image", "clip", "jpeg_compressibility", "reward"]);

    fs::write(&config, rewards.replace("quality", "qualty")).unwrap();
    let refused = failure(&[&["reward"], &arguments[..]].concat(), 2);
    assert!(refused.contains("rewards.toml") && refused.contains("qualty"), "{refused}");
    fs::write(&config, "reward = []\n").unwrap();
    let refused = failure(&["reward", "--config", config.to_str().unwrap(), &chelsea], 1);
    assert!(refused.contains("there is no reward"), "{refused}");
}

#[test]
fn wrong_arguments_and_images_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.png");
    fs::write(&broken, "no image").unwrap();
    let (clip, chelsea, broken) = (golden("rlhf/clip"), photo("chelsea"), broken.to_str().unwrap());
    let refused = |arguments: &[&str], code| failure(&[&["reward"], arguments].concat(), code);
    let bad = refused(&["--model", &clip, &chelsea, broken, "cat"], 1);
    assert!(bad.contains("cannot read the image") && bad.contains("broken.png"), "{bad}");
    assert!(refused(&["--model", &clip, &chelsea], 1).contains("write it in quotes after the images"));
    assert!(refused(&["--model", &clip, &chelsea, &chelsea], 1).contains("the last argument is the file"));
    assert!(refused(&[&chelsea, "cat"], 1).contains("--kind clip needs --model"));
    assert!(refused(&["--kind", "aesthetic", "--model", &clip, &chelsea], 1).contains("needs --head"));
    let jpeg = refused(&["--kind", "jpeg_compressibility", "--model", &clip, &chelsea], 1);
    assert!(jpeg.contains("--kind jpeg_compressibility takes no --model"), "{jpeg}");
    assert!(
        refused(&["--model", "./nowhere", &chelsea, "cat"], 1).contains("cannot open the model ./nowhere")
    );
    assert!(refused(&["--kind", "beauty", &chelsea], 2).contains("invalid value"));
    assert!(refused(&["--model", &clip, "--config", "a.toml", &chelsea], 2).contains("cannot be used with"));
}
