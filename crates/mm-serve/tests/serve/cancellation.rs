//! Requests that are gone, and more requests than fit.

use crate::common::{models, start};
use serde_json::json;

/// Thousands of steps: minutes of work, unless it is cancelled.
const LONG: &str = "steps = 1000\ngenerated = 512\nrequest_seconds = 60\n";

fn one_at_a_time() -> String {
    models(LONG).replace("task = \"diffusion\"", "task = \"diffusion\"\nqueue = 1\nbatch_size = 1")
}

#[test]
fn a_full_queue_is_429_and_what_the_client_leaves_is_stopped_and_dropped() {
    let server = start(&one_at_a_time());
    let long = json!({ "model": "sd", "prompt": "a", "steps": 500, "n": 512, "stream": true });
    let short = json!({ "model": "sd", "prompt": "b", "steps": 1 });
    let running = server.open_stream("/v1/generate", &long);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.post("/v1/generate", &short));
        server.wait_for_metric("mm_queue_depth{model=\"sd\"} 1");
        let refused = server.post("/v1/generate", &short);
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
        let error = &refused.json()["error"];
        assert_eq!((&error["code"], &error["type"]), (&json!("queue_full"), &json!("rate_limit_error")));
        // The other models go on.
        assert_eq!(server.post("/v1/embeddings", &json!({ "model": "clip", "input": "a" })).status, 200);
        drop(running);
        assert_eq!(waiting.join().unwrap().status, 200, "the stream is not stopped");
    });
}

#[test]
fn a_request_whose_client_has_gone_is_dropped_before_it_runs() {
    let server = start(&one_at_a_time().replace("queue = 1", "queue = 8"));
    let long = json!({ "model": "sd", "prompt": "a", "steps": 500, "n": 512, "stream": true });
    let running = server.open_stream("/v1/generate", &long);
    let abandoned = server.connect();
    let body = json!({ "model": "sd", "prompt": "a", "steps": 500, "n": 512 }).to_string();
    let head = "POST /v1/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut &abandoned, request.as_bytes()).unwrap();
    server.wait_for_metric("mm_queue_depth{model=\"sd\"} 1");
    drop(abandoned);
    server.wait_for_metric("mm_requests_in_flight 1"); // the metrics' own: the other is given up
    drop(running);
    let answer = server.post("/v1/generate", &json!({ "model": "sd", "prompt": "b", "steps": 1 }));
    assert_eq!(answer.status, 200, "the abandoned request runs");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("mm_batch_items_count{model=\"sd\"} 2\n"), "{metrics}");
}

#[test]
fn an_answer_that_takes_too_long_is_504_and_a_stream_ends_with_an_error() {
    let server = start(&one_at_a_time().replace("request_seconds = 60", "request_seconds = 1"));
    let long = json!({ "model": "sd", "prompt": "a", "steps": 500, "n": 512 });
    let answer = server.post("/v1/generate", &long);
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("more than 1 seconds"), "{answer:?}");
    let mut long = long;
    long["stream"] = true.into();
    let answer = server.post("/v1/generate", &long);
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("more than 1 seconds"), "{last}");
}
