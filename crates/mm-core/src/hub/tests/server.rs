//! A hub of one model, on a port of this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the body of a file is cut off.
#[derive(Clone, Copy, PartialEq)]
pub enum Break {
    /// The body is shorter than its Content-Length.
    Announced,
    /// There is no Content-Length: only the size of the complete file shows it.
    Silent,
}

/// The content of the hub.
#[derive(Clone)]
pub struct Site {
    pub id: String,
    pub revision: String,
    pub commit: String,
    pub files: BTreeMap<String, String>,
    /// Requests without this token get status 401.
    pub token: Option<String>,
    /// The file that is refused, and the status.
    pub refused: Option<(String, u16)>,
    /// The file that is cut off.
    pub broken: Option<(String, Break)>,
}

/// The running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (requests, ends) = (Arc::clone(&log), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let _ = site.answer(stream, &requests); // a client that hangs up is tested by the client
            }
        });
        Self { address, log, is_over, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests in order: path and first byte.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

impl Site {
    fn answer(&self, stream: TcpStream, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut range, mut token) = (None, None);
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or_default();
            match name.to_lowercase().as_str() {
                "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
                "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        let (from, to) = range.as_deref().and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        log.lock().unwrap().push(format!("{path} {from}-{to}"));
        let status =
            |status: u16| format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");

        let listing = format!("/api/models/{}/revision/{}", self.id, self.revision.replace('/', "%2F"));
        let file = path.strip_prefix(&format!("/{}/resolve/{}/", self.id, self.commit));
        let answer = if self.token != token {
            status(401)
        } else if path == listing {
            let siblings: Vec<_> =
                self.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let body = serde_json::json!({ "sha": self.commit, "siblings": siblings }).to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        } else if let Some((file, content)) = file.and_then(|file| self.files.get_key_value(file)) {
            match &self.refused {
                Some((refused, with)) if refused == file => status(*with),
                _ => self.part(file, content, from.parse().unwrap_or(0), to).unwrap_or_else(|| status(416)),
            }
        } else {
            status(404)
        };
        (&stream).write_all(answer.as_bytes())
    }

    /// The response with `content` from byte `from` up to and including `to`, or to its end.
    fn part(&self, file: &str, content: &str, from: usize, to: &str) -> Option<String> {
        let end = to.parse::<usize>().map_or(content.len(), |to| content.len().min(to + 1));
        let mut body = content.get(from..end).filter(|body| !body.is_empty() || content.is_empty())?;
        let (commit, etag, total) = (&self.commit, file.replace(['/', '.'], "-"), content.len());
        let mut head = format!(
            "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nX-Repo-Commit: {commit}\r\n\
             ETag: \"{etag}\"\r\nContent-Range: bytes {from}-{}/{total}\r\n",
            end.saturating_sub(1)
        );
        let length = format!("Content-Length: {}\r\n", body.len());
        match self.broken.as_ref().filter(|(broken, _)| broken == file && to.is_empty()) {
            None => head += &length,
            Some((_, how)) => {
                body = &body[..body.len() / 2];
                if *how == Break::Announced {
                    head += &length;
                }
            }
        }
        Some(format!("{head}\r\n{body}"))
    }
}
