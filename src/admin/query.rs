//! The queries of the admin API: read by the node, written by [`crate::ask`].
//!
//! RFC 3986 throughout: '+' stands for itself, not for a space, since names of packages are full of it.

use crate::config::{self, Alias};
use crate::http::TreePath;
use crate::push::Faults;
use crate::server::explain::Supposed;
use crate::store::{Mode, Scope};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt::Write as _;

/// The User-Agent of a client that none is given for: an ordinary dnf.
const DEFAULT_AGENT: &str = "libdnf";

/// The parameters of `query`, each one of `known` and given once at most.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn parameters<const N: usize>(
    query: Option<&str>,
    known: [&'static str; N],
) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(at) = known.iter().position(|known| *known == name) else {
            return Err(format!("unknown parameter {name:?}: expected {}", known.join(", ")));
        };
        let Ok(value) = percent_decode_str(value).decode_utf8() else {
            return Err(format!("{name}: expected UTF-8"));
        };
        if values[at].replace(value.into_owned()).is_some() {
            return Err(format!("{name}: given twice"));
        }
    }
    Ok(values)
}

/// The request that `/api/v1/explain` is asked about.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn supposed(query: Option<&str>) -> Result<Supposed, String> {
    let [client, path, user_agent, range, https] =
        parameters(query, ["client", "path", "user_agent", "range", "https"])?;
    let client = client.ok_or("client: missing; expected an address")?;
    let client = client.parse().map_err(|_| format!("client: {client:?} is no IP address"))?;
    let path = path.filter(|path| !path.is_empty()).ok_or("path: missing; expected the path of a request")?;
    let https = match https.as_deref() {
        None | Some("0" | "false") => false,
        Some("" | "1" | "true") => true,
        Some(other) => return Err(format!("https: {other:?} is neither 1 nor 0")),
    };
    Ok(Supposed {
        client,
        path,
        user_agent: user_agent.unwrap_or_else(|| DEFAULT_AGENT.to_owned()),
        range,
        https,
    })
}

/// Which repo `POST /api/v1/push` is about (all by default), and whether its push is to be offered anyway.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn push(query: Option<&str>) -> Result<(Option<String>, Faults), String> {
    let [repo, anyway] = parameters(query, ["repo", "anyway"])?;
    let faults = match anyway.as_deref() {
        None | Some("0" | "false") => Faults::Hold,
        Some("" | "1" | "true") => Faults::Ignore,
        Some(other) => return Err(format!("anyway: {other:?} is neither 1 nor 0")),
    };
    if faults == Faults::Ignore && repo.is_none() {
        return Err("anyway: expected a repo as well".to_owned());
    }
    Ok((repo, faults))
}

/// The query that orders it.
#[must_use]
pub fn ordering(repo: Option<&str>, faults: Faults) -> String {
    let repo = repo.map(|repo| format!("repo={}", encode(repo)));
    let anyway = (faults == Faults::Ignore).then(|| "anyway=1".to_owned());
    repo.into_iter().chain(anyway).collect::<Vec<_>>().join("&")
}

/// What `/api/v1/purge` is told to purge, by its canonical name. Paths are percent-encoded as in a request line; the first
/// '/' may be left out.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn purge(query: Option<&str>, aliases: &[Alias]) -> Result<(Scope, Mode), String> {
    let [path, prefix, mode] = parameters(query, ["path", "prefix", "mode"])?;
    let mode = match mode.as_deref() {
        None | Some("hard") => Mode::Hard,
        Some("soft") => Mode::Soft,
        Some(other) => return Err(format!("mode: {other:?} is neither hard nor soft")),
    };
    let canonical = |name: &str, text: String| {
        if text.is_empty() {
            return Err(format!("{name}: empty; \"/\" stands for the root"));
        }
        let path = TreePath::from_uri(&format!("/{}", text.trim_start_matches('/')));
        Ok(config::canonical(aliases, &path.map_err(|error| format!("{name}: {error}"))?))
    };
    let scope = match (path, prefix) {
        (Some(path), None) => Scope::Path(canonical("path", path)?),
        (None, Some(prefix)) => Scope::Prefix(canonical("prefix", prefix)?.as_str().to_owned()),
        _ => return Err("expected either path or prefix".to_owned()),
    };
    Ok((scope, mode))
}

/// What the command line purges, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// One path.
    Path(String),
    /// All paths that begin so.
    Prefix(String),
}

/// The query that purges it.
#[must_use]
pub fn purging(typed: &Typed, mode: Mode) -> String {
    let (name, text) = match typed {
        Typed::Path(path) => ("path", path),
        Typed::Prefix(prefix) => ("prefix", prefix),
    };
    let mode = match mode {
        Mode::Hard => "hard",
        Mode::Soft => "soft",
    };
    format!("{name}={}&mode={mode}", encode(text))
}

/// The query that asks about `supposed`.
#[must_use]
pub fn explain(supposed: &Supposed) -> String {
    let Supposed { client, path, user_agent, range, https } = supposed;
    let mut query = format!("client={client}&path={}&user_agent={}", encode(path), encode(user_agent));
    if let Some(range) = range {
        let _ = write!(query, "&range={}", encode(range));
    }
    if *https {
        query.push_str("&https=1");
    }
    query
}

/// Any text as the value of a parameter.
#[must_use]
pub fn encode(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            addr: IpAddr, path in ".{1,40}", user_agent in ".{0,20}",
            range in prop::option::of(".{0,20}"), https: bool,
        ) {
            let written = Supposed { client: addr, path, user_agent, range, https };
            prop_assert_eq!(supposed(Some(&explain(&written))), Ok(written));
        }

        #[test]
        fn any_query_is_read_or_refused(query in ".{0,60}") {
            let _ = supposed(Some(&query));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, why) in [
            ("", "client: missing"),
            ("client=host&path=a", "\"host\" is no IP address"),
            ("client=::1", "path: missing"),
            ("client=::1&path=", "path: missing"),
            ("client=::1&path=a&https=maybe", "neither 1 nor 0"),
            ("client=::1&client=::1&path=a", "client: given twice"),
            ("client=::1&path=%ff", "path: expected UTF-8"),
            ("client=::1&path=a&agent=x", "unknown parameter \"agent\""),
        ] {
            let refused = supposed(Some(query)).unwrap_err();
            assert!(refused.contains(why), "{query}: {refused}");
        }
        for (query, why) in [
            ("anyway=1", "expected a repo as well"),
            ("repo=a&anyway=x", "neither 1 nor 0"),
            ("x=1", "unknown"),
        ] {
            assert!(push(Some(query)).unwrap_err().contains(why), "{query}");
        }
        for (repo, faults) in
            [(None, Faults::Hold), (Some("a/b c"), Faults::Hold), (Some("a/b"), Faults::Ignore)]
        {
            assert_eq!(push(Some(&ordering(repo, faults))), Ok((repo.map(str::to_owned), faults)));
        }
        for (query, why) in [
            ("", "either path or prefix"),
            ("path=/a&prefix=/b", "either path or prefix"),
            ("prefix=", "prefix: empty"),
            ("path=/a/../../b", "path: '..' leads out of the tree"),
            ("path=/a&mode=gentle", "neither hard nor soft"),
            ("paths=/a", "unknown parameter"),
        ] {
            let refused = purge(Some(query), &[]).unwrap_err();
            assert!(refused.contains(why), "{query}: {refused}");
        }
        let alias = |text| TreePath::new(text).unwrap();
        let aliases = [Alias { from: alias("7"), to: alias("7.9") }];
        for (typed, mode, scope) in [
            (Typed::Path("/7/a+%20b".into()), Mode::Soft, Scope::Path(alias("7.9/a+ b"))),
            (Typed::Prefix("7/updates/".into()), Mode::Hard, Scope::Prefix("7.9/updates/".into())),
            (Typed::Path("/a/../7/./b".into()), Mode::Hard, Scope::Path(alias("7.9/b"))),
            (Typed::Prefix("/".into()), Mode::Hard, Scope::Prefix(String::new())),
        ] {
            assert_eq!(purge(Some(&purging(&typed, mode)), &aliases), Ok((scope, mode)));
        }
        let read = supposed(Some("client=192.0.2.1&path=/a/libstdc++.rpm")).unwrap();
        assert_eq!((read.path.as_str(), read.user_agent.as_str()), ("/a/libstdc++.rpm", "libdnf"));
    }
}
