//! The operations of indexes.

use super::error;
use super::schema::{data_url, get, object, one_of, post, range, text};
use crate::app::App;
use serde_json::{Value, json};

/// `GET /v1/indexes`
pub fn indexes(_: &App) -> Value {
    let index = object(
        &["id", "model", "rows", "dim"],
        json!({
            "id": { "type": "string" },
            "model": { "type": "string" },
            "rows": { "type": "integer" },
            "dim": { "type": "integer" },
        }),
    );
    let list = object(
        &["object", "data"],
        json!({ "object": { "const": "list" }, "data": { "type": "array", "items": index } }),
    );
    let mut operation = get("indexes", "The indexes", "application/json", list);
    operation["responses"]["503"] = error("An index is being opened.");
    operation
}

/// `POST /v1/search`
pub fn search(app: &App) -> Value {
    let limits = &app.limits;
    let mut query = object(
        &[],
        json!({
            "text": text(limits),
            "image": data_url(),
            "id": range("integer", 0, u64::MAX),
            "weight": range("number", -1000, 1000),
        }),
    );
    query["oneOf"] = json!([{ "required": ["text"] }, { "required": ["image"] }, { "required": ["id"] }]);
    let body = object(
        &["index", "queries"],
        json!({
            "index": index(app),
            "queries": { "type": "array", "minItems": 1, "maxItems": limits.images, "items": query },
            "k": range("integer", 1, limits.results),
            "offset": range("integer", 0, limits.results),
            "filter": text(limits),
            "diverse": range("number", 0, 1),
        }),
    );
    let mut operation = post("search", "Images of an index", (body.clone(), body), answer());
    if let Some(content) = operation["requestBody"]["content"].as_object_mut() {
        content.remove("multipart/form-data"); // a form has no lists of objects
    }
    operation["responses"]["404"] = error("There is no such index or item.");
    operation
}

/// `GET /v1/indexes/{index}/items/{id}/image`
pub fn image(app: &App) -> Value {
    let schema = json!({ "type": "string", "contentMediaType": "image/jpeg" });
    let mut operation = get("item_image", "The thumbnail of an item", "image/jpeg", schema);
    of_item(&mut operation, app);
    operation
}

/// `GET /v1/indexes/{index}/items/{id}/similar`
pub fn similar(app: &App) -> Value {
    let limits = &app.limits;
    let mut operation = get("similar", "The items most similar to one", "application/json", answer());
    of_item(&mut operation, app);
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.push(json!({ "name": "k", "in": "query", "schema": range("integer", 1, limits.results) }));
    }
    operation
}

fn of_item(operation: &mut Value, app: &App) {
    let parameter =
        |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    operation["parameters"] =
        json!([parameter("index", index(app)), parameter("id", range("integer", 0, u64::MAX)),]);
    operation["responses"]["400"] = error("A part of the path is malformed.");
    operation["responses"]["404"] = error("There is no such index or item.");
    operation["responses"]["503"] = error("The index is being opened.");
}

fn index(app: &App) -> Value {
    one_of(app.indexes.keys().map(String::as_str))
}

fn answer() -> Value {
    let result = object(
        &["id", "score", "key", "metadata"],
        json!({
            "id": { "type": "integer" },
            "score": { "type": "number", "description": "The cosine similarity." },
            "key": { "type": "string" },
            "metadata": {},
        }),
    );
    object(
        &["results", "total", "seconds"],
        json!({
            "results": { "type": "array", "items": result },
            "total": { "type": "integer", "description": "The items that were searched." },
            "seconds": { "type": "number" },
        }),
    )
}
