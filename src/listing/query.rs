//! What a client asks of `/mirrorlist` and `/metalink`, in either of the two historic forms.

use crate::geo::Code;
use std::net::IpAddr;

/// The longest query string, in bytes.
pub const MAX_BYTES: usize = 2048;
/// The longest value of one parameter, in bytes, decoded.
pub const MAX_VALUE: usize = 128;
/// The most countries heeded; more are dropped.
pub const MAX_COUNTRIES: usize = 16;

/// A mirrorlist or metalink request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which form it came in, and the answer takes.
    pub form: Form,
    /// The repo's name: `updates`. Without [`release`](Self::release) it stands at its end, and where it begins the config alone
    /// can tell: `updates-7`, `centos-baseos-9-stream`.
    pub text: String,
    /// The release, where it was given for itself: `7`.
    pub release: Option<String>,
    /// The architecture; empty where none was given.
    pub arch: String,
    /// Wanted countries, as asked; empty: go by the client's address.
    pub countries: Vec<Code>,
    /// The one scheme that the client takes; `None`: any.
    pub protocol: Option<Protocol>,
    /// The address to choose for instead of the connection's.
    pub ip: Option<IpAddr>,
    /// About once a week a dnf that may be counted says how old its installation is: 1 for its first week, 2 for its first month, 3
    /// for its first half year, 4 for all after that.
    pub countme: Option<u8>,
}

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `release=7&arch=x86_64&repo=updates&cc=de`, as mirrorlist.centos.org had it.
    Centos,
    /// `repo=updates-7&arch=x86_64&country=de,fr&protocol=https`, as MirrorManager has it.
    Fedora,
}

/// A scheme that clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// Why a query is none; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// More than [`MAX_BYTES`], or a value of more than [`MAX_VALUE`].
    #[error("a query has at most {MAX_BYTES} bytes, each value {MAX_VALUE}")]
    TooLong,
    /// A parameter without which no repo is named.
    #[error("missing parameter: {0}")]
    Missing(&'static str),
    /// A parameter that can't be part of a repo's id.
    #[error("malformed parameter: {0}")]
    Malformed(&'static str),
}

impl Query {
    /// Reads the query string, without its `?`. Of a parameter given twice the first counts; what is unknown (`infra`), and
    /// countries, protocols, addresses and ages that are none, are ignored: an error costs a client 12 requests.
    ///
    /// # Errors
    /// Where it names no repo, or is too long.
    pub fn parse(query_string: &str) -> Result<Self, QueryError> {
        if query_string.len() > MAX_BYTES {
            return Err(QueryError::TooLong);
        }
        let named = |name| parameter(query_string, name);
        let release = id_part("release", named("release")?)?;
        let repo = named("repo")?.ok_or(QueryError::Missing("repo"))?;
        let arch = id_part("arch", named("arch")?)?;
        let form = if release.is_some() { Form::Centos } else { Form::Fedora };
        let (text, release, arch) = names(&repo, release, arch)?;
        Ok(Self {
            form,
            text,
            release,
            arch: arch.unwrap_or_default(),
            countries: countries(query_string),
            protocol: named("protocol").ok().flatten().and_then(|list| protocol(&list)),
            ip: named("ip")
                .ok()
                .flatten()
                .and_then(|ip| ip.parse::<IpAddr>().ok())
                .map(|ip| ip.to_canonical()),
            countme: named("countme")
                .ok()
                .flatten()
                .and_then(|age| age.parse().ok())
                .filter(|age| (1..=4).contains(age)),
        })
    }

    /// The ids of the repos that this can mean by the likeliest reading: `updates/7/x86_64`, then `updates/7`, for repos whose path
    /// has no architecture. [`named::find`](super::named::find) knows more of them.
    #[must_use]
    pub fn repo_ids(&self) -> Vec<String> {
        let name = match &self.release {
            Some(release) => format!("{}/{release}", self.text),
            None => match self.text.rsplit_once('-') {
                Some((name, release)) => format!("{name}/{release}"),
                None => self.text.clone(),
            },
        };
        let with_arch = (!self.arch.is_empty()).then(|| format!("{name}/{}", self.arch));
        with_arch.into_iter().chain([name]).collect()
    }

    /// What is wrong with it, if no repo is found that it names.
    #[must_use]
    pub fn lacks(&self) -> Option<QueryError> {
        let is_bare = self.release.is_none() && !self.text.contains('-');
        is_bare.then_some(QueryError::Missing("release"))
    }
}

/// Name, release and architecture, out of what `repo` says and the other two parameters.
fn names(
    repo: &str,
    release: Option<String>,
    arch: Option<String>,
) -> Result<(String, Option<String>, Option<String>), QueryError> {
    const MALFORMED: QueryError = QueryError::Malformed("repo");
    let part = |text: &str| id_part("repo", Some(text.to_owned()))?.ok_or(MALFORMED);
    if repo.contains('/') {
        let parts: Vec<&str> = repo.split('/').collect();
        return match parts[..] {
            [name, release, arch] => Ok((part(name)?, Some(part(release)?), Some(part(arch)?))),
            [name, release] => Ok((part(name)?, Some(part(release)?), arch)),
            _ => Err(MALFORMED),
        };
    }
    let is_cut = release.is_none()
        && repo.rsplit_once('-').is_some_and(|(name, release)| name.is_empty() || release.is_empty());
    if is_cut { Err(MALFORMED) } else { Ok((part(repo)?, release, arch)) }
}

/// Empty is as good as absent. Whatever else has a character that no id has is malformed.
fn id_part(name: &'static str, value: Option<String>) -> Result<Option<String>, QueryError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let ok = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte));
    if ok { Ok(Some(value)) } else { Err(QueryError::Malformed(name)) }
}

/// The first parameter of that name, decoded. A `+` is a plus: yum and dnf don't write forms.
fn parameter(query_string: &str, name: &'static str) -> Result<Option<String>, QueryError> {
    let Some(raw) = values(query_string, name).next() else { return Ok(None) };
    let decoded =
        percent_encoding::percent_decode_str(raw).decode_utf8().map_err(|_| QueryError::Malformed(name))?;
    if decoded.len() > MAX_VALUE { Err(QueryError::TooLong) } else { Ok(Some(decoded.into_owned())) }
}

fn values<'q>(query_string: &'q str, name: &str) -> impl Iterator<Item = &'q str> {
    query_string
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, v)| v)
}

/// `country=de,fr` and `cc=de`, in this order. `global` is no country, so it asks for none.
fn countries(query_string: &str) -> Vec<Code> {
    let mut countries = Vec::new();
    for list in ["country", "cc"].into_iter().filter_map(|name| parameter(query_string, name).ok().flatten())
    {
        for country in list.split(',').filter_map(|code| code.trim().parse().ok()) {
            if !countries.contains(&country) && countries.len() < MAX_COUNTRIES {
                countries.push(country);
            }
        }
    }
    countries
}

/// The one known protocol of a list; `None` where it names both or neither.
fn protocol(list: &str) -> Option<Protocol> {
    let has = |protocol: &str| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(protocol));
    match (has("http"), has("https")) {
        (true, false) => Some(Protocol::Http),
        (false, true) => Some(Protocol::Https),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repos() {
        use Form::{Centos, Fedora};
        for (text, form, ids) in [
            ("release=7&arch=x86_64&repo=updates", Centos, &["updates/7/x86_64", "updates/7"][..]),
            (
                "repo=updates&infra=stock&release=7&arch=x86_64&release=6",
                Centos,
                &["updates/7/x86_64", "updates/7"],
            ),
            ("release=7&repo=virt-kvm&arch=i386", Centos, &["virt-kvm/7/i386", "virt-kvm/7"]),
            ("release=8-stream&repo=a%2Bb&arch=", Centos, &["a+b/8-stream"]),
            ("repo=updates-7&arch=x86_64", Fedora, &["updates/7/x86_64", "updates/7"]),
            (
                "countme=1&repo=updates-testing-f39&arch=x86_64",
                Fedora,
                &["updates-testing/f39/x86_64", "updates-testing/f39"],
            ),
            ("repo=updates/7/x86_64", Fedora, &["updates/7/x86_64", "updates/7"]),
            ("repo=updates%2f7%2Fx86_64&arch=i386", Fedora, &["updates/7/x86_64", "updates/7"]),
            ("repo=updates/7&arch=x86_64", Fedora, &["updates/7/x86_64", "updates/7"]),
            ("repo=source-7", Fedora, &["source/7"]),
            // What has no release at all; if no repo has that name, it is the release that is missing.
            ("repo=rawhide&arch=x86_64", Fedora, &["rawhide/x86_64", "rawhide"]),
        ] {
            let query = Query::parse(text).unwrap();
            assert_eq!(
                (query.form, query.repo_ids().iter().map(String::as_str).collect()),
                (form, ids.to_vec()),
                "{text}"
            );
        }
        for (text, error) in [
            ("", QueryError::Missing("repo")),
            ("release=7&arch=x86_64", QueryError::Missing("repo")),
            ("repo=-7", QueryError::Malformed("repo")),
            ("repo=updates-", QueryError::Malformed("repo")),
            ("repo=a/b/c/d", QueryError::Malformed("repo")),
            ("repo=a//c", QueryError::Malformed("repo")),
            ("repo=%ff-7", QueryError::Malformed("repo")),
            ("repo=a%0ab-7", QueryError::Malformed("repo")),
            ("release=7/8&repo=a", QueryError::Malformed("release")),
            ("release=7&repo=a&arch=$basearch", QueryError::Malformed("arch")),
        ] {
            assert_eq!(Query::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            Query::parse("repo=updates&arch=x86_64").unwrap().lacks(),
            Some(QueryError::Missing("release"))
        );
        assert_eq!(Query::parse("repo=updates-7").unwrap().lacks(), None);
        let long = "a".repeat(MAX_VALUE + 1);
        assert_eq!(Query::parse(&format!("release=7&repo={long}")), Err(QueryError::TooLong));
        assert_eq!(Query::parse(&format!("repo=a-7&ip={long}")).unwrap().ip, None);
        assert_eq!(Query::parse(&format!("repo=a-7&x={}", "a".repeat(MAX_BYTES))), Err(QueryError::TooLong));
    }

    #[test]
    fn preferences() {
        let ip = |text: &str| Some(text.parse().unwrap());
        for (more, countries, protocol, address) in [
            ("", &[][..], None, None),
            ("cc=de", &["DE"], None, None),
            ("cc=us&country=de,%20Fr,de,global,d,e1,", &["DE", "FR", "US"], None, None),
            ("protocol=https", &[], Some(Protocol::Https), None),
            ("protocol=ftp,HTTP", &[], Some(Protocol::Http), None),
            ("protocol=https,http", &[], None, None),
            ("protocol=rsync&ip=localhost", &[], None, None),
            ("ip=192.0.2.1", &[], None, ip("192.0.2.1")),
            ("ip=2001:db8::1", &[], None, ip("2001:db8::1")),
            ("ip=%3A%3affff:192.0.2.1", &[], None, ip("192.0.2.1")),
        ] {
            let query = Query::parse(&format!("repo=a-7&{more}")).unwrap();
            let asked: Vec<&str> = query.countries.iter().map(Code::as_str).collect();
            assert_eq!(asked, countries, "{more}");
            assert_eq!((query.protocol, query.ip), (protocol, address), "{more}");
        }
        for (more, age) in
            [("countme=1", Some(1)), ("countme=4", Some(4)), ("countme=5", None), ("countme=x", None)]
        {
            assert_eq!(Query::parse(&format!("repo=a-7&{more}")).unwrap().countme, age, "{more}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_plain(text in "((repo|release|arch|cc|ip)(=|%|[.]|/|-|a|7|\\PC){0,8}&?){0,6}|\\PC{0,60}") {
            if let Ok(query) = Query::parse(&text) {
                prop_assert!(!query.repo_ids().is_empty());
                for id in query.repo_ids() {
                    prop_assert!(id.split('/').all(|part| !part.is_empty()) && !id.contains(['%', '\n', ' ']), "{}", id);
                }
            }
        }
    }
}
