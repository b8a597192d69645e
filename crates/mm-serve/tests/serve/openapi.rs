//! The OpenAPI document describes what the server does.

use crate::common::{models, start};
use serde_json::{Value, json};

#[test]
fn every_path_and_method_of_the_document_is_served_and_no_other() {
    let server = start(&models(""));
    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().unwrap() {
        // An index and an item that do not exist: such a 404 has another message than that of a path.
        let concrete = path.replace("{file}", "app.js").replace("{index}", "none").replace("{id}", "1");
        for method in ["get", "post"] {
            let answer = match method {
                "get" => server.get(&concrete),
                _ => server.post(&concrete, &json!({})),
            };
            let is_served = answer.status != 405 && !answer.text().contains("no such path");
            assert_eq!(is_served, methods.get(method).is_some(), "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn answers_and_requests_have_the_fields_of_their_schemas() {
    let server = start(&models(""));
    let document = server.get("/openapi.json").json();
    let schema = |path: &str| {
        document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"].clone()
    };
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (path, body) in [
        ("/v1/embeddings", json!({ "model": "clip", "input": "a" })),
        ("/v1/generate", json!({ "model": "sd", "prompt": "a", "steps": 1 })),
    ] {
        let answer = server.json(path, &body);
        let schema = schema(path);
        for key in keys(&answer) {
            assert!(schema["properties"].get(&key).is_some(), "{path}: {key}");
        }
        for key in schema["required"].as_array().unwrap() {
            assert!(answer.get(key.as_str().unwrap()).is_some(), "{path}: {key}");
        }
    }
    // A request with every field of its schema is refused for a value, never as unknown.
    for (path, methods) in document["paths"].as_object().unwrap() {
        let content = &methods["post"]["requestBody"]["content"]["application/json"]["schema"];
        let Some(properties) = content["properties"].as_object() else { continue };
        for key in properties.keys() {
            let text = server.post(path, &json!({ key: null })).text();
            assert!(!text.contains("unknown field"), "{path} {key}: {text}");
        }
    }
}
