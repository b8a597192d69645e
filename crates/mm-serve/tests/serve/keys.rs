//! Keys.

use crate::common::{Answer, TestServer, models, start_with_keys};
use serde_json::json;

fn with_key(server: &TestServer, key: &str) -> Answer {
    server.get_with_key("/v1/models", &format!("Bearer {key}"))
}

#[test]
fn everything_but_health_and_the_page_needs_a_key() {
    let server = start_with_keys(&models(""), Some("# ours\nann:secret-of-ann\n"));
    for path in ["/healthz", "/", "/page/app.js"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/metrics", "/openapi.json", "/v1/models"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(answer.json()["error"]["code"], "missing_api_key");
        assert_eq!(server.get_with_key(path, "Bearer secret-of-ann").status, 200, "{path}");
    }
    let answer = server.post("/v1/embeddings", &json!({ "model": "clip", "input": "a" }));
    assert_eq!(answer.status, 401);
    let wrong = with_key(&server, "secret-of-bob");
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(!wrong.text().contains("secret"));
    assert_eq!(server.get("/none").status, 404);
}

#[test]
fn a_key_over_its_rate_is_429_with_the_seconds_to_wait() {
    let server = start_with_keys(&models(""), Some("ann:secret-of-ann:2\nbot:secret-of-bot\n"));
    assert_eq!([0; 2].map(|_| with_key(&server, "secret-of-ann").status), [200, 200]);
    let refused = with_key(&server, "secret-of-ann");
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(with_key(&server, "secret-of-bot").status, 200);
}
