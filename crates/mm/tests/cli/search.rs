//! `mm search`: indexing that is killed and continued, queries, and bad input.

use crate::common::{command, failure, success, trained_clip, write_png};
use crate::ranks;
use mm_search::Index;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

fn indexed(model: &str, data: &str, index: &str, more: &[&str]) -> Value {
    let base = ["search", "index", "--model", model, "--data", data, "--index", index, "--json"];
    serde_json::from_str(&success(&[&base, more].concat())).unwrap()
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The items of the index, which may not be there yet.
fn items(index: &Path) -> usize {
    Index::open(index).map_or(0, |index| index.len())
}

/// Waits until the index has more than `before` items, or the process has ended, and kills it.
fn kill_after_a_commit(process: &mut Child, index: &Path, before: usize) {
    while items(index) <= before && process.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2)); // leaves the cores to the process
    }
    let _ = process.kill();
    process.wait().unwrap();
}

/// More than twenty commits of 256.
const IMAGES: usize = 5_500;

#[test]
fn indexing_killed_twenty_times_ends_with_the_index_of_an_unbroken_call() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for number in 0..IMAGES {
        let color = [number, number >> 4, number >> 8].map(|level| 16 * (level as u8 & 15));
        let image = mm_image::RgbImage::from_pixel(8, 8, color.into());
        image.save(photos.join(format!("{number}.png"))).unwrap();
    }
    let data = photos.to_str().unwrap();
    let index = folder.path().join("index");
    let arguments = ["--model", &model, "--data", data, "--index", index.to_str().unwrap()];
    let mut kept = 0;
    for _ in 0..20 {
        let mut indexing = command(&[&["search", "index"], &arguments[..]].concat());
        let mut indexing = indexing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        kill_after_a_commit(&mut indexing, &index, kept);
        let after = Index::open(&index).unwrap();
        assert!(after.len() > kept, "{} after {kept}", after.len());
        assert!(after.ids().iter().all(|&id| after.item(id).is_ok()));
        kept = after.len();
    }
    let last = indexed(&model, data, index.to_str().unwrap(), &[]);
    assert_eq!(
        (last["items"].as_u64(), last["unchanged"].as_u64()),
        (Some(IMAGES as u64), Some(kept as u64))
    );
    let whole = folder.path().join("whole");
    indexed(&model, data, whole.to_str().unwrap(), &[]);
    assert_same_rows(&index, &whole);
}

/// Both indexes have the same items, with the same rows but for rounding.
fn assert_same_rows(one: &Path, other: &Path) {
    let rows = |index: &Path| {
        let index = Index::open(index).unwrap();
        let row = |id| (index.item(id).unwrap().key, index.row(id).unwrap());
        let mut rows: Vec<(String, Vec<f32>)> = index.ids().into_iter().map(row).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let (one, other) = (rows(one), rows(other));
    assert_eq!(one.len(), other.len());
    for ((key, a), (other, b)) in one.into_iter().zip(other) {
        assert_eq!(key, other);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{key}");
    }
}

#[test]
fn two_processes_index_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let photo = |shade: u8| photos.join(format!("{shade}.png"));
    (0..200).for_each(|shade| write_png(&photo(shade), shade));
    let data = photos.to_str().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let by_two = ["search", "index", "--model", &model, "--data", data, "--index", two.to_str().unwrap()];
    ranks::success(&by_two, 2);
    indexed(&model, data, one.to_str().unwrap(), &[]);
    assert_same_rows(&two, &one);
    std::fs::remove_file(photo(7)).unwrap();
    write_png(&photo(8), 250);
    ranks::success(&by_two, 2);
    let report = indexed(&model, data, one.to_str().unwrap(), &[]);
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!([count("changed"), count("deleted"), count("unchanged")], [1, 1, 198]);
    assert_same_rows(&two, &one);
}

#[test]
fn images_are_found_by_text_by_image_and_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let (index, photos) = (folder.path().join("index"), folder.path().join("photos"));
    std::fs::create_dir_all(photos.join("light")).unwrap();
    for shade in [0, 60, 120, 180, 240] {
        write_png(&photos.join(format!("light/{shade}.png")), shade);
    }
    let index = index.to_str().unwrap();
    let report = indexed(&model, photos.to_str().unwrap(), index, &["--graph", "always"]);
    assert_eq!((report["added"].as_u64(), report["graph"].as_u64()), (Some(5), Some(5)));
    let query = |arguments: &[&str]| {
        let base = ["search", "query", "--index", index, "--model", &model, "--json"];
        lines(&success(&[&base, arguments].concat()))
    };
    let image = photos.join("light/120.png");
    let image = image.to_str().unwrap();
    let found = query(&["--image", image]);
    assert_eq!((found.len(), &found[0]["key"]), (5, &Value::from(image)));
    assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-4);
    assert_eq!(found[0]["metadata"]["label"], "light");
    let id = found[0]["id"].to_string();
    assert_eq!(query(&["--item", &id])[0]["key"], image);
    assert_eq!(
        query(&["a light", "--image", &format!("{image}@2"), "--minus", "dark@0.1", "-k", "2"]).len(),
        2
    );
    assert_eq!(query(&["light", "--filter", "key ~ '240' or key ~ '60'"]).len(), 2);
    assert_eq!(query(&["light", "--filter", "width > 24"]).len(), 0);
    assert_eq!(query(&["light", "--diverse", "0.5", "--exact", "-k", "3"]).len(), 3);
    let sheet = folder.path().join("found.png");
    query(&["light", "--out", sheet.to_str().unwrap()]);
    assert!(mm_image::decode(&std::fs::read(&sheet).unwrap(), [255; 3]).unwrap().width() > 400);

    let groups = lines(&success(&["search", "duplicates", "--index", index, "--threshold", "0", "--json"]));
    assert_eq!(groups[0].as_array().unwrap().len(), 5);
    let recall = success(&["search", "eval", "--index", index, "--items", "5", "-k", "2", "--json"]);
    assert_eq!(lines(&recall)[0]["graph"][0]["recall"], 1.0);
    let out = folder.path().join("rows.npy");
    success(&["search", "export", "--index", index, "--out", out.to_str().unwrap()]);
    assert!(out.with_extension("keys.txt").exists());
}

#[test]
fn an_index_of_another_model_and_wrong_arguments_are_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let other = tempfile::tempdir().unwrap();
    let other = trained_clip(other.path(), &[]);
    let data = "kind = 'shapes', samples = 20, size = 16";
    let (index, none) = (folder.path().join("index"), folder.path().join("none"));
    let (index, none) = (index.to_str().unwrap(), none.to_str().unwrap());
    indexed(&model, data, index, &[]);
    let changed = Path::new(&other).join("preprocessor_config.json");
    let text = std::fs::read_to_string(&changed).unwrap();
    std::fs::write(&changed, text + "\n").unwrap();
    let index_with =
        |model: &str| failure(&["search", "index", "--model", model, "--data", data, "--index", index], 1);
    assert!(index_with(&other).contains("embeddings of another model"));
    let query = |index: &str, model: &str, more: &[&str]| {
        failure(&[&["search", "query", "--index", index, "--model", model], more].concat(), 1)
    };
    assert!(query(index, &other, &["a"]).contains("embeddings of another model"));
    assert!(query(none, &model, &["a"]).contains("make one with `mm search index`"));
    assert!(query(index, &model, &[]).contains("give a text or an image"));
    assert!(query(index, &model, &["a", "--filter", "width >"]).contains("at character 8"));
    assert!(query(index, &model, &["--item", "77"]).contains("no item 77"));
    assert!(query(index, &model, &["a", "--diverse", "2"]).contains("between 0 and 1"));
    let eval = failure(&["search", "eval", "--index", index, "--items", "5"], 1);
    assert!(eval.contains("no graph"), "{eval}");
}
