//! The OpenAPI document, made of the table of routes.

pub mod operations;
mod schema;
pub mod search_operations;

use crate::app::App;
use crate::routes::ROUTES;
use serde_json::{Map, Value, json};

/// The document of the server with the state `app`.
pub fn document(app: &App) -> Value {
    let has_keys = app.keys.is_some();
    let mut paths = Map::new();
    for route in &ROUTES {
        let mut operation = (route.operation)(app);
        if let Value::Object(responses) = &mut operation["responses"] {
            for &(status, description) in errors(route.method, has_keys && route.needs_key) {
                responses.entry(status).or_insert_with(|| error(description));
            }
        }
        if has_keys && !route.needs_key {
            operation["security"] = json!([]);
        }
        paths.insert(route.path.to_owned(), json!({ (route.method): operation }));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Vision-language models: embeddings, classification, captions, answers, images.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    });
    if has_keys {
        document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "key": [] }]);
    }
    document
}

/// That of every operation.
const ORIGIN_ERROR: (&str, &str) =
    ("403", "The request is that of a web page of another origin, or `Host` is not a name of this machine.");

const KEY_ERRORS: [(&str, &str); 3] = [
    ORIGIN_ERROR,
    ("401", "The key is missing or wrong."),
    ("429", "The key has used up its requests, the queue of the model is full, or the memory is used up."),
];

const CALL_ERRORS: [(&str, &str); 12] = [
    ORIGIN_ERROR,
    ("400", "A field is missing, unknown or out of its range, or the body is malformed."),
    ("401", "The key is missing or wrong."),
    ("404", "There is no such model."),
    ("408", "The body stopped coming."),
    ("413", "The body or an image is too large."),
    ("415", "The body is neither JSON nor a multipart form."),
    ("422", "An image cannot be decoded, or a value does not fit the model."),
    ("429", "The key has used up its requests, the queue of the model is full, or the memory is used up."),
    ("500", "The model failed."),
    ("503", "The model is being opened, or the server stops."),
    ("504", "The answer took too long."),
];

/// The errors of a method, beside those of the operation itself.
fn errors(method: &str, needs_key: bool) -> &'static [(&'static str, &'static str)] {
    match (method, needs_key) {
        ("post", _) => &CALL_ERRORS,
        (_, true) => &KEY_ERRORS,
        _ => &[ORIGIN_ERROR],
    }
}

fn error(description: &str) -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    json!({ "description": description, "content": content })
}

/// The schemas that several operations share.
fn schemas() -> Value {
    json!({
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": { "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": { "type": "string" },
                    "type": { "type": "string" },
                    "param": { "type": ["string", "null"], "description": "The field that is at fault." },
                    "code": { "type": ["string", "null"] },
                },
            } },
        },
        "DataUrl": {
            "type": "string",
            "description": "An image: JPEG, PNG, WebP, GIF, BMP, TIFF or PNM. Other URLs are refused.",
            "pattern": "^data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/]+={0,2}$",
        },
        "Settings": {
            "type": "object",
            "description": "The settings of the images, with every default.",
            "required": ["width", "height", "steps", "guidance_scale"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeConfig;
    use crate::keys::Keys;
    use crate::limits::Limits;
    use std::collections::{BTreeMap, BTreeSet};

    /// The document of a server without models.
    fn document(has_keys: bool) -> Value {
        let (models, indexes) = (BTreeMap::new(), BTreeMap::new());
        let config = ServeConfig { models, indexes, limits: Limits::default() };
        let keys = has_keys.then(|| Keys::parse("ann:secret").unwrap());
        let (opened, _) = tokio::sync::mpsc::unbounded_channel();
        super::document(&App::start(&config, keys, &opened).unwrap().0)
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = document(true);
        let mut found = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                found.insert((path.clone(), method.clone()));
                assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{path}");
                assert!(operation["responses"]["200"]["content"].is_object(), "{path}");
            }
        }
        let routes: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        assert_eq!(found, routes);
        assert_eq!(routes.len(), ROUTES.len());
    }

    #[test]
    fn references_point_to_schemas_and_objects_are_closed() {
        fn walk(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
            match value {
                Value::Object(map) => {
                    visit(map);
                    map.values().for_each(|value| walk(value, visit));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(value, visit)),
                _ => {}
            }
        }
        let document = document(true);
        walk(&document, &mut |map| {
            if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                let pointer = to.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{to}");
            }
        });
        for methods in document["paths"].as_object().unwrap().values() {
            let content = &methods["post"]["requestBody"]["content"];
            for kind in content.as_object().into_iter().flat_map(Map::values) {
                assert_eq!(kind["schema"]["additionalProperties"], false);
                assert!(kind["schema"]["required"].is_array());
            }
        }
    }

    #[test]
    fn keys_are_required_where_the_server_has_them() {
        let document = document(true);
        assert_eq!(document["paths"]["/healthz"]["get"]["security"], json!([]));
        assert!(document["paths"]["/v1/models"]["get"].get("security").is_none());
        assert!(self::document(false).get("security").is_none());
    }
}
