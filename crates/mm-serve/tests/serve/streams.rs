//! Server-sent events.

use crate::common::{TestServer, form, models, photo, picture, start, url};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| start(&models("")));

/// The events of a stream, without the mark of its end, which must be there.
fn events(path: &str, body: &Value) -> Vec<Value> {
    let answer = SERVER.post(path, body);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    let text = answer.text();
    let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.pop(), Some("data: [DONE]"));
    let parse = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    events.into_iter().map(parse).collect()
}

#[test]
fn steps_with_previews_come_before_the_images_of_the_request() {
    let body = json!({ "model": "sd", "prompt": "a red star", "steps": 8, "seed": 5 });
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let mut events = events("/v1/generate", &streamed);
    let images = events.pop().unwrap();
    assert_eq!(images, SERVER.json("/v1/generate", &body));
    let side = picture(&images["images"][0]).dimensions();
    assert!(!events.is_empty());
    let steps: Vec<u64> = events.iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted_by(|a, b| a < b) && steps[0] >= 1, "{steps:?}");
    // The scheduler calls the model once more than it has steps.
    assert!(events.iter().all(|event| event["steps"] == 9));
    for event in events.iter().filter(|event| event.get("preview").is_some()) {
        assert_eq!(picture(&event["preview"]).dimensions(), side);
    }
}

#[test]
fn a_request_that_fails_before_its_first_step_has_a_status_of_its_own() {
    let body = json!({ "model": "sd", "prompt": "a", "width": 33, "stream": true });
    assert_eq!(SERVER.post("/v1/generate", &body).status, 422);
}

#[test]
fn the_texts_of_a_caption_are_together_the_caption() {
    for more in [json!({}), json!({ "prompt": "a picture of", "max_tokens": 12, "num_beams": 1 })] {
        let mut body = json!({ "model": "blip", "image": url("chelsea") });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = SERVER.json("/v1/caption", &body);
        body["stream"] = true.into();
        let events = events("/v1/caption", &body);
        let text: String = events.iter().map(|event| event["text"].as_str().unwrap()).collect();
        assert_eq!(whole["captions"], json!([text]));
        assert!(events.len() > 2 && events.iter().all(|event| event["text"] != ""), "{events:?}");
    }
}

#[test]
fn a_form_streams_a_caption_as_json_does() {
    let chelsea = photo("chelsea");
    let (kind, body) =
        form(&[("model", None, b"blip"), ("image", Some("a.png"), &chelsea), ("stream", None, b"true")]);
    let found = SERVER.send("/v1/caption", &kind, &body);
    let body = json!({ "model": "blip", "image": url("chelsea"), "stream": true });
    let expected = SERVER.post("/v1/caption", &body);
    assert_eq!((found.status, found.text()), (200, expected.text()));
}

#[test]
fn a_caption_that_fails_before_its_first_text_has_a_status_of_its_own() {
    let body = json!({ "model": "blip", "image": url("chelsea"), "max_tokens": 4096, "stream": true });
    assert_eq!(SERVER.post("/v1/caption", &body).status, 422);
}
