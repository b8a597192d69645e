//! The operations of the OpenAPI document, one for each row of the table of routes.

use super::schema::{
    data_url, file, get, image_fields, images, list_of, model, object, one_image, post, range,
    sampling_fields, text, words,
};
use crate::app::App;
use crate::config::Task;
use crate::routes::caption::MAX_TOKENS;
use serde_json::{Value, json};

/// `GET /`
pub fn index(_: &App) -> Value {
    get("index", "The web page", "text/html", json!({ "type": "string" }))
}

/// `GET /page/{file}`
pub fn asset(_: &App) -> Value {
    let mut operation = get("asset", "A file of the web page", "*/*", json!({}));
    operation["parameters"] =
        json!([{ "name": "file", "in": "path", "required": true, "schema": { "type": "string" } }]);
    operation["responses"]["400"] = super::error("The name is not UTF-8.");
    operation["responses"]["404"] = super::error("There is no such file.");
    operation
}

/// `GET /healthz`
pub fn healthz(_: &App) -> Value {
    let schema = |status: &str| object(&["status"], json!({ "status": { "const": status } }));
    let mut operation = get("healthz", "Whether all models are opened", "application/json", schema("ok"));
    operation["responses"]["503"] = json!({
        "description": "Models are being opened.",
        "content": { "application/json": { "schema": schema("loading") } },
    });
    operation
}

/// `GET /metrics`
pub fn metrics(_: &App) -> Value {
    get("metrics", "Counts, in Prometheus' text format", "text/plain", json!({ "type": "string" }))
}

/// `GET /openapi.json`
pub fn openapi(_: &App) -> Value {
    get("openapi", "This document", "application/json", json!({ "type": "object" }))
}

/// `GET /v1/models`
pub fn models(_: &App) -> Value {
    let model = object(
        &["id", "object", "created", "owned_by", "task"],
        json!({
            "id": { "type": "string" },
            "object": { "const": "model" },
            "created": { "type": "integer", "description": "The start of the server, seconds since 1970." },
            "owned_by": { "const": "mm" },
            "task": { "enum": ["clip", "caption", "vqa", "diffusion", "reward"] },
        }),
    );
    let list = object(
        &["object", "data"],
        json!({ "object": { "const": "list" }, "data": { "type": "array", "items": model } }),
    );
    get("models", "The models", "application/json", list)
}

/// `POST /v1/embeddings`
pub fn embeddings(app: &App) -> Value {
    let limits = &app.limits;
    let image = object(&["image"], json!({ "image": data_url() }));
    let input = json!({ "anyOf": [text(limits), image] });
    let most = limits.texts.saturating_add(limits.images);
    let list = json!({ "type": "array", "minItems": 1, "maxItems": most, "items": input });
    let fields = |input: Value| {
        json!({
            "model": model(app, Task::Clip),
            "input": input,
            "encoding_format": { "enum": ["float", "base64"], "default": "float" },
            "dimensions": { "type": "integer", "minimum": 1, "description": "The model's own, or absent." },
            "user": { "type": "string", "description": "Without effect." },
        })
    };
    let embedding = object(
        &["object", "index", "embedding"],
        json!({
            "object": { "const": "embedding" },
            "index": { "type": "integer" },
            "embedding": { "anyOf": [
                { "type": "array", "items": { "type": "number" } },
                { "type": "string", "description": "f32 in little-endian order, in base64." },
            ] },
        }),
    );
    let tokens = json!({ "prompt_tokens": { "type": "integer" }, "total_tokens": { "type": "integer" } });
    let answer = object(
        &["object", "data", "model", "usage"],
        json!({
            "object": { "const": "list" },
            "data": { "type": "array", "items": embedding },
            "model": { "type": "string" },
            "usage": object(&["prompt_tokens", "total_tokens"], tokens),
        }),
    );
    let files = json!({ "type": "array", "minItems": 1, "items": { "anyOf": [text(limits), file()] } });
    let json_body = object(&["model", "input"], fields(json!({ "anyOf": [input, list] })));
    let form_body = object(&["model", "input"], fields(files));
    post("embeddings", "Texts and images as unit vectors", (json_body, form_body), answer)
}

/// `POST /v1/classify`
pub fn classify(app: &App) -> Value {
    let limits = &app.limits;
    let label = object(
        &["label", "probability"],
        json!({ "label": { "type": "string" }, "probability": { "type": "number" } }),
    );
    let labels = json!({ "labels": { "type": "array", "items": label } });
    let answer = object(
        &["model", "probabilities", "results"],
        json!({
            "model": { "type": "string" },
            "probabilities": { "enum": ["softmax", "sigmoid"] },
            "results": { "type": "array", "items": object(&["labels"], labels) },
        }),
    );
    let fields = |image: &Value| {
        let mut fields = image_fields(image, app, Task::Clip);
        let labels = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": words(limits) });
        fields.insert("labels".to_owned(), labels);
        let template = json!({ "type": "string", "pattern": "\\{\\}", "maxLength": limits.text_chars });
        fields.insert("templates".to_owned(), json!({ "type": "array", "minItems": 1, "items": template }));
        one_image(&["model", "labels"], fields)
    };
    post("classify", "Zero-shot classification", (fields(&data_url()), fields(&file())), answer)
}

/// `POST /v1/heatmap`
pub fn heatmap(app: &App) -> Value {
    let limits = &app.limits;
    let body = |image: Value| {
        object(
            &["model", "image", "text"],
            json!({ "model": model(app, Task::Clip), "image": image, "text": text(limits) }),
        )
    };
    let mut operation =
        post("heatmap", "The parts of an image that fit a text", (body(data_url()), body(file())), json!({}));
    operation["responses"]["200"]["content"] =
        json!({ "image/png": { "schema": { "type": "string", "contentMediaType": "image/png" } } });
    operation
}

/// `POST /v1/caption`
pub fn caption(app: &App) -> Value {
    let limits = &app.limits;
    let answer = object(
        &["model", "captions"],
        json!({
            "model": { "type": "string" },
            "captions": { "type": "array", "items": { "type": "string" } },
        }),
    );
    let body = |image: &Value| {
        let mut fields = image_fields(image, app, Task::Caption);
        fields.insert("prompt".to_owned(), text(limits));
        fields.insert("max_tokens".to_owned(), range("integer", 1, MAX_TOKENS));
        fields.insert("num_beams".to_owned(), range("integer", 1, limits.beams));
        fields.insert("stream".to_owned(), json!({ "type": "boolean", "default": false }));
        one_image(&["model"], fields)
    };
    let mut operation = post("caption", "Captions of images", (body(&data_url()), body(&file())), answer);
    operation["responses"]["200"]["content"]["text/event-stream"] = json!({ "schema": {
        "description": "With `stream`, of one image and one beam: events {text}, together the caption, then \
            [DONE].",
    } });
    operation
}

/// `POST /v1/vqa`
pub fn vqa(app: &App) -> Value {
    let limits = &app.limits;
    let body = |image: Value| {
        let fields = json!({ "model": model(app, Task::Vqa), "image": image, "question": words(limits) });
        object(&["model", "image", "question"], fields)
    };
    let given = object(
        &["answer", "probability"],
        json!({ "answer": { "type": "string" }, "probability": { "type": "number" } }),
    );
    let answer = object(
        &["model", "answers"],
        json!({ "model": { "type": "string" }, "answers": { "type": "array", "items": given } }),
    );
    post("vqa", "Answers to a question about an image", (body(data_url()), body(file())), answer)
}

/// `POST /v1/generate`
pub fn generate(app: &App) -> Value {
    let limits = &app.limits;
    let mut fields = sampling_fields(app);
    fields.insert("prompt".to_owned(), text(limits));
    let body = object(&["model", "prompt"], Value::Object(fields));
    images("generate", "Images from a text", (body.clone(), body))
}

/// `POST /v1/edit`
pub fn edit(app: &App) -> Value {
    let limits = &app.limits;
    let body = |image: &Value| {
        let mut fields = sampling_fields(app);
        fields.insert("image".to_owned(), image.clone());
        fields.insert("mask".to_owned(), image.clone());
        fields.insert("prompt".to_owned(), text(limits));
        fields.insert("instruction".to_owned(), text(limits));
        fields.insert("strength".to_owned(), range("number", 0, 1));
        fields.insert("image_guidance_scale".to_owned(), range("number", 0, 1000));
        let mut body = object(&["model", "image"], Value::Object(fields));
        body["oneOf"] = json!([
            { "required": ["prompt"] },
            { "required": ["instruction"], "properties": { "mask": false, "strength": false } },
        ]);
        body
    };
    images("edit", "An image changed by a text", (body(&data_url()), body(&file())))
}

/// `POST /v1/reward`
pub fn reward(app: &App) -> Value {
    let limits = &app.limits;
    let body = |image: Value| {
        object(
            &["model", "images"],
            json!({
                "model": model(app, Task::Reward),
                "images": list_of(image, limits),
                "prompt": text(limits),
                "prompts": { "type": "array", "items": text(limits), "description": "One an image." },
            }),
        )
    };
    let scores = json!({
        "model": { "type": "string" },
        "scores": { "type": "array", "items": { "type": "number" } },
    });
    let answer = object(&["model", "scores"], scores);
    post("reward", "Scores of images", (body(data_url()), body(file())), answer)
}
