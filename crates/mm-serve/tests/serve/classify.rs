//! Zero-shot classification is that of the crate.

use crate::common::{TestServer, assert_close, clip, image, models, rows, start, url};
use mm_clip::{Templates, ZeroShot};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| start(&models("")));

#[test]
fn labels_are_ranked_as_zero_shot_classification_has_them() {
    let pipeline = clip();
    let labels = ["cat", "rocket", "coffee"];
    let owned = labels.map(str::to_owned).to_vec();
    let classifier = ZeroShot::new(&pipeline, owned, &Templates::default(), 32).unwrap();
    let images = [image("chelsea"), image("rocket")];
    let probabilities = classifier.probabilities(&pipeline, &pipeline.image.embed(&images).unwrap());
    let body = json!({ "model": "clip", "images": [url("chelsea"), url("rocket")], "labels": labels });
    for _ in 0..2 {
        assert_ranked(&SERVER.json("/v1/classify", &body), &labels, &probabilities);
    }
}

#[test]
fn own_templates_are_those_of_zero_shot_classification() {
    let pipeline = clip();
    let labels = ["cat", "rocket", "coffee"];
    let images = pipeline.image.embed(&[image("chelsea"), image("rocket")]).unwrap();
    for templates in [vec!["{}"], vec!["a drawing of a {}", "the {} of my {}"]] {
        let own = Templates::new(templates.iter().map(|&text| text.to_owned()).collect()).unwrap();
        let classifier = ZeroShot::new(&pipeline, labels.map(str::to_owned).to_vec(), &own, 32).unwrap();
        let probabilities = classifier.probabilities(&pipeline, &images);
        let urls = [url("chelsea"), url("rocket")];
        let body = json!({ "model": "clip", "images": urls, "labels": labels, "templates": templates });
        for _ in 0..2 {
            assert_ranked(&SERVER.json("/v1/classify", &body), &labels, &probabilities);
        }
    }
}

/// Asserts that `answer` has the `probabilities` `[images, labels]`, the largest first.
fn assert_ranked(answer: &Value, labels: &[&str], probabilities: &tch::Tensor) {
    assert_eq!(answer["probabilities"], "softmax");
    for (result, row) in answer["results"].as_array().unwrap().iter().zip(0..) {
        let found = result["labels"].as_array().unwrap();
        let probability = |label: &Value| label["probability"].as_f64().unwrap() as f32;
        assert!(found.is_sorted_by(|a, b| probability(a) >= probability(b)));
        let expected = rows(&probabilities.get(row));
        for (label, expected) in labels.iter().zip(expected) {
            let found = found.iter().find(|found| found["label"] == *label).unwrap();
            assert_close(&[probability(found)], &[expected]);
        }
    }
}
