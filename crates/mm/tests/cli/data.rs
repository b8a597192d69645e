//! `mm data`: packing that is killed and gone on with, a full disk, a model's score, counting and looking.

use crate::common::{command, failure, success, trained_clip, write_config};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SHAPES: &str = "kind = 'shapes', samples = 300";

/// Packs shapes, 20 to a shard, with `more` options.
fn pack<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["data", "shards", "--data", SHAPES, "--samples-per-shard", "20", "--out", out], more].concat()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap()))
        .collect()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_killed_packing_leaves_whole_shards_and_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] =
        ["whole", "killed"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let filters = ["--filter", "duplicates=1", "--filter", "caption_words=3.."];
    success(&pack(&whole, &[&filters[..], &["--workers", "1"]].concat()));
    let expected = files(Path::new(&whole));
    std::fs::create_dir(&killed).unwrap();
    let mut ended = 0;
    for milliseconds in (5..).step_by(20) {
        let mut child = command(&pack(&killed, &[&filters[..], &["--workers", "4"]].concat()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        ended += 1;
        for (name, bytes) in files(Path::new(&killed)) {
            let is_shard = name.extension().is_some_and(|end| end == "tar");
            assert!(!is_shard || bytes == expected[&name], "{} is not whole", name.display());
        }
    }
    success(&pack(&killed, &[&filters[..], &["--workers", "4"]].concat()));
    assert_eq!(files(Path::new(&killed)), expected);
    assert!(ended > 0);
}

#[test]
fn a_disk_that_takes_no_more_ends_it_and_keeps_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for number in 0..6u32 {
        let side = if number < 3 { 16 } else { 400 };
        let noise =
            |x: u32, y: u32| [(x.wrapping_mul(y + 7).wrapping_mul(2_654_435_761) >> 24) as u8; 3].into();
        mm_image::RgbImage::from_fn(side, side, noise).save(images.join(format!("{number}.png"))).unwrap();
        std::fs::write(images.join(format!("{number}.txt")), "noise").unwrap();
    }
    let out = folder.path().join("out");
    let data = format!("kind = 'folder', path = '{}'", images.display());
    let pack = [
        "data",
        "shards",
        "--data",
        &data,
        "--samples-per-shard",
        "3",
        "--workers",
        "1",
        "--out",
        out.to_str().unwrap(),
    ];
    // A file that grows beyond 100 kB is refused, as on a full disk.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mm")])
        .args(pack)
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{said}");
    assert!(said.contains("00001.tar.part: File too large"), "{said}");
    assert!(out.join("00000.tar").is_file() && !out.join("00001.tar").exists());
    assert!(success(&pack).contains("2 shards of"));
    assert!(!out.join("00001.tar.part").exists());
}

#[test]
fn filters_and_data_sets_are_answered_with_the_nearest_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    assert!(failure(&pack(&out, &["--filter", "min_sid=20"]), 2).contains("did you mean `min_side`"));
    assert!(failure(&pack(&out, &["--filter", "clip_score=0.2"]), 1).contains("needs a --model"));
    assert!(
        failure(&["data", "stats", "--data", "kind = 'shapes', smaples = 3"], 2)
            .contains("did you mean `samples`?")
    );
    assert!(failure(&["data", "stats"], 2).contains("required"));
    assert!(failure(&["data", "show", "--data", "emoji", "--out", "sheet.pdf"], 1).contains(".html or .png"));
    let config = write_config(folder.path());
    let config = config.to_str().unwrap();
    let none = failure(&["data", "stats", "--config", config, "--source", "eval.val"], 2);
    assert!(none.contains("no data set `eval.val`; there are: train, eval.held_out"), "{none}");
    assert!(!Path::new(&out).exists());
    success(&pack(&out, &[]));
    let other = failure(&pack(&out, &["--filter", "min_side=20"]), 1);
    assert!(other.contains("filters: none before, min_side=20 now"), "{other}");
}

#[test]
fn a_model_scores_what_is_packed() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let packed = |least: &str, workers: &str| {
        let out = folder.path().join(format!("{least}-{workers}"));
        let filter = format!("clip_score={least}");
        let more = ["--filter", &filter, "--model", &model, "--workers", workers, "--json"];
        (json(&success(&pack(out.to_str().unwrap(), &more))), files(&out))
    };
    let all = packed("-1", "2").0;
    assert_eq!((&all["read"], &all["samples"]), (&300.into(), &300.into()));
    let none = packed("1", "2").0;
    assert_eq!(
        (&none["samples"], &none["shards"], &none["filtered"]["clip_score"]),
        (&0.into(), &0.into(), &300.into())
    );
    let (some, bytes) = packed("0.02", "1");
    assert_eq!(bytes, packed("0.02", "3").1);
    assert_eq!(some["samples"].as_u64().unwrap() + some["filtered"]["clip_score"].as_u64().unwrap_or(0), 300);
}

#[test]
fn a_data_set_is_counted_and_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    let printed = success(&pack(&out, &[]));
    assert!(printed.contains("15 shards of") && printed.contains("15 made now"), "{printed}");
    assert!(success(&pack(&out, &["--verify"])).contains("all there already"));
    let data = format!("kind = 'webdataset', shards = '{out}/*.tar'");
    let stats = json(&success(&["data", "stats", "--data", &data, "--json"]));
    assert_eq!((&stats["samples"], &stats["width"]["median"]), (&300.into(), &64.0.into()));
    assert_eq!(stats, json(&success(&["data", "stats", "--data", SHAPES, "--json"])));
    let config = write_config(folder.path());
    let set = ["data", "stats", "--config", config.to_str().unwrap(), "--source", "eval.held_out"];
    assert!(success(&set).contains("people and body"));

    for (name, magic) in [("sheet.png", &b"\x89PNG"[..]), ("sheet.html", b"<!doctype html>")] {
        let sheet = folder.path().join(name);
        let said =
            success(&["data", "show", "--data", &data, "--out", sheet.to_str().unwrap(), "--count", "9"]);
        assert!(said.starts_with("9 of 300 samples"), "{said}");
        assert!(std::fs::read(&sheet).unwrap().starts_with(magic));
    }
}
