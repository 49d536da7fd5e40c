//! Where a mirror may send a probe: to itself. Pure.

use super::client::Failure;
use http::Uri;
use http::header::{self, HeaderMap};

/// Where a redirect leads: the same scheme and host, and the port of the mirror's URL or the scheme's own. From http to https
/// fails clients with an old set of certificates, from https to http is a downgrade; what another host holds is no proof of
/// the mirror's; and what listens on another port is no mirror.
pub(super) fn hop(mirror: &Uri, from: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let refused = || Failure::Redirected(if location.is_empty() { "nowhere" } else { location }.to_owned());
    let elsewhere = |to: &Uri| Failure::Redirected(format!("{to}: configure that URL"));
    let bare = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = match bare {
        "" => return Err(refused()),
        _ if bare.contains("://") => bare.to_owned(),
        _ if bare.starts_with("//") => format!("{scheme}:{bare}"),
        _ if bare.starts_with('/') => format!("{scheme}://{authority}{bare}"),
        _ => {
            let parent = from.path().rfind('/').map_or("/", |slash| &from.path()[..=slash]);
            format!("{scheme}://{authority}{parent}{bare}")
        }
    };
    let to: Uri = absolute.parse().map_err(|_| refused())?;
    let same_host = to.host().zip(from.host()).is_some_and(|(to, from)| to.eq_ignore_ascii_case(from));
    let fits = same_host && [port(mirror), own_port(scheme)].contains(&port(&to));
    match to.scheme_str() {
        Some(to_scheme) if to_scheme == scheme && fits => Ok(to),
        Some("http" | "https") => Err(elsewhere(&to)),
        _ => Err(refused()),
    }
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or_else(|| own_port(uri.scheme_str().unwrap_or_default()))
}

fn own_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn redirects_stay_on_scheme_host_and_port() {
        let (http, https) = ("http://m.example:8080/a/b/c.rpm", "https://m.example/a/b/c.rpm");
        // (from, Location, where it leads, or what is said of it)
        let cases = [
            (http, "http://m.example/a/c.rpm", Ok("http://m.example/a/c.rpm")),
            (http, "http://m.example:80/a/c.rpm", Ok("http://m.example:80/a/c.rpm")),
            (http, "//M.example/x#y", Ok("http://M.example/x")),
            (http, "/x?y", Ok("http://m.example:8080/x?y")),
            (http, "d.rpm", Ok("http://m.example:8080/a/b/d.rpm")),
            (https, "/x", Ok("https://m.example/x")),
            (https, "https://m.example:443/x", Ok("https://m.example:443/x")),
            (http, "http://m.example:6379/x", Err("http://m.example:6379/x: configure that URL")),
            (http, "http://m.example:443/x", Err("http://m.example:443/x: configure that URL")),
            (https, "//m.example:80/x", Err("https://m.example:80/x: configure that URL")),
            (http, "https://m.example/c.rpm", Err("https://m.example/c.rpm: configure that URL")),
            (http, "http://m.example@10.0.0.1/x", Err("http://m.example@10.0.0.1/x: configure that URL")),
            (https, "http://m.example/c.rpm", Err("http://m.example/c.rpm: configure that URL")),
            (http, "http://cdn.example/c.rpm", Err("http://cdn.example/c.rpm: configure that URL")),
            (https, "//cdn.example/c.rpm", Err("https://cdn.example/c.rpm: configure that URL")),
            (http, "ftp://m.example/a", Err("ftp://m.example/a")),
            (http, "", Err("nowhere")),
        ];
        for (from, location, expected) in cases {
            let headers = [(header::LOCATION, HeaderValue::from_static(location))].into_iter().collect();
            let from: Uri = from.parse().unwrap();
            match (hop(&from, &from, &headers), expected) {
                (Ok(to), Ok(expected)) => assert_eq!(to.to_string(), expected, "{location}"),
                (Err(failure), Err(to)) => {
                    assert_eq!(failure.of_file(), format!("redirects to {to}"));
                    assert!(!failure.is_transient());
                }
                (led, _) => panic!("{from} to {location:?}: {led:?}"),
            }
        }
        // Back from the scheme's own port to the mirror's.
        let (mirror, from) = (http.parse().unwrap(), "http://m.example/x".parse().unwrap());
        let location = HeaderValue::from_static("http://m.example:8080/y");
        let headers = [(header::LOCATION, location)].into_iter().collect();
        assert_eq!(hop(&mirror, &from, &headers).unwrap(), "http://m.example:8080/y");
    }
}
