//! A server on a free port, and a client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mm_clip::ClipPipeline;
use mm_core::OpenOptions;
use mm_serve::{Keys, Result, ServeConfig, Server, StopHandle};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use ureq::Agent;

/// A path below `data/goldens`.
pub fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The models file with a model of each task, and the `limits` that differ from the defaults.
pub fn models(limits: &str) -> String {
    let models = [
        ("clip", "clip", "rlhf/clip"),
        ("blip", "caption", "caption/blip"),
        ("vqa", "vqa", "vqa/vilt"),
        ("sd", "diffusion", "diffusion/sd1"),
        ("pix2pix", "diffusion", "diffusion/pix2pix"),
        ("score", "reward", "rlhf/clip"),
    ];
    let table = |(name, task, from): (&str, &str, &str)| {
        format!("[models.{name}]\ntask = {task:?}\nfrom = {:?}\n", golden(from))
    };
    models.map(table).concat() + "[limits]\n" + limits
}

/// A server, stopped where it is dropped.
pub struct TestServer {
    pub address: SocketAddr,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<()>>>,
    agent: Agent,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The configuration in the text of a models file.
pub fn config(models: &str) -> Result<ServeConfig> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.toml");
    fs::write(&file, models).unwrap();
    ServeConfig::read(&file)
}

/// Starts a server of `models` and waits until these are opened.
pub fn start(models: &str) -> TestServer {
    start_with_keys(models, None)
}

/// As [`start`], with the text of a file of keys.
pub fn start_with_keys(models: &str, keys: Option<&str>) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.txt");
    let keys = keys.map(|keys| {
        fs::write(&file, keys).unwrap();
        Keys::read(&file).unwrap()
    });
    let server = Server::bind(&config(models).unwrap(), ([127, 0, 0, 1], 0).into(), keys).unwrap();
    let (address, stop) = (server.address(), server.stop_handle());
    let (ready, opened) = mpsc::channel();
    let thread = std::thread::spawn(move || server.run(move || ready.send(()).unwrap()));
    if opened.recv().is_err() {
        panic!("the server does not start: {:?}", thread.join());
    }
    let agent = Agent::config_builder().http_status_as_error(false).build().into();
    TestServer { address, stop, thread: Some(thread), agent }
}

impl TestServer {
    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    pub fn get_with_key(&self, path: &str, key: &str) -> Answer {
        answer(self.agent.get(self.url(path)).header("authorization", key).call().unwrap())
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(path, "application/json", body.to_string().as_bytes())
    }

    /// POST of JSON that must succeed.
    pub fn json(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn send(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let request = self.agent.post(self.url(path)).header("content-type", content_type);
        answer(request.send(body).unwrap())
    }

    /// Sends bytes as they are, and reads until the server closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset is an end too
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Waits until the metrics have `line`.
    pub fn wait_for_metric(&self, line: &str) {
        while !self.get("/metrics").text().lines().any(|found| found == line) {
            std::thread::yield_now();
        }
    }

    /// Begins a stream of `body` and reads to its first event.
    pub fn open_stream(&self, path: &str, body: &Value) -> TcpStream {
        let (mut stream, body) = (self.connect(), body.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let (mut text, mut byte) = (String::new(), [0]);
        while !text.contains("data: ") {
            stream.read_exact(&mut byte).unwrap();
            text.push(byte[0].into());
        }
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        stream
    }

    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Waits for the end of the server after a stop.
    pub fn join(mut self) -> Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            let ended = thread.join().unwrap();
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status, headers, body }
}

/// The bytes of a photo.
pub fn photo(name: &str) -> Vec<u8> {
    fs::read(golden(&format!("images/photos/{name}.png"))).unwrap()
}

/// A photo as a data URL.
pub fn url(name: &str) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(photo(name)))
}

/// The picture of a data URL of the server.
pub fn picture(url: &Value) -> mm_image::RgbImage {
    let data = url.as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    decode(&STANDARD.decode(data).unwrap())
}

pub fn decode(bytes: &[u8]) -> mm_image::RgbImage {
    mm_image::decode(bytes, [255; 3]).unwrap()
}

/// A photo's pixels.
pub fn image(name: &str) -> mm_image::RgbImage {
    decode(&photo(name))
}

/// The CLIP that is served as `clip`.
pub fn clip() -> ClipPipeline {
    ClipPipeline::open(&golden("rlhf/clip"), &OpenOptions::default()).unwrap()
}

/// The numbers of a tensor, row after row.
pub fn rows(tensor: &tch::Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}

/// A part of a form: name, file name, bytes.
pub type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// The content type and the body of a form.
pub fn form(parts: &[Part]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "a-boundary-of-parts";
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\ncontent-type: image/png"));
        let file = file.unwrap_or_default();
        write!(body, "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
            .unwrap();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    write!(body, "--{BOUNDARY}--\r\n").unwrap();
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

/// The numbers of a JSON list.
pub fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// Asserts that numbers differ by no more than the rounding of another batch size.
pub fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-6, "off by {off}: {found:?} is not {expected:?}");
}
