//! The parts that operations are made of.

use crate::app::App;
use crate::config::Task;
use crate::limits::Limits;
use serde_json::{Map, Value, json};

/// An operation without a body, answered by `schema` in `content_type`.
pub fn get(id: &str, summary: &str, content_type: &str, schema: Value) -> Value {
    json!({
        "operationId": id,
        "summary": summary,
        "responses": { "200": { "description": summary, "content": { content_type: { "schema": schema } } } },
    })
}

/// An operation with a body in JSON and as a form.
pub fn post(id: &str, summary: &str, (json_body, form_body): (Value, Value), answer: Value) -> Value {
    let mut operation = get(id, summary, "application/json", answer);
    operation["requestBody"] = json!({
        "required": true,
        "content": {
            "application/json": { "schema": json_body },
            "multipart/form-data": { "schema": form_body },
        },
    });
    operation
}

/// An operation that gives images, or streams them.
pub fn images(id: &str, summary: &str, bodies: (Value, Value)) -> Value {
    let list = |items: Value| json!({ "type": "array", "items": items });
    let answer = object(
        &["model", "images", "seeds", "settings"],
        json!({
            "model": { "type": "string" },
            "images": list(data_url()),
            "seeds": list(json!({ "type": "integer" })),
            "flagged": list(json!({ "type": "boolean" })),
            "settings": { "$ref": "#/components/schemas/Settings" },
        }),
    );
    let mut operation = post(id, summary, bodies, answer);
    operation["responses"]["200"]["content"]["text/event-stream"] = json!({ "schema": {
        "description": "With `stream`: events {step, steps, preview?}, then the object above, then [DONE].",
    } });
    operation
}

/// An object with these properties and no others.
pub fn object(required: &[&str], properties: Value) -> Value {
    json!({
        "type": "object", "required": required, "properties": properties, "additionalProperties": false,
    })
}

/// An object with either `image` or `images`.
pub fn one_image(required: &[&str], fields: Map<String, Value>) -> Value {
    let mut body = object(required, Value::Object(fields));
    body["oneOf"] = json!([{ "required": ["image"] }, { "required": ["images"] }]);
    body
}

/// The fields of a request about one image or several.
pub fn image_fields(image: &Value, app: &App, task: Task) -> Map<String, Value> {
    Map::from_iter([
        ("model".to_owned(), model(app, task)),
        ("image".to_owned(), image.clone()),
        ("images".to_owned(), list_of(image.clone(), &app.limits)),
    ])
}

/// The fields of a request for images, but for its text.
pub fn sampling_fields(app: &App) -> Map<String, Value> {
    let limits = &app.limits;
    Map::from_iter([
        ("model".to_owned(), model(app, Task::Diffusion)),
        ("negative_prompt".to_owned(), text(limits)),
        ("width".to_owned(), range("integer", 1, limits.side)),
        ("height".to_owned(), range("integer", 1, limits.side)),
        ("steps".to_owned(), range("integer", 1, limits.steps)),
        ("guidance_scale".to_owned(), range("number", 0, 1000)),
        ("seed".to_owned(), range("integer", 0, u64::MAX)),
        ("n".to_owned(), range("integer", 1, limits.generated)),
        ("stream".to_owned(), json!({ "type": "boolean", "default": false })),
    ])
}

/// A list of images.
pub fn list_of(image: Value, limits: &Limits) -> Value {
    json!({ "type": "array", "minItems": 1, "maxItems": limits.images, "items": image })
}

/// The name of a model that does `task`.
pub fn model(app: &App, task: Task) -> Value {
    one_of(app.models.iter().filter(|(_, model)| model.task() == task).map(|(name, _)| name.as_str()))
}

/// One of the served `names`; any text where there are none.
pub fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { json!({ "type": "string" }) } else { json!({ "type": "string", "enum": names }) }
}

/// An image in JSON.
pub fn data_url() -> Value {
    json!({ "$ref": "#/components/schemas/DataUrl" })
}

/// An image in a form.
pub fn file() -> Value {
    json!({ "type": "string", "format": "binary" })
}

/// A text.
pub fn text(limits: &Limits) -> Value {
    json!({ "type": "string", "maxLength": limits.text_chars })
}

/// A text that is not blank.
pub fn words(limits: &Limits) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": limits.text_chars, "pattern": "\\S" })
}

/// A number with its bounds.
pub fn range(kind: &str, least: impl Into<Value>, most: impl Into<Value>) -> Value {
    json!({ "type": kind, "minimum": least.into(), "maximum": most.into() })
}
