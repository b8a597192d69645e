//! Requests that a browser sends for a page of another site. Such a page could use a server that listens on
//! the loopback address of the reader's machine and has no keys.

use crate::api_error::{ApiError, ApiResult};
use axum::http::{HeaderMap, HeaderName, StatusCode, header, uri::Authority};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A fetch-metadata header (W3C, "Fetch Metadata Request Headers"): the relation of the page that sends the
/// request to this server.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Another one: what the answer is for, `document` where it is shown in a tab.
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Refuses the requests of other sites' pages.
#[derive(Clone, Copy, Debug)]
pub struct SameOrigin {
    /// The address, where it is a loopback address and no keys protect it. The name in `Host` must then be
    /// one of this machine's: another name that a site has pointed to the address makes its page one of the
    /// same origin (DNS rebinding).
    loopback: Option<IpAddr>,
}

impl SameOrigin {
    /// The check of a server that listens on `address`.
    pub fn new(address: SocketAddr, has_keys: bool) -> Self {
        let ip = address.ip();
        Self { loopback: (ip.is_loopback() && !has_keys).then_some(ip) }
    }

    /// Checks a request for `path` by its headers. A link on another site may open the web page.
    ///
    /// # Errors
    /// 403: the request is for a page of another origin, or `Host` has a name that is not this machine's.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> ApiResult<()> {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(&header::HOST);
        if let (Some(ip), Some(host)) = (self.loopback, host)
            && !is_local(host, ip)
        {
            let message = "without keys, a server on a loopback address answers requests whose `Host` is \
                localhost, 127.0.0.1, [::1] or its address: use one of these, or start it with --keys";
            return Err(refused(message, "unknown_host"));
        }
        let is_other_origin = text(&header::ORIGIN).is_some_and(|origin| !is_same(origin, host));
        let is_link = path == "/" && text(&DESTINATION) == Some("document");
        if is_other_origin || (text(&SITE) == Some("cross-site") && !is_link) {
            let message = "the request comes from a web page of another origin than this server: a proxy in \
                front of it must keep the `Host` of the browser";
            return Err(refused(message, "cross_origin"));
        }
        Ok(())
    }
}

fn refused(message: &str, code: &'static str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, message).with_code(code)
}

/// Whether `host`, with any port, is a name of the machine that `ip` is the loopback address of.
fn is_local(host: &str, ip: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let known = [ip, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address| known.contains(&address))
}

/// Whether an `Origin` has the host and the port of `Host`. Either may have the default port of the scheme
/// or leave it out.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let [authority, host] = [authority, host].map(|text| text.strip_suffix(port).unwrap_or(text));
    authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the refusal of a request with `headers`; none where it is let in.
    fn refusal(
        address: &str,
        has_keys: bool,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Option<String> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let check = SameOrigin::new(address.parse().unwrap(), has_keys);
        let error = check.check(path, &headers.collect()).err()?;
        assert_eq!(error.status, 403);
        error.body()["error"]["code"].as_str().map(str::to_owned)
    }

    const LOOPBACK: &str = "127.0.0.1:8080";

    #[test]
    fn a_page_of_another_origin_is_refused() {
        for (host, origin, is_refused) in [
            ("localhost:8080", "http://localhost:8080", false),
            ("LOCALHOST:8080", "http://localhost:8080", false),
            ("localhost", "http://localhost", false),
            ("localhost:80", "http://localhost", false),
            ("localhost:443", "https://localhost", false),
            ("[::1]:8080", "http://[::1]:8080", false),
            ("localhost:8080", "https://evil.example", true),
            ("localhost:8080", "http://localhost", true),
            ("localhost:8080", "http://localhost:3000", true),
            ("localhost:8080", "http://127.0.0.1:8080", true),
            ("localhost:80", "https://localhost", true),
            ("localhost", "null", true),
            ("localhost", "file://", true),
            ("localhost", "", true),
        ] {
            for has_keys in [false, true] {
                let headers = [("host", host), ("origin", origin)];
                let found = refusal(LOOPBACK, has_keys, "/v1/models", &headers);
                assert_eq!(found.as_deref(), is_refused.then_some("cross_origin"), "{host} {origin}");
            }
        }
        assert!(refusal(LOOPBACK, false, "/v1/models", &[("origin", "http://localhost")]).is_some());
    }

    #[test]
    fn a_name_that_is_not_this_machines_is_refused_on_loopback_without_keys() {
        let of_host = |address, has_keys, host| refusal(address, has_keys, "/", &[("host", host)]);
        for host in ["localhost", "localhost:1", "127.0.0.1:8080", "[::1]:8080", "Localhost:8080"] {
            assert_eq!(of_host(LOOPBACK, false, host), None, "{host}");
        }
        for host in
            ["evil.example:8080", "127.0.0.1.evil.example", "127.0.0.2", "192.168.1.1", "", "a b", "::1"]
        {
            assert_eq!(of_host(LOOPBACK, false, host).as_deref(), Some("unknown_host"), "{host}");
            assert_eq!(of_host(LOOPBACK, true, host), None, "{host}");
            assert_eq!(of_host("0.0.0.0:8080", false, host), None, "{host}");
        }
        assert_eq!(of_host("127.0.0.2:8080", false, "127.0.0.2:8080"), None);
        assert_eq!(of_host("[::1]:8080", false, "[::1]:8080"), None);
        assert_eq!(refusal(LOOPBACK, false, "/", &[]), None); // HTTP/1.0, which no browser speaks
    }

    #[test]
    fn a_request_across_sites_is_refused_and_a_link_to_the_page_is_not() {
        let of_site = |path, site, destination| {
            let headers = [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-dest", destination)];
            refusal(LOOPBACK, false, path, &headers)
        };
        assert_eq!(of_site("/", "cross-site", "document"), None);
        assert_eq!(of_site("/v1/models", "same-origin", "empty"), None);
        assert_eq!(of_site("/v1/models", "none", "document"), None);
        for (path, destination) in [("/", "iframe"), ("/v1/models", "document"), ("/v1/caption", "empty")] {
            assert_eq!(of_site(path, "cross-site", destination).as_deref(), Some("cross_origin"), "{path}");
        }
    }
}
