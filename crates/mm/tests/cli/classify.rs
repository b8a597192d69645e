//! Labels, probabilities and images of `mm classify`.

use crate::common::{failure, mm, success, trained_clip, write_png};
use std::path::Path;

/// What `mm classify --json` printed for one image: the kind of its probabilities, and each label's.
fn probabilities(printed: &str) -> (String, Vec<(String, f64)>) {
    let report: serde_json::Value = serde_json::from_str(printed).unwrap();
    let labels = report["labels"].as_array().unwrap().iter();
    let labels =
        labels.map(|of| (of["label"].as_str().unwrap().to_owned(), of["probability"].as_f64().unwrap()));
    (report["probabilities"].as_str().unwrap().to_owned(), labels.collect())
}

#[test]
fn probabilities_are_those_of_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.png");
    write_png(&image, 200);
    for (loss, kind) in [("info_nce", "softmax"), ("siglip", "sigmoid")] {
        let folder = folder.path().join(loss);
        std::fs::create_dir(&folder).unwrap();
        let model = trained_clip(&folder, &[&format!("model.loss={loss}")]);
        let classify = |labels: &str| {
            let image = image.to_str().unwrap();
            probabilities(&success(&["classify", "--model", &model, "--labels", labels, "--json", image]))
        };
        let ((found, both), (_, alone)) = (classify("cat,red heart"), classify("cat"));
        assert_eq!(found, kind);
        let of_cat = both.iter().find(|(label, _)| label == "cat").unwrap().1;
        let sum: f64 = both.iter().map(|(_, p)| p).sum();
        match kind {
            "softmax" => {
                assert!((sum - 1.0).abs() < 1e-5 && (alone[0].1 - 1.0).abs() < 1e-6, "{both:?} {alone:?}")
            }
            // A new model's scale is 10 and its bias -10.
            _ => assert!(
                (alone[0].1 - of_cat).abs() < 1e-6 && of_cat < 0.51 && sum < 1.0,
                "{both:?} {alone:?}"
            ),
        }
    }
}

#[test]
fn labels_come_from_a_line_or_a_file_and_bad_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let image = folder.path().join("image.png");
    write_png(&image, 200);
    let file = folder.path().join("labels.json");
    std::fs::write(&file, r#"{"1": ["n02", "great_white_shark"], "0": ["n01", "tench"]}"#).unwrap();
    let (image, file) = (image.to_str().unwrap(), file.to_str().unwrap());
    let base = ["classify", "--model", &model, image];
    let labels = |arguments: &[&str]| {
        let (_, labels) = probabilities(&success(&[&base[..], &["--json"], arguments].concat()));
        let mut labels: Vec<String> = labels.into_iter().map(|(label, _)| label).collect();
        labels.sort();
        labels
    };
    assert_eq!(labels(&["--labels", "\"red, green\",blue"]), ["blue", "red, green"]);
    assert_eq!(labels(&["--labels-file", file]), ["great white shark", "tench"]);
    let refused = |arguments: &[&str], code: i32| failure(&[&base[..], arguments].concat(), code);
    assert!(refused(&["--labels", "a,,b"], 1).contains("label 2 of 3 is empty"));
    assert!(refused(&["--labels", "a,b,"], 1).contains("label 3 of 3 is empty"));
    assert!(refused(&["--labels", "a,a"], 1).contains("given twice"));
    assert!(refused(&["--labels-file", "none.txt"], 1).contains("none.txt"));
    assert!(refused(&["--labels", "a", "--labels-file", file], 2).contains("cannot be used with"));
    assert!(refused(&[], 2).contains("required arguments"));
}

#[test]
fn unreadable_images_are_named_counted_and_left_out_of_what_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained_clip(folder.path(), &[]);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (good, broken, none) = (path("good.png"), path("broken.png"), path("none.png"));
    write_png(Path::new(&good), 10);
    std::fs::write(&broken, &std::fs::read(&good).unwrap()[..60]).unwrap();
    let classify = |arguments: &[&str]| {
        let output = mm(&[&["classify", "--model", &model, "--labels", "a,b", "--json"], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, given, said) = classify(&[&broken, &good, &none]);
    assert_eq!((code, given.lines().count()), (Some(1), 1), "{said}");
    assert!(given.contains("good.png") && said.contains("broken.png") && said.contains("none.png"), "{said}");
    assert!(said.contains("2 of 3 images cannot be read, more than --max-bad-samples 0"), "{said}");
    let (code, given, said) = classify(&[&broken, &good, &none, "--max-bad-samples", "2"]);
    assert_eq!((code, given.lines().count()), (Some(0), 1), "{said}");
    assert_eq!(said.matches("left out: ").count(), 2, "{said}");
    let (code, given, said) = classify(&[&broken, &none, "--max-bad-samples", "2"]);
    assert_eq!((code, given.as_str()), (Some(1), ""));
    assert!(said.contains("not one of 2 images can be read"), "{said}");
}
