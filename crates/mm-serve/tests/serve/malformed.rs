//! No request makes the server fail or hang.

use crate::common::{TestServer, form, models, photo, start, url};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| start(&models("steps = 4\nside = 128\n")));

/// A valid request of each route.
fn valid() -> Vec<(&'static str, Value)> {
    let image = url("chelsea-eye");
    vec![
        ("/v1/embeddings", json!({ "model": "clip", "input": ["a cat", { "image": image }] })),
        ("/v1/classify", json!({ "model": "clip", "image": image, "labels": ["a", "b"] })),
        ("/v1/heatmap", json!({ "model": "clip", "image": image, "text": "a cat" })),
        ("/v1/caption", json!({ "model": "blip", "images": [image], "max_tokens": 4, "prompt": "a" })),
        ("/v1/vqa", json!({ "model": "vqa", "image": image, "question": "what?" })),
        ("/v1/generate", json!({ "model": "sd", "prompt": "a", "steps": 1, "seed": 1, "n": 1 })),
        (
            "/v1/edit",
            json!({
                "model": "sd", "image": image, "prompt": "a", "strength": 1.0, "steps": 1, "width": 64,
                "height": 64,
            }),
        ),
        ("/v1/reward", json!({ "model": "score", "images": [image], "prompts": ["a"] })),
    ]
}

/// Values that a field is replaced by.
fn values() -> impl Strategy<Value = Value> {
    let text = "\\PC{0,12}".prop_map(Value::from);
    let odd = prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("\u{0}\u{feff}\u{202e}")),
        Just(json!(-1)),
        Just(json!(1e308)),
        Just(json!(u64::MAX)),
        Just(json!([[[[]]]])),
        Just(json!("data:image/png;base64,iVBORw0KGgo=")),
        Just(json!("http://localhost/")),
    ];
    prop_oneof![odd, text, any::<i64>().prop_map(Value::from), any::<bool>().prop_map(Value::from)]
}

/// The places of all values of a request.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), found));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(place, value)| pointers(value, format!("{at}/{place}"), found));
        }
        _ => {}
    }
    found.push(at);
}

fn assert_answered(path: &str, answer: &crate::common::Answer, sent: &dyn std::fmt::Debug) {
    assert!(answer.status < 500, "{path} {sent:?} gives {answer:?}");
    if answer.status >= 400 {
        assert!(answer.json()["error"]["message"].is_string(), "{path} {sent:?} gives {answer:?}");
    }
}

#[test]
fn the_valid_requests_are_valid() {
    for (path, body) in valid() {
        assert_eq!(SERVER.post(path, &body).status, 200, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_value_of_any_kind_in_any_place_is_no_failure(
        route in 0..8usize,
        place in any::<prop::sample::Index>(),
        value in values(),
    ) {
        let (path, mut body) = valid().swap_remove(route);
        let mut places = Vec::new();
        pointers(&body, String::new(), &mut places);
        if let Some(target) = body.pointer_mut(&places[place.index(places.len())]) {
            *target = value;
        }
        assert_answered(path, &SERVER.post(path, &body), &body);
    }

    #[test]
    fn bytes_that_are_changed_or_cut_are_no_failure(
        route in 0..8usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let (path, body) = valid().swap_remove(route);
        let mut body = body.to_string().into_bytes();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if is_cut {
            body.truncate(end.index(body.len()));
        }
        let answer = SERVER.send(path, "application/json", &body);
        assert_answered(path, &answer, &String::from_utf8_lossy(&body));
    }

    #[test]
    fn forms_of_any_parts_are_no_failure(
        route in 0..8usize,
        parts in prop::collection::vec((0..9usize, any::<bool>(), "\\PC{0,8}"), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        const NAMES: [&str; 9] =
            ["model", "image", "images", "input", "labels", "prompt", "steps", "question", "x"];
        let (path, _) = valid().swap_remove(route);
        let image = photo("chelsea-eye");
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, is_file, text)| match is_file {
                true => (NAMES[*name], Some("a.png"), image.as_slice()),
                false => (NAMES[*name], None, text.as_bytes()),
            })
            .collect();
        let (kind, mut body) = form(&parts);
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        assert_answered(path, &SERVER.send(path, &kind, &body), &parts);
    }
}
