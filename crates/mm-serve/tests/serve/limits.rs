//! Clients that send slowly, and more memory than there is.

use crate::common::{golden, models, start, url};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

const HEAD: &str = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

#[test]
fn a_thousand_slow_clients_do_not_stop_the_others() {
    let server = start(&models(""));
    let slow: Vec<TcpStream> = (0..1000)
        .map(|index| {
            let mut stream = server.connect();
            let part =
                if index % 2 == 0 { HEAD.to_owned() } else { format!("{HEAD}content-length: 9\r\n\r\n{{") };
            stream.write_all(part.as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..10 {
        server.json("/v1/embeddings", &json!({ "model": "clip", "input": "a cat" }));
    }
    drop(slow);
}

#[test]
fn a_body_that_stops_is_408_and_a_head_that_stops_is_closed() {
    let server = start(&models("read_seconds = 1\n"));
    let answer = server.raw(format!("{HEAD}content-length: 9\r\n\r\n{{").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("no byte of the body came for 1 seconds"), "{answer}");
    let answer = server.raw(HEAD.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let server = start(&models("read_seconds = 1\nrequest_seconds = 5\ntexts = 2048\nbody_mb = 8\n"));
    let texts: Vec<String> = (0..2048).map(|index| format!("text {index}")).collect();
    let body = json!({ "model": "clip", "input": texts }).to_string();
    let request = format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = server.connect();
    // Answers fill the buffers of the connection, until the server can write no more.
    stream.set_nonblocking(false).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        while writer.write_all(request.as_bytes()).is_ok() {} // fails once the server closes
    });
    sender.join().unwrap();
    let _ = stream.read(&mut [0]);
}

#[test]
fn requests_beyond_the_memory_are_refused_and_it_is_returned() {
    let toml = format!(
        "[models.score]\ntask = \"reward\"\nfrom = {:?}\n\
         [limits]\nmemory_mb = 4\nbody_mb = 1\nimage_megapixels = 1\n",
        golden("rlhf/clip")
    );
    let server = start(&toml);
    let images = [url("chelsea-eye"), url("chelsea-eye")];
    let small = json!({ "model": "score", "images": images, "prompt": "a cat" });
    let mut large = std::io::Cursor::new(Vec::new());
    mm_image::RgbImage::new(990, 1000).write_to(&mut large, mm_image::image::ImageFormat::Png).unwrap();
    let large = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, large.get_ref());
    let large = format!("data:image/png;base64,{large}");
    for _ in 0..3 {
        let two = json!({ "model": "score", "images": [large, large], "prompt": "a cat" });
        let refused = server.post("/v1/reward", &two);
        assert_eq!(refused.status, 429, "{refused:?}");
        assert!(refused.text().contains("memory"), "{refused:?}");
        // An image that is being decoded when its request is refused holds its memory to the end.
        let one = json!({ "model": "score", "images": [large], "prompt": "a cat" });
        while server.post("/v1/reward", &one).status == 429 {}
        assert_eq!(server.post("/v1/reward", &small).status, 200);
    }
}
