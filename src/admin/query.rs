//! The queries of the admin API: read by the node, written by [`crate::ask`].
//!
//! RFC 3986 throughout: '+' stands for itself, not for a space, since names of packages are full of it.

use crate::server::explain::Supposed;
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
        let read = supposed(Some("client=192.0.2.1&path=/a/libstdc++.rpm")).unwrap();
        assert_eq!((read.path.as_str(), read.user_agent.as_str()), ("/a/libstdc++.rpm", "libdnf"));
    }
}
