//! Looks at files without reading them: whether they are there, with the length that is listed.
//!
//! A HEAD is asked first, over kept connections. What it denies is asked for once more, by a GET of one byte over a
//! connection of its own: some servers know no HEAD, and of several hosts behind one name one may lag behind.

use super::connect::Connection;
use super::http::{content_range, is_redirect, redirected};
use super::{HttpOrigin, OriginError, Stamp, is_failure};
use crate::http::TreePath;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

/// A file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// It has the listed length. If not, the origin tells no length: only reading the file can tell.
    pub is_measured: bool,
    /// Which version of the file it was, in a directory.
    pub stamp: Option<Stamp>,
}

impl Sight {
    const MEASURED: Self = Self { is_measured: true, stamp: None };
    const UNMEASURED: Self = Self { is_measured: false, stamp: None };
}

impl HttpOrigin {
    pub(super) async fn see(&self, path: &TreePath, size: u64) -> Result<Sight, OriginError> {
        match self.see_by_head(path, size).await {
            Ok(true) => Ok(Sight::MEASURED),
            // Another request would wait as long, or isn't sent either.
            Err(error @ (OriginError::Silent { .. } | OriginError::Withheld { .. })) => Err(error),
            Ok(false) | Err(_) => self.see_by_get(path, size).await,
        }
    }

    /// Whether the file is there, by an answer that tells its length.
    async fn see_by_head(&self, path: &TreePath, size: u64) -> Result<bool, OriginError> {
        let response =
            self.send(Connection::Kept, Method::HEAD, &self.target(path, None), &HeaderMap::new()).await?;
        match response.status() {
            StatusCode::OK => measure(length(response.headers()), size).map(|sight| sight.is_measured),
            status => Err(refusal(status, response.headers())),
        }
    }

    async fn see_by_get(&self, path: &TreePath, size: u64) -> Result<Sight, OriginError> {
        let mut one_byte = HeaderMap::new();
        one_byte.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        let response = self.send(Connection::New, Method::GET, &self.target(path, None), &one_byte).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let total = text(headers, header::CONTENT_RANGE).and_then(content_range);
                measure(total.and_then(|(_, _, total)| total), size)
            }
            // An encoded body's length says nothing.
            StatusCode::OK if headers.contains_key(header::CONTENT_ENCODING) => Ok(Sight::UNMEASURED),
            StatusCode::OK => measure(response.body().size_hint().exact(), size),
            // RFC 9110 14.4: an empty file has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = text(headers, header::CONTENT_RANGE)
                    .and_then(|value| value.trim().strip_prefix("bytes */")?.trim().parse().ok());
                measure(Some(total.unwrap_or(0)), size)
            }
            status => Err(refusal(status, headers)),
        }
    }
}

/// What an answer without the file says of it. A release that is being staged is unreadable: 403 is as absent as 404.
fn refusal(status: StatusCode, headers: &HeaderMap) -> OriginError {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => OriginError::Absent,
        status if is_failure(status) => OriginError::Status(status),
        status if is_redirect(status) => redirected(text(headers, header::LOCATION).unwrap_or_default()),
        status => OriginError::Denied { status },
    }
}

fn measure(length: Option<u64>, listed: u64) -> Result<Sight, OriginError> {
    match length {
        Some(promised) if promised != listed => Err(OriginError::Length { promised, listed }),
        Some(_) => Ok(Sight::MEASURED),
        None => Ok(Sight::UNMEASURED),
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    let plain = !headers.contains_key(header::CONTENT_ENCODING);
    text(headers, header::CONTENT_LENGTH).filter(|_| plain)?.parse().ok()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::http::Settings;
    use crate::origin::stub::{Stub, send};

    #[tokio::test]
    async fn a_file_is_seen_however_the_origin_answers_to_head() {
        // (to HEAD, to GET, of 10 bytes what is seen)
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let part =
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/10\r\nContent-Length: 1\r\n\r\nx";
        let cases = [
            (ok, none, "measured"),
            (none, part, "measured"),
            (none, none, "the origin has no such file"),
            ("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", part, "measured"),
            ("HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n", part, "measured"),
            ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", part, "measured"),
            ("HTTP/1.1 200 OK\r\n\r\n", part, "measured"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", part, "measured"),
            (none, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "measured"),
            (none, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "unmeasured"),
            (
                none,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/*\r\nContent-Length: 1\r\n\r\nx",
                "unmeasured",
            ),
            (
                none,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/11\r\nContent-Length: 1\r\n\r\nx",
                "the origin promises 11 bytes where 10 are listed",
            ),
            (
                none,
                "HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n",
                "the origin promises 0 bytes where 10 are listed",
            ),
            (
                none,
                "HTTP/1.1 451 No\r\nContent-Length: 0\r\n\r\n",
                "the origin answered 451 Unavailable For Legal Reasons for a file that its repo lists",
            ),
        ];
        for (head, get, expected) in cases {
            let stub = Stub::start(move |_, request, stream| {
                send(stream, if request.starts_with("head") { head } else { get }.as_bytes());
            });
            let origin = HttpOrigin::new(Settings::new(&stub.url, "node")).unwrap();
            let seen = origin.see(&TreePath::new("a.rpm").unwrap(), 10).await;
            let seen = match seen {
                Ok(sight) if sight.is_measured => "measured".to_owned(),
                Ok(_) => "unmeasured".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(seen, expected, "{head} {get}");
        }
    }
}
