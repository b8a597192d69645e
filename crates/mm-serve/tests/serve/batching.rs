//! Requests that come at the same time share a batch and get what they get alone.

use crate::common::{assert_close, golden, models, numbers, picture, start, url};
use serde_json::{Value, json};

/// A CLIP whose batches are full at 8, and wait for that.
fn waiting_clip() -> String {
    format!(
        "[models.clip]\ntask = \"clip\"\nfrom = {:?}\nbatch_size = 8\nwait_ms = 60000\n",
        golden("rlhf/clip")
    )
}

#[test]
fn requests_at_the_same_time_are_one_batch_and_each_gets_its_own() {
    let together = start(&waiting_clip());
    let alone =
        start(&format!("[models.clip]\ntask = \"clip\"\nfrom = {:?}\nbatch_size = 1\n", golden("rlhf/clip")));
    let texts = ["a cat", "two dogs on a sofa", "red", "a rocket that starts", "coffee", "a"];
    let mut bodies: Vec<Value> = texts.iter().map(|text| json!({ "model": "clip", "input": text })).collect();
    bodies.extend(
        ["chelsea", "rocket"].map(|name| json!({ "model": "clip", "input": { "image": url(name) } })),
    );
    let embed = |server: &crate::common::TestServer, body: &Value| {
        numbers(&server.json("/v1/embeddings", body)["data"][0]["embedding"])
    };
    let found: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let (together, embed) = (&together, &embed);
        let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(move || embed(together, body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (body, found) in bodies.iter().zip(found) {
        assert_close(&found, &embed(&alone, body));
    }
    let metrics = together.get("/metrics").text();
    assert!(metrics.contains("mm_batch_items_count{model=\"clip\"} 1\n"), "{metrics}");
    assert!(metrics.contains("mm_batch_items_sum{model=\"clip\"} 8\n"), "{metrics}");
}

#[test]
fn a_request_of_more_than_a_batch_is_computed_in_parts_in_its_order() {
    let server = start(&waiting_clip());
    let texts: Vec<String> = (0..21).map(|n| "word ".repeat(21 - n) + &n.to_string()).collect();
    let answer = server.json("/v1/embeddings", &json!({ "model": "clip", "input": texts }));
    let pipeline =
        mm_clip::ClipPipeline::open(&golden("rlhf/clip"), &mm_core::OpenOptions::default()).unwrap();
    for (text, row) in texts.iter().zip(answer["data"].as_array().unwrap()) {
        let expected = pipeline.text.embed(&[text], 1).unwrap();
        assert_close(&numbers(&row["embedding"]), &Vec::try_from(expected.view(-1)).unwrap());
    }
}

#[test]
fn a_request_that_is_at_fault_fails_alone() {
    let toml = format!(
        "[models.blip]\ntask = \"caption\"\nfrom = {:?}\nbatch_size = 2\nwait_ms = 60000\n",
        golden("caption/blip")
    );
    let server = start(&toml);
    // Longer with its prompt than the decoder has positions.
    let prompts = ["a picture of".to_owned(), "word ".repeat(400)];
    let answers: Vec<_> = std::thread::scope(|scope| {
        let server = &server;
        let caption = |prompt: &String| {
            let body = json!({ "model": "blip", "image": url("chelsea"), "prompt": prompt });
            scope.spawn(move || server.post("/v1/caption", &body))
        };
        let threads: Vec<_> = prompts.iter().map(caption).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 422], "{answers:?}");
}

#[test]
fn images_of_one_batch_are_those_of_their_seeds() {
    let server = start(&models("").replace("task = \"diffusion\"", "task = \"diffusion\"\nwait_ms = 1000"));
    let body = |seed: u64| json!({ "model": "sd", "prompt": "a red star", "steps": 2, "seed": seed });
    let draw = |seed| server.json("/v1/generate", &body(seed))["images"][0].clone();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = [1, 2, 3].map(|seed| scope.spawn(move || draw(seed))).into();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (seed, found) in (1..).zip(&together) {
        let (found, alone) = (picture(found), picture(&draw(seed)));
        let off = found.as_raw().iter().zip(alone.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "off by {off:?}");
    }
}
