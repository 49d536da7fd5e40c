//! What is where: from a request to its answer.

use super::status::{Purge, Status};
use super::{Admin, cross_site, gauges, page, pushes, query};
use crate::clock::{self, Timestamp};
use crate::push::{Faults, RepoCurrency};
use crate::server::explain;
use crate::shown;
use crate::store::Scope;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use http::header::{HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A place in the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Page,
    Metrics,
    Health,
    Ready,
    Status,
    Explain,
    Push,
    Purge,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/api/v1/status" => Self::Status,
            "/api/v1/explain" => Self::Explain,
            "/api/v1/push" => Self::Push,
            "/api/v1/purge" => Self::Purge,
            _ => return None,
        })
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Push => "GET, HEAD, POST",
            Self::Purge => "POST",
            _ => "GET, HEAD",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| method == allowed)
    }
}

/// A status, a media type, a body, and at most one more field.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
    field: Option<(HeaderName, &'static str)>,
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, field: None }
    }

    fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(text) => Self::new(status, JSON, text + "\n"),
            Err(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }

    /// As JSON below `/api/`, else as text.
    fn error(status: StatusCode, path: &str, why: &str) -> Self {
        if path.starts_with("/api/") {
            Self::json(status, &json!({ "error": why }))
        } else {
            Self::new(status, TEXT, format!("{why}\n"))
        }
    }

    fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { field: Some((name, value)), ..self }
    }
}

/// Answers one request.
pub(super) async fn answer<B>(
    admin: Arc<Admin>,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, _) = request.into_parts();
    let path = head.uri.path();
    let route = Route::of(path);
    // Who may not ask doesn't learn what exists, either.
    let answer = if route != Some(Route::Health) && !is_authorized(admin.token.as_deref(), &head.headers) {
        Answer::error(StatusCode::UNAUTHORIZED, path, "a bearer token is needed")
            .with(WWW_AUTHENTICATE, "Bearer realm=\"freshet\"")
    } else if route != Some(Route::Health) && !is_to_us(&admin, &head) {
        Answer::error(StatusCode::FORBIDDEN, path, cross_site::FOREIGN)
    } else {
        match route {
            None => Answer::error(StatusCode::NOT_FOUND, path, "not found"),
            Some(route) if !route.allows(&head.method) => {
                let why = format!("{} is not possible here, only {}", head.method, route.allow());
                Answer::error(StatusCode::METHOD_NOT_ALLOWED, path, &why).with(ALLOW, route.allow())
            }
            Some(_) if admin.token.is_none() && !is_own(&admin, &head) => {
                Answer::error(StatusCode::FORBIDDEN, path, cross_site::WHY)
            }
            Some(Route::Push) if head.method == Method::POST => push(&admin, path, head.uri.query()),
            Some(route) => at(&admin, route, path, head.uri.query()).await,
        }
    };
    Ok(respond(answer))
}

/// Whether the request, if it changes anything, is the operator's and no other site's. One with the token is, since no other
/// site knows it; what only reads tells other sites nothing, since no browser shows them the answer, but for a page that has its
/// own name made an address of the node: that is told by [`is_to_us`].
fn is_own(admin: &Admin, head: &Parts) -> bool {
    head.method.is_safe() || cross_site::is_own(&head.uri, &head.headers, &admin.edge.config.admin)
}

/// Whether the request is for this listener by a name or address of its own, or has the token.
fn is_to_us(admin: &Admin, head: &Parts) -> bool {
    admin.token.is_some() || cross_site::is_to_us(&head.uri, &head.headers, &admin.edge.config.admin)
}

async fn at(admin: &Arc<Admin>, route: Route, path: &str, query: Option<&str>) -> Answer {
    let now = clock::now();
    match route {
        Route::Health => Answer::new(StatusCode::OK, TEXT, "alive\n".to_owned()),
        Route::Ready => match admin.readiness() {
            Ok(()) => Answer::new(StatusCode::OK, TEXT, ready(admin, now)),
            Err(why) => {
                Answer::new(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", shown::line(&why)))
            }
        },
        Route::Metrics => {
            gauges::set(admin, now);
            Answer::new(StatusCode::OK, EXPOSITION, admin.edge.metrics.exposition())
        }
        Route::Page => match status(admin).await {
            Some(status) => Answer::new(StatusCode::OK, HTML, page::render(&status)),
            None => internal(path),
        },
        Route::Status => match status(admin).await {
            Some(status) => Answer::json(StatusCode::OK, &status),
            None => internal(path),
        },
        Route::Explain => match query::supposed(query) {
            Err(why) => Answer::error(StatusCode::BAD_REQUEST, path, &why),
            Ok(supposed) => match explain::explain(&admin.edge, &supposed, now).await {
                Ok(explanation) => Answer::json(StatusCode::OK, &explanation),
                Err(why) => Answer::error(StatusCode::BAD_REQUEST, path, &why),
            },
        },
        Route::Purge => purge(admin, query, path).await,
        Route::Push => match query::parameters(query, ["repo"]) {
            Err(why) => Answer::error(StatusCode::BAD_REQUEST, path, &why),
            Ok([repo]) => match (pushes::states(&admin.pushes, repo.as_deref()), repo) {
                (states, Some(repo)) if states.is_empty() => no_repo(path, &repo),
                (states, _) => Answer::json(StatusCode::OK, &states),
            },
        },
    }
}

/// A node that offers an old generation takes traffic all the same: it is verified and whole. What isn't current is said.
fn ready(admin: &Admin, now: Timestamp) -> String {
    let repos = admin.pushes.currencies(now).into_iter();
    let not_current = repos.filter_map(|RepoCurrency { id, not_current, .. }| {
        not_current.map(|why| format!("{id}: not current: {}\n", shown::line(&why)))
    });
    std::iter::once("ready\n".to_owned()).chain(not_current).collect()
}

fn push(admin: &Admin, path: &str, query: Option<&str>) -> Answer {
    let (repo, faults) = match query::push(query) {
        Err(why) => return Answer::error(StatusCode::BAD_REQUEST, path, &why),
        Ok(asked) => asked,
    };
    let orders = admin.pushes.order(repo.as_deref(), faults);
    match repo {
        Some(repo) if orders.is_empty() => no_repo(path, &repo),
        repo => {
            if let Some(repo) = repo.filter(|_| faults == Faults::Ignore) {
                tracing::warn!(repo, "an operator has the push offered anyway");
            }
            let numbers: BTreeMap<String, u64> = orders.into_iter().collect();
            Answer::json(StatusCode::ACCEPTED, &json!({ "polled": numbers.len(), "orders": numbers }))
        }
    }
}

fn no_repo(path: &str, repo: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, path, &format!("no repo {repo}"))
}

async fn purge(admin: &Admin, query: Option<&str>, path: &str) -> Answer {
    let (target, mode) = match query::purge(query, &admin.edge.config.aliases) {
        Ok(purge) => purge,
        Err(why) => return Answer::error(StatusCode::BAD_REQUEST, path, &why),
    };
    let (field, meant) = match &target {
        Scope::Path(path) => ("path", format!("/{}", path.as_str())),
        Scope::Prefix(prefix) => ("prefix", format!("/{prefix}")),
    };
    match admin.edge.store.purge_all(target, mode).await {
        Ok(purged) => {
            tracing::info!(scope = field, meant, ?mode, ?purged, "purged");
            let status = if purged.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
            Answer::json(status, &Purge::of(field, meant, mode, purged))
        }
        Err(why) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, path, &why.to_string()),
    }
}

/// Off the runtime's threads: it walks all catalogues, which may list millions of files.
async fn status(admin: &Arc<Admin>) -> Option<Status> {
    let admin = admin.clone();
    tokio::task::spawn_blocking(move || Status::of(&admin, clock::now())).await.ok()
}

fn internal(path: &str) -> Answer {
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, path, "a fault of the node itself; see its log")
}

/// RFC 6750, section 2.1. The comparison takes the same time wherever the token differs.
fn is_authorized(token: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, credentials)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer")
        && verify_slices_are_equal(credentials.trim_start().as_bytes(), token.as_bytes()).is_ok()
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let Answer { status, content_type, body, field } = answer;
    // What origins and mirrors wrote is in it; in JSON these are escapes of the same characters.
    let body = shown::lines(&body).into_owned();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let fields = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The page has neither scripts nor anything from elsewhere, and belongs into no frame.
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    for (name, value) in fields.into_iter().chain(field) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
