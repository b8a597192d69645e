//! API keys: a file of them, compared in constant time, each with its own rate.

use crate::api_error::{ApiError, ApiResult};
use crate::{Error, Result};
use axum::http::StatusCode;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use subtle::ConstantTimeEq;

/// The keys that requests may carry. Only their digests are kept.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    name: String,
    digest: [u8; 32],
    rate: Option<Mutex<TokenBucket>>,
}

/// A rate limit: a bucket of a minute's requests, refilled continuously.
#[derive(Debug)]
struct TokenBucket {
    per_minute: f64,
    tokens: f64,
    filled: Instant,
}

impl Keys {
    /// Reads a file of lines `NAME:KEY` or `NAME:KEY:REQUESTS_PER_MINUTE`; `#` begins a comment line.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or a line has another form; the line's text is never shown.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |line, problem: String| Error::Keys { path: path.to_owned(), line, problem };
        let text = std::fs::read_to_string(path)
            .map_err(|error| fail(None, format!("cannot read the keys: {error}")))?;
        Self::parse(&text).map_err(|(line, problem)| fail(line, problem))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        let (mut keys, mut names, mut digests) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem: &str| (Some(number), problem.to_owned());
            let mut fields = line.split(':').map(str::trim);
            let name = fields.next().unwrap_or_default();
            let key = fields.next().unwrap_or_default();
            let rate = fields.next();
            if name.is_empty() || key.is_empty() || fields.next().is_some() {
                return Err(wrong("expected NAME:KEY or NAME:KEY:REQUESTS_PER_MINUTE"));
            }
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong(
                    "a key has visible ASCII characters only: others do not fit into a header",
                ));
            }
            let rate = rate.map(str::parse::<u32>).transpose();
            let Some(rate) = rate.ok().filter(|rate| *rate != Some(0)) else {
                return Err(wrong("the requests per minute are not a whole number above 0"));
            };
            let digest: [u8; 32] = Sha256::digest(key).into();
            if !names.insert(name) || !digests.insert(digest) {
                return Err(wrong("the name or the key is given twice"));
            }
            let rate = rate.map(|per_minute| Mutex::new(TokenBucket::full(per_minute, Instant::now())));
            keys.push(Key { name: name.to_owned(), digest, rate });
        }
        if keys.is_empty() {
            return Err((None, "has no key: write lines NAME:KEY".to_owned()));
        }
        Ok(Self(keys))
    }

    /// Checks the value of a request's `Authorization` header. Every key is compared whatever the result, and
    /// digests in place of keys, so that the time shows neither a key's bytes nor its length.
    ///
    /// # Errors
    /// 401 for a key that is missing or wrong, 429 for one that is over its rate.
    pub(crate) fn check(&self, authorization: Option<&[u8]>) -> ApiResult<()> {
        let Some(given) = authorization.and_then(bearer) else {
            let message = "this server needs a key: send the header `Authorization: Bearer KEY`";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("missing_api_key"));
        };
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        let Some(key) = found else {
            let message = "the key is not one of this server's";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"));
        };
        let Some(rate) = &key.rate else { return Ok(()) };
        rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()).map_err(|seconds| {
            let message = format!("the key {} has used up its requests of this minute", key.name);
            ApiError::overloaded(&message).with_retry_after(seconds).with_code("rate_limit_exceeded")
        })
    }
}

/// The credentials of a `Bearer` scheme, whose name has any case (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, key) = header.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(key.trim_ascii())
}

impl TokenBucket {
    fn full(per_minute: u32, now: Instant) -> Self {
        Self { per_minute: per_minute.into(), tokens: per_minute.into(), filled: now }
    }

    /// Takes a request's token, or gives the seconds until there is one.
    fn take(&mut self, now: Instant) -> Result<(), u64> {
        let per_second = self.per_minute / 60.0;
        let refill = now.duration_since(self.filled).as_secs_f64() * per_second;
        self.tokens = (self.tokens + refill).min(self.per_minute);
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(((1.0 - self.tokens) / per_second).ceil().max(1.0) as u64);
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FILE: &str = "# keys\n\nann:secret-of-ann\nbot:secret-of-bot:2\n";

    fn status(keys: &Keys, header: &str) -> u16 {
        keys.check(Some(header.as_bytes())).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_key_of_the_file_is_let_in_and_no_other() {
        let keys = Keys::parse(FILE).unwrap();
        assert_eq!(status(&keys, "Bearer secret-of-ann"), 200);
        assert_eq!(status(&keys, "bearer  secret-of-ann "), 200);
        for wrong in ["Bearer secret-of-an", "Bearer ", "Bearer", "Basic secret-of-ann", "", "secret-of-ann"]
        {
            assert_eq!(status(&keys, wrong), 401, "{wrong}");
        }
        assert_eq!(keys.check(None).unwrap_err().status, 401);
        assert_eq!(status(&keys, "Bearer secret-of-bot"), 200);
        assert_eq!(status(&keys, "Bearer secret-of-bot"), 200);
        assert_eq!(status(&keys, "Bearer secret-of-bot"), 429);
        assert!(!format!("{keys:?}").contains("secret"));
    }

    #[test]
    fn a_bucket_refills_with_time() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut bucket = TokenBucket::full(6, start);
        assert!((0..6).all(|_| bucket.take(start).is_ok()));
        assert_eq!(bucket.take(start), Err(10));
        assert_eq!(bucket.take(after(4.0)), Err(6));
        assert_eq!((bucket.take(after(10.1)), bucket.take(after(10.1))), (Ok(()), Err(10)));
        assert!((0..6).all(|_| bucket.take(after(1000.0)).is_ok()));
        assert!(bucket.take(after(1000.0)).is_err());
    }

    #[test]
    fn a_wrong_line_is_named_without_its_text() {
        for (text, line) in [
            ("ann", Some(1)),
            ("\nann:", Some(2)),
            ("ann:secret:x", Some(1)),
            ("ann:secret:0", Some(1)),
            ("ann:secret:1:2", Some(1)),
            ("ann:sécret", Some(1)),
            ("ann:secret\nann:other", Some(2)),
            ("ann:secret\nbot:secret", Some(2)),
            ("# none\n", None),
        ] {
            let (found, problem) = Keys::parse(text).unwrap_err();
            assert_eq!(found, line, "{text}");
            assert!(!problem.contains("secret") && !problem.contains("ann"), "{problem}");
        }
    }
}
