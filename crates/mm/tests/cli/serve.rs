//! `mm serve`: the whole program.

use crate::common::{command, failure, mm};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Writes a models file of one CLIP.
fn write_models(folder: &Path) -> String {
    let file = folder.join("models.toml");
    let text = format!("[models.clip]\ntask = \"clip\"\nfrom = {:?}\n", golden("rlhf/clip"));
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A server and its address.
struct Served {
    child: Child,
    address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address, stderr }
    }

    fn request(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head =
            format!("{head}\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn wait_until_ready(&self) {
        while !self.request("GET /healthz HTTP/1.1", "").starts_with("HTTP/1.1 200") {
            std::thread::yield_now();
        }
    }

    /// Sends SIGTERM; gives the exit code and what was printed since the address.
    fn end(mut self) -> (Option<i32>, String) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let mut printed = String::new();
        self.stderr.read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap().code(), printed)
    }
}

#[test]
fn a_served_model_answers_until_the_signal_and_the_program_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let models = write_models(folder.path());
    let served = Served::start(&["--models", &models]);
    served.wait_until_ready();
    let body = r#"{"model": "clip", "input": "a cat"}"#;
    let post = "POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json";
    let answer = served.request(post, body);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"embedding\":["), "{answer}");
    assert!(served.request("GET / HTTP/1.1", "").contains("<html"));
    let (code, printed) = served.end();
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("1 models opened") && printed.contains("finishing the requests"), "{printed}");
}

#[test]
fn keys_come_from_a_file_and_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let models = write_models(folder.path());
    let keys = folder.path().join("keys.txt");
    fs::write(&keys, "ann:secret-of-ann\n").unwrap();
    let served = Served::start(&["--models", &models, "--keys", keys.to_str().unwrap()]);
    served.wait_until_ready();
    let models =
        |key: &str| served.request(&format!("GET /v1/models HTTP/1.1\r\nauthorization: Bearer {key}"), "");
    assert!(models("secret-of-ann").starts_with("HTTP/1.1 200"));
    assert!(models("secret-of-bob").starts_with("HTTP/1.1 401"));
    let (code, printed) = served.end();
    assert_eq!(code, Some(0));
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn wrong_files_and_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let models = write_models(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let refused = |arguments: &[&str], code| {
        failure(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat(), code)
    };
    assert!(refused(&["--models", &path("none.toml")], 2).contains("there is no such configuration"));
    fs::write(path("wrong.toml"), "[models.a]\ntask = \"clip\"\nform = \"x\"\n").unwrap();
    assert!(refused(&["--models", &path("wrong.toml")], 2).contains("wrong.toml:3: unknown key"));
    fs::write(path("none.toml"), "[models.a]\ntask = \"clip\"\nfrom = \"./nowhere\"\n").unwrap();
    assert!(refused(&["--models", &path("none.toml")], 1).contains("cannot open [models.a]"));
    let others = (0..12).map(|index| {
        let from = golden(["rlhf/clip", "diffusion/sd3"][index % 2]);
        let task = ["clip", "diffusion"][index % 2];
        format!("[models.m{index}]\ntask = {task:?}\nfrom = {from:?}\n")
    });
    let broken = fs::read_to_string(path("none.toml")).unwrap();
    fs::write(path("many.toml"), others.collect::<String>() + &broken).unwrap();
    for _ in 0..3 {
        let output = mm(&["serve", "--listen", "127.0.0.1:0", "--models", &path("many.toml")]);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), printed.lines().count()), (Some(1), 2), "{printed}");
        assert!(printed.lines().nth(1).unwrap().starts_with("error: cannot open [models.a]"), "{printed}");
    }
    assert!(refused(&["--models", &models, "--keys", &path("none.txt")], 1).contains("cannot read the keys"));
    fs::write(path("keys.txt"), "\nsecret\n").unwrap();
    let printed = refused(&["--models", &models, "--keys", &path("keys.txt")], 1);
    assert!(printed.contains("keys.txt:2: expected NAME:KEY") && !printed.contains("secret"), "{printed}");
}
