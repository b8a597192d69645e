//! Requests that a browser sends for the page of another site.

use crate::common::{TestServer, models, start, start_with_keys};

/// The status of a POST with `headers`, and the code of its error.
fn post(server: &TestServer, headers: &str) -> (u16, String) {
    let body = r#"{"model": "clip", "input": "a"}"#;
    let answer = server.raw(
        format!(
            "POST /v1/embeddings HTTP/1.1\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let code = answer.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    (status, code.unwrap_or_default().to_owned())
}

#[test]
fn a_website_cannot_use_a_server_without_keys() {
    let server = start(&models(""));
    let host = server.address;
    let (cross, unknown) = ((403, "cross_origin".to_owned()), (403, "unknown_host".to_owned()));
    assert_eq!(post(&server, &format!("host: {host}\r\norigin: http://{host}\r\n")).0, 200);
    assert_eq!(post(&server, &format!("host: {host}\r\n")).0, 200);
    assert_eq!(post(&server, &format!("host: {host}\r\norigin: https://evil.example\r\n")), cross);
    assert_eq!(post(&server, &format!("host: {host}\r\norigin: null\r\n")), cross);
    assert_eq!(post(&server, &format!("host: {host}\r\nsec-fetch-site: cross-site\r\n")), cross);
    assert_eq!(post(&server, "host: evil.example\r\norigin: http://evil.example\r\n"), unknown);
    let link = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nsec-fetch-site: cross-site\r\n\
         sec-fetch-dest: document\r\n\r\n"
    );
    assert!(server.raw(link.as_bytes()).starts_with("HTTP/1.1 200"));
    let metric = "mm_requests_total{route=\"/v1/embeddings\",status=\"403\"} 4";
    assert!(server.get("/metrics").text().contains(metric));
}

#[test]
fn a_server_with_keys_has_any_name_and_its_own_origin() {
    let server = start_with_keys(&models(""), Some("ann:secret-of-ann\n"));
    let key = "authorization: Bearer secret-of-ann\r\n";
    let host = "host: models.example.org\r\n";
    assert_eq!(post(&server, &format!("{host}{key}origin: https://models.example.org\r\n")).0, 200);
    assert_eq!(post(&server, &format!("{host}{key}origin: https://evil.example\r\n")).0, 403);
    assert_eq!(post(&server, host).0, 401);
}
