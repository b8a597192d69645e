//! Every error has its status, OpenAI's form and a useful message.

use crate::common::{TestServer, form, golden, models, photo, start, url};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| {
    start(&models(
        "body_mb = 1\ntext_chars = 1024\nimages = 2\ntexts = 3\nprompts = 8\nimage_megapixels = 1\n",
    ))
});

/// Asserts the status and the parts of an error, and gives its message.
fn refused(path: &str, body: &Value, status: u16, param: &str) -> String {
    let answer = SERVER.post(path, body);
    let text = answer.text();
    assert_eq!(answer.status, status, "{path} {text}");
    let error = &answer.json()["error"];
    assert_eq!(error["param"], param, "{text}");
    assert!(error["type"].is_string() && error.get("code").is_some(), "{text}");
    assert!(!text.contains("goldens") && !text.contains("/work"), "a path of the machine: {text}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn paths_methods_and_content_types_that_are_not_served_are_refused() {
    for (answer, status) in [
        (SERVER.get("/v2"), 404),
        (SERVER.get("/v1/embeddings"), 405),
        (SERVER.post("/v1/models", &json!({})), 405),
        (SERVER.send("/v1/embeddings", "text/plain", b"{}"), 415),
        (SERVER.send("/v1/embeddings", "", b"{}"), 415),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    assert_eq!(SERVER.get("/v1/embeddings").header("allow"), Some("POST"));
}

#[test]
fn a_body_that_is_malformed_is_refused_with_its_place() {
    let message = |body: &str| {
        let answer = SERVER.send("/v1/embeddings", "application/json", body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        answer.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(message("").contains("EOF"));
    assert!(message("{\"model\": ").contains("line 1"));
    assert!(message("{\"model\": \"clip\", \"input\": \"a\"} x").contains("not JSON"));
    assert!(message("[]").contains("missing field") || message("[]").contains("invalid length"));
    let answer = SERVER.send("/v1/embeddings", "multipart/form-data", b"--a");
    assert_eq!(answer.status, 400, "{answer:?}");
    let (kind, body) = form(&[("model", None, b"clip"), ("model", None, b"clip"), ("input", None, b"a")]);
    assert_eq!(SERVER.send("/v1/embeddings", &kind, &body).status, 400);
    assert_eq!(SERVER.send("/v1/embeddings", &kind, &body[..body.len() / 2]).status, 400);
}

#[test]
fn fields_that_are_missing_unknown_or_ill_typed_are_named() {
    let path = "/v1/embeddings";
    assert!(refused(path, &json!({ "model": "clip" }), 400, "body").contains("missing field `input`"));
    let body = json!({ "model": "clip", "input": "a", "inputs": "b" });
    assert!(refused(path, &body, 400, "inputs").contains("unknown field `inputs`"));
    assert!(refused(path, &json!({ "model": 7, "input": "a" }), 400, "model").contains("expected a string"));
    let body = json!({ "model": "clip", "input": ["a", 7] });
    assert!(refused(path, &body, 400, "input[1]").contains("a text or"));
    let body = json!({ "model": "clip", "input": "a", "encoding_format": "int" });
    refused(path, &body, 400, "encoding_format");
    let body = json!({ "model": "clip", "input": "a", "dimensions": 3 });
    assert!(refused(path, &body, 400, "dimensions").contains("dimensions"));
    refused(path, &json!({ "model": "clip", "input": [] }), 400, "input");
}

#[test]
fn models_that_do_not_exist_or_do_something_else_are_named() {
    let body = json!({ "model": "clap", "input": "a" });
    assert!(refused("/v1/embeddings", &body, 404, "model").contains("there is no model \"clap\""));
    let body = json!({ "model": "blip", "input": "a" });
    let message = refused("/v1/embeddings", &body, 400, "model");
    assert!(message.contains("the task of the model blip is caption") && message.ends_with("clip"));
}

#[test]
fn images_that_are_none_are_refused_and_urls_are_not_fetched() {
    let with = |image: Value| json!({ "model": "vqa", "image": image, "question": "what?" });
    let message = refused("/v1/vqa", &with(json!("https://example.org/a.png")), 400, "image");
    assert!(message.contains("the server fetches no images"), "{message}");
    refused("/v1/vqa", &with(json!("data:image/png;base64,!")), 400, "image");
    refused("/v1/vqa", &with(json!("/etc/passwd")), 400, "image");
    let message = refused("/v1/vqa", &with(json!("data:image/png;base64,aGVsbG8=")), 422, "image");
    assert!(message.contains("cannot decode the image"), "{message}");
    let half = url("chelsea");
    let half = &half[..half.len() / 2 / 4 * 4 + "data:image/png;base64,".len() % 4];
    refused("/v1/vqa", &with(json!(half)), 422, "image");
    let body = json!({ "model": "blip", "images": [url("chelsea"), "data:image/png;base64,aGVsbG8="] });
    refused("/v1/caption", &body, 422, "images[1]");
    let body = json!({ "model": "blip", "images": [url("chelsea")], "image": url("chelsea") });
    assert!(refused("/v1/caption", &body, 400, "image").contains("either"));
}

#[test]
fn values_out_of_their_range_are_refused() {
    let caption = |field: &str, value: Value| {
        let body = json!({ "model": "blip", "image": url("chelsea"), field: value });
        refused("/v1/caption", &body, 400, field)
    };
    assert!(caption("max_tokens", json!(0)).contains("from 1 to 4096"));
    assert!(caption("num_beams", json!(17)).contains("from 1 to 16"));
    caption("max_tokens", json!(-1));
    let body = json!({ "model": "blip", "image": url("chelsea"), "max_tokens": 4096 });
    assert!(refused("/v1/caption", &body, 422, "prompt").contains("positions of the decoder"));

    let draw = |field: &str, value: Value, status: u16, param: &str| {
        let mut body = json!({ "model": "sd", "prompt": "a" });
        body[field] = value;
        refused("/v1/generate", &body, status, param)
    };
    assert!(draw("width", json!(4096), 400, "width").contains("from 1 to 1024"));
    assert!(draw("width", json!(33), 422, "prompt").contains("multiple of"));
    draw("steps", json!(0), 400, "steps");
    draw("n", json!(9), 400, "n");
    draw("guidance_scale", json!(-1), 400, "guidance_scale");
    draw("seed", json!(-1), 400, "seed");
    draw("seed", json!(1.5), 400, "seed");

    let edit = |more: Value, status: u16, param: &str| {
        let mut body = json!({ "model": "sd", "image": url("chelsea-eye") });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused("/v1/edit", &body, status, param)
    };
    assert!(edit(json!({}), 400, "prompt").contains("either `prompt` or `instruction`"));
    edit(json!({ "instruction": "a", "strength": 0.5 }), 400, "instruction");
    edit(json!({ "prompt": "a", "strength": 1.5 }), 400, "strength");
    assert!(edit(json!({ "instruction": "a" }), 422, "prompt").contains("not made for instructions"));
    assert!(edit(json!({ "prompt": "a", "mask": url("coins") }), 422, "prompt").contains("the mask has"));

    let reward = |more: Value, param: &str| {
        let mut body = json!({ "model": "score", "images": [url("chelsea")] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused("/v1/reward", &body, 400, param)
    };
    reward(json!({}), "prompt");
    reward(json!({ "prompts": ["a", "b"] }), "prompts");
}

#[test]
fn labels_that_cannot_be_told_apart_are_refused() {
    let classify = |labels: Value, param: &str| {
        let body = json!({ "model": "clip", "image": url("chelsea"), "labels": labels });
        refused("/v1/classify", &body, 400, param)
    };
    classify(json!([]), "labels");
    assert!(classify(json!(["a", " "]), "labels[1]").contains("empty"));
    assert!(classify(json!(["a", "b", "a"]), "labels[2]").contains("given twice"));
    assert!(classify(json!(["a", "b"]), "labels").contains("more than 8"));
}

#[test]
fn requests_over_the_limits_are_refused() {
    let long = "\u{e9}".repeat(1025);
    let message = refused("/v1/embeddings", &json!({ "model": "clip", "input": long }), 400, "input");
    assert!(message.contains("1025 characters, more than 1024"), "{message}");
    let body = json!({ "model": "clip", "input": ["a", "b", "c", "d"] });
    assert!(refused("/v1/embeddings", &body, 400, "input").contains("at most 3"));
    let image = "data:image/png;base64,";
    let body = json!({ "model": "blip", "images": [image, image, image] });
    assert!(refused("/v1/caption", &body, 400, "images").contains("1 to 2"));
    let mut large = std::io::Cursor::new(Vec::new());
    let picture = mm_image::RgbImage::new(1001, 1000);
    picture.write_to(&mut large, mm_image::image::ImageFormat::Png).unwrap();
    let parts: [(&str, Option<&str>, &[u8]); 3] =
        [("model", None, b"vqa"), ("question", None, b"what?"), ("image", Some("a.png"), large.get_ref())];
    let (kind, body) = form(&parts);
    let answer = SERVER.send("/v1/vqa", &kind, &body);
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.text().contains("1001 x 1000 pixels, more than 1000000"), "{answer:?}");
}

#[test]
fn a_body_that_is_too_large_is_refused_by_its_length_and_as_it_comes() {
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let announced = SERVER.raw(format!("{head}content-length: 1048577\r\n\r\n").as_bytes());
    assert!(announced.starts_with("HTTP/1.1 413") && announced.contains("more than 1 MiB"), "{announced}");
    let chunk = format!("80001\r\n{}\r\n", "a".repeat(0x80001));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    let chunked = SERVER.raw(chunked.as_bytes());
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
}

#[test]
fn a_heat_map_of_a_packed_model_is_refused() {
    let toml =
        format!("[models.clip]\ntask = \"clip\"\nprecision = \"bf16\"\nfrom = {:?}\n", golden("rlhf/clip"));
    let server = start(&toml);
    let body = json!({ "model": "clip", "image": url("chelsea"), "text": "a cat" });
    let answer = server.post("/v1/heatmap", &body);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("another precision than f32"));
    assert_eq!(server.post("/v1/embeddings", &json!({ "model": "clip", "input": "a" })).status, 200);
}

#[test]
fn captions_of_beams_or_of_several_images_are_not_streamed() {
    let body = json!({ "model": "blip", "image": url("chelsea"), "num_beams": 3, "stream": true });
    assert!(refused("/v1/caption", &body, 400, "stream").contains("a caption of 3 beams"));
    let images = [url("chelsea-eye"), url("chelsea-eye")];
    let body = json!({ "model": "blip", "images": images, "stream": true });
    assert!(refused("/v1/caption", &body, 400, "stream").contains("of one image"));
}

#[test]
fn a_size_that_the_model_has_no_positions_for_is_refused_with_the_largest() {
    let server =
        start(&format!("[models.sd3]\ntask = \"diffusion\"\nfrom = {:?}\n", golden("diffusion/sd3")));
    let body = json!({ "model": "sd3", "image": url("chelsea-eye"), "prompt": "a", "strength": 0.5 });
    let answer = server.post("/v1/edit", &body);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text().contains("it must be a multiple of 4 up to 48, e.g. 48"), "{answer:?}");
}

#[test]
fn templates_without_a_place_or_with_too_long_prompts_are_refused() {
    let classify = |labels: &[&str], templates: Value, param: &str| {
        let body = json!({
            "model": "clip", "image": url("chelsea"), "labels": labels, "templates": templates,
        });
        refused("/v1/classify", &body, 400, param)
    };
    assert!(classify(&["a"], json!([]), "templates").contains("no template"));
    assert!(classify(&["a"], json!(["{}", "a photo"]), "templates").contains("template 2 of 2, \"a photo\""));
    assert!(classify(&["a", "b", "c"], json!(["{}", "a {}", "the {}"]), "labels").contains("more than 8"));
    let many = "{} ".repeat(500);
    let message = classify(&["a", "long"], json!(["{}", many]), "templates[1]");
    assert!(message.contains("2500 characters, more than 1024"), "{message}");
}

#[test]
fn a_file_where_a_text_is_expected_is_refused() {
    let chelsea = photo("chelsea-eye");
    let (kind, body) = form(&[("model", Some("a.png"), &chelsea), ("input", None, b"a")]);
    let answer = SERVER.send("/v1/embeddings", &kind, &body);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("model")));
}
