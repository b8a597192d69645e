//! Every route gives what its crate gives.

use crate::common::{
    TestServer, assert_close, clip, decode, form, golden, image, models, numbers, photo, picture, rows,
    start, url,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mm_caption::CaptionPipeline;
use mm_clip::{heat_map, relevance};
use mm_core::{DeviceConfig, OpenOptions};
use mm_diffusion::{DiffusionPipeline, Edit, EditKind, GenerateOptions, ImageRequest, PipelineOptions};
use mm_image::RgbImage;
use mm_rlhf::{Reward, RewardSum, RewardsConfig};
use mm_text::generate::GenerationConfig;
use mm_vqa::{AnswerMode, Answerer, VqaPipeline};
use serde_json::{Value, json};
use std::sync::LazyLock;

static SERVER: LazyLock<TestServer> = LazyLock::new(|| start(&models("")));

#[test]
fn texts_and_images_are_embedded_in_the_order_of_the_request() {
    let pipeline = clip();
    let texts = rows(&pipeline.text.embed(&["a red circle", "two dogs"], 2).unwrap());
    let images = rows(&pipeline.image.embed(&[image("chelsea")]).unwrap());
    let width = images.len();
    let input = json!(["a red circle", { "image": url("chelsea") }, "two dogs"]);
    let answer = SERVER.json("/v1/embeddings", &json!({ "model": "clip", "input": input }));
    assert_eq!((&answer["object"], &answer["model"]), (&"list".into(), &"clip".into()));
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.iter().map(|row| row["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_close(&numbers(&data[0]["embedding"]), &texts[..width]);
    assert_close(&numbers(&data[1]["embedding"]), &images);
    assert_close(&numbers(&data[2]["embedding"]), &texts[width..]);
    let tokens: usize = ["a red circle", "two dogs"]
        .iter()
        .map(|text| pipeline.text.tokenizer.encode(text).unwrap().len())
        .sum();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
}

#[test]
fn an_embedding_of_one_input_has_openais_form_in_both_encodings() {
    let body = json!({ "model": "clip", "input": "two dogs", "user": "me" });
    let floats = numbers(&SERVER.json("/v1/embeddings", &body)["data"][0]["embedding"]);
    let body = json!({
        "model": "clip", "input": ["two dogs"], "encoding_format": "base64", "dimensions": floats.len(),
    });
    let answer = SERVER.json("/v1/embeddings", &body);
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f32> =
        bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(decoded, floats);
    let length: f32 = floats.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5);
}

#[test]
fn a_form_gives_what_json_gives() {
    let chelsea = photo("chelsea");
    let (kind, body) =
        form(&[("model", None, b"clip"), ("input", None, b"two dogs"), ("input", Some("cat.png"), &chelsea)]);
    let found = SERVER.send("/v1/embeddings", &kind, &body).json();
    let body = json!({ "model": "clip", "input": ["two dogs", { "image": url("chelsea") }] });
    assert_eq!(found, SERVER.json("/v1/embeddings", &body));

    let (kind, body) = form(&[
        ("model", None, b"blip"),
        ("images", Some("cat.png"), &chelsea),
        ("max_tokens", None, b"5"),
        ("num_beams", None, b"2"),
    ]);
    let found = SERVER.send("/v1/caption", &kind, &body).json();
    let body = json!({ "model": "blip", "image": url("chelsea"), "max_tokens": 5, "num_beams": 2 });
    assert_eq!(found, SERVER.json("/v1/caption", &body));
}

#[test]
fn a_heat_map_is_that_of_the_command_line() {
    let pipeline = clip();
    let chelsea = image("chelsea");
    let map = relevance(&pipeline, &chelsea, "a cat").unwrap();
    let expected = heat_map::draw(&map, &pipeline.image.processor.resize(&chelsea).unwrap(), 448);
    let body = json!({ "model": "clip", "image": url("chelsea"), "text": "a cat" });
    let answer = SERVER.post("/v1/heatmap", &body);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    let found = decode(&answer.body);
    assert_eq!(found.dimensions(), expected.dimensions());
    let off = found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "off by {off:?}");
}

#[test]
fn captions_are_the_captioners() {
    let pipeline = CaptionPipeline::open(&golden("caption/blip"), &OpenOptions::default()).unwrap();
    let images = ["chelsea", "coffee"].map(image);
    let best = |prompt: &str, config: &GenerationConfig| -> Vec<String> {
        let captions = pipeline.caption(&images, prompt, config).unwrap();
        captions.into_iter().map(|captions| captions[0].caption.clone()).collect()
    };
    let found = |more: Value| {
        let mut body = json!({ "model": "blip", "images": [url("chelsea"), url("coffee")] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        SERVER.json("/v1/caption", &body)["captions"].clone()
    };
    assert_eq!(found(json!({})), json!(best("", &pipeline.generation)));
    let beams = GenerationConfig { num_beams: 3, max_new_tokens: 8, ..pipeline.generation.clone() };
    let expected = best("a picture of", &beams);
    let more = json!({ "prompt": "a picture of", "num_beams": 3, "max_tokens": 8, "stream": false });
    assert_eq!(found(more), json!(expected));
}

#[test]
fn answers_are_the_models() {
    let pipeline = VqaPipeline::open(&golden("vqa/vilt"), &OpenOptions::default()).unwrap();
    let answerer = Answerer::new(&pipeline, &AnswerMode::Default, 5).unwrap();
    let states = pipeline.encode(&[image("chelsea")]).unwrap();
    let questions = pipeline.questions(&["what is it?"], vec![0]).unwrap();
    let expected = answerer.answer(&states, &questions).unwrap().remove(0);
    let body = json!({ "model": "vqa", "image": url("chelsea"), "question": "what is it?" });
    let answer = SERVER.json("/v1/vqa", &body);
    let found = answer["answers"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found["answer"], expected.answer);
        assert_close(&[found["probability"].as_f64().unwrap() as f32], &[expected.probability]);
    }
}

/// Asserts that no level of two images differs by more than the rounding of one.
fn assert_pictures(found: &Value, expected: &[RgbImage]) {
    let found: Vec<RgbImage> = found.as_array().unwrap().iter().map(picture).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.dimensions(), expected.dimensions());
        let off = found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "off by {off:?}");
    }
}

fn request(prompt: &str, negative: Option<&str>, seed: u64) -> ImageRequest {
    let negative_prompt = negative.map(str::to_owned);
    ImageRequest { prompt: prompt.to_owned(), negative_prompt, seed }
}

fn generated(
    model: &str,
    requests: &[ImageRequest],
    edit: Option<&Edit>,
    options: &GenerateOptions,
) -> Vec<RgbImage> {
    let pipeline = DiffusionPipeline::open(&golden(model), &PipelineOptions::default()).unwrap();
    let images = pipeline.generate(requests, edit, options, &mut |_| Ok(())).unwrap();
    images.into_iter().map(|image| image.picture).collect()
}

#[test]
fn generated_images_are_those_of_their_seeds() {
    let options = GenerateOptions { steps: Some(2), guidance_scale: Some(3.0), ..GenerateOptions::default() };
    let requests = [7, 8].map(|seed| request("a red star", Some("blue"), seed));
    let expected = generated("diffusion/sd1", &requests, None, &options);
    let body = json!({
        "model": "sd", "prompt": "a red star", "negative_prompt": "blue", "steps": 2, "guidance_scale": 3.0,
        "seed": 7, "n": 2,
    });
    let answer = SERVER.json("/v1/generate", &body);
    assert_pictures(&answer["images"], &expected);
    assert_eq!(answer["seeds"], json!([7, 8]));
    assert_eq!(
        (&answer["settings"]["steps"], &answer["settings"]["guidance_scale"]),
        (&2.into(), &3.0.into())
    );
    let body = json!({ "model": "sd", "prompt": "a red star", "steps": 1 });
    let seeds = [0, 1].map(|_| SERVER.json("/v1/generate", &body)["seeds"][0].as_u64().unwrap());
    assert_ne!(seeds[0], seeds[1], "a seed that is not given is drawn");
}

#[test]
fn images_are_edited_by_strength_mask_and_instruction() {
    let read = |name: &str| std::fs::read(golden(&format!("diffusion/images/{name}.png"))).unwrap();
    let (image, mask) = (read("image"), read("mask"));
    let data_url = |bytes: &[u8]| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    let options = GenerateOptions { steps: Some(4), ..GenerateOptions::default() };
    let requests = [request("a boat", None, 3)];
    let base = json!({ "image": data_url(&image), "steps": 4, "seed": 3 });
    let cases = [
        (
            "sd",
            "diffusion/sd1",
            json!({ "prompt": "a boat", "strength": 0.5 }),
            EditKind::ImageToImage { strength: 0.5, exact_steps: false },
        ),
        (
            "sd",
            "diffusion/sd1",
            json!({ "prompt": "a boat", "mask": data_url(&mask) }),
            EditKind::Inpaint { mask: decode(&mask), strength: 1.0 },
        ),
        ("pix2pix", "diffusion/pix2pix", json!({ "instruction": "a boat" }), EditKind::Instruct),
    ];
    for (name, model, more, kind) in cases {
        let edit = Edit { image: decode(&image), kind };
        let expected = generated(model, &requests, Some(&edit), &options);
        let mut body = base.clone();
        body["model"] = name.into();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_pictures(&SERVER.json("/v1/edit", &body)["images"], &expected);
    }
}

#[test]
fn scores_are_the_rewards() {
    let toml = format!("[[reward]]\nkind = \"clip\"\nmodel = {:?}", golden("rlhf/clip"));
    let config: RewardsConfig = toml::from_str(&toml).unwrap();
    let rewards = RewardSum::open(&config.reward, &DeviceConfig::default()).unwrap();
    let images = ["chelsea", "rocket"].map(image);
    let urls = [url("chelsea"), url("rocket")];
    let score = |prompts: Value| {
        let mut body = json!({ "model": "score", "images": urls });
        body.as_object_mut().unwrap().extend(prompts.as_object().unwrap().clone());
        numbers(&SERVER.json("/v1/reward", &body)["scores"])
    };
    assert_close(&score(json!({ "prompt": "a cat" })), &rewards.score(&images, &["a cat"; 2]).unwrap());
    let expected = rewards.score(&images, &["a cat", "a rocket"]).unwrap();
    assert_close(&score(json!({ "prompts": ["a cat", "a rocket"] })), &expected);
}

#[test]
fn models_are_listed_with_their_tasks() {
    let answer = SERVER.get("/v1/models").json();
    assert_eq!(answer["object"], "list");
    let found: Vec<_> =
        answer["data"].as_array().unwrap().iter().map(|of| (of["id"].clone(), of["task"].clone())).collect();
    let expected = [
        ("blip", "caption"),
        ("clip", "clip"),
        ("pix2pix", "diffusion"),
        ("score", "reward"),
        ("sd", "diffusion"),
        ("vqa", "vqa"),
    ];
    assert_eq!(found, expected.map(|(name, task)| (json!(name), json!(task))));
    assert_eq!(SERVER.get("/healthz").json(), json!({ "status": "ok" }));
}

#[test]
fn the_page_and_its_files_have_their_types_and_a_policy() {
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
    ] {
        let answer = SERVER.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert!(!answer.body.is_empty());
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self'; img-src 'self' data: blob:"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(SERVER.get("/page/none.js").status, 404);
    assert_eq!(SERVER.get("/page/..%2f..%2fCargo.toml").status, 404);
}

#[test]
fn metrics_count_requests_and_batches() {
    SERVER.json("/v1/embeddings", &json!({ "model": "clip", "input": "counted" }));
    let text = SERVER.get("/metrics").text();
    for line in [
        "mm_requests_total{route=\"/v1/embeddings\",status=\"200\"} ",
        "mm_request_seconds_bucket{route=\"/v1/embeddings\",le=\"+Inf\"} ",
        "mm_batch_items_count{model=\"clip\"} ",
        "mm_queue_depth{model=\"clip\"} 0",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
    }
}
