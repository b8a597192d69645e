//! A load of HTTP requests over many connections that are kept open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The latencies of the requests of a load, in seconds and ascending.
#[derive(Debug)]
pub struct Latencies {
    sorted: Vec<f64>,
    /// The time in which they were answered.
    seconds: f64,
}

impl Latencies {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.seconds
    }

    /// The latency that the share `quantile` of the requests does not exceed, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let at = (quantile * self.sorted.len() as f64) as usize;
        self.sorted.get(at.min(self.sorted.len().saturating_sub(1))).map_or(0.0, |seconds| 1e3 * seconds)
    }
}

/// Posts `bodies` in turn to `path` over `connections` connections for `warmup` and then for `measured`, in
/// which latencies count.
///
/// # Errors
/// A connection fails, or an answer has another status than 200.
pub fn post(
    address: SocketAddr,
    path: &str,
    bodies: &[String],
    connections: usize,
    (warmup, measured): (Duration, Duration),
) -> Result<Latencies> {
    let begun = Instant::now();
    let (from, to) = (begun + warmup, begun + warmup + measured);
    let connection = |number: usize| -> Result<Vec<f64>> {
        let mut connection = Connection::open(address)?;
        let mut latencies = Vec::new();
        for body in bodies.iter().cycle().skip(number * bodies.len() / connections) {
            let sent = Instant::now();
            if sent >= to {
                break;
            }
            connection.request("POST", path, body)?;
            let answered = Instant::now();
            if sent >= from && answered <= to {
                latencies.push((answered - sent).as_secs_f64());
            }
        }
        Ok(latencies)
    };
    let of_connections: Vec<Result<Vec<f64>>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|number| scope.spawn(move || connection(number))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut sorted = of_connections.into_iter().collect::<Result<Vec<_>>>()?.concat();
    ensure!(!sorted.is_empty(), "no request was answered within {:.0} s", measured.as_secs_f64());
    sorted.sort_by(f64::total_cmp);
    Ok(Latencies { sorted, seconds: measured.as_secs_f64() })
}

/// A connection with its requests one after the other.
pub struct Connection {
    reader: BufReader<TcpStream>,
    address: SocketAddr,
}

/// The time in which a server answers.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Connection {
    /// Connects to `address`.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::new(stream), address })
    }

    /// Sends a request and reads the body of its answer.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "the server closed the connection");
            match line.trim_end().split_once(':') {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().context("the answer's length")?;
                }
                Some(_) => {}
            }
        }
        let mut answer = vec![0; length];
        self.reader.read_exact(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        if status != "200" {
            bail!("{method} {path}: status {status}: {answer}");
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_the_sorted_latencies() {
        let latencies = Latencies { sorted: (1..=100).map(|n| f64::from(n) / 1e3).collect(), seconds: 2.0 };
        assert_eq!((latencies.quantile_ms(0.5), latencies.quantile_ms(0.99)), (51.0, 100.0));
        assert_eq!(latencies.rate(), 50.0);
    }
}
