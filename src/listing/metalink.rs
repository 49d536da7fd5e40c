//! Metalink 3 documents for a repo's repomd.xml, as MirrorManager writes them and librepo reads them (librepo/metalink.c: by literal
//! tag names, so the prefix `mm0:` is fixed; its preference attributes are ignored in favour of document order).

use super::escape;
use crate::clock::Timestamp;
use crate::geo::Code;
use crate::http::date;
use crate::repo::Sha256;
use std::fmt::Write;

/// What librepo takes for the best; the least is 0.
const MAX_PREFERENCE: usize = 100;

/// What a metalink says.
#[derive(Clone, Debug)]
pub struct Metalink<'a> {
    /// When this document was made.
    pub made: Timestamp,
    /// The generation that clients are to get.
    pub current: Version<'a>,
    /// Older generations that are still valid, newest first.
    pub alternates: Vec<Version<'a>>,
    /// Where it can be had, the preferred one first.
    pub resources: Vec<Resource<'a>>,
    /// The repo as it stands in a URL, without slashes around it.
    pub repo_path: &'a str,
}

/// One place that has the repo.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Its base URL, http or https, with a trailing `/`.
    pub base: &'a str,
    /// Its country, two letters, where known.
    pub country: Option<Code>,
}

/// One version of repomd.xml.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// When it was published; written in whole seconds.
    pub timestamp: Timestamp,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its SHA-512 in hex, where known.
    pub sha512: Option<&'a str>,
}

/// The document, as `application/metalink+xml`.
#[must_use]
pub fn metalink(metalink: &Metalink<'_>) -> String {
    let mut xml =
        String::with_capacity(1024 + 512 * metalink.alternates.len() + 256 * metalink.resources.len());
    let made = date::format(metalink.made);
    let made = made.to_str().unwrap_or_default();
    let _ = write!(
        xml,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <metalink version=\"3.0\" xmlns=\"http://www.metalinker.org/\" type=\"dynamic\" pubdate=\"{made}\" \
         generator=\"freshet\" xmlns:mm0=\"http://fedorahosted.org/mirrormanager\">\n \
         <files>\n  <file name=\"repomd.xml\">\n",
    );
    version(&mut xml, &metalink.current, "   ");
    if !metalink.alternates.is_empty() {
        xml.push_str("   <mm0:alternates>\n");
        for alternate in &metalink.alternates {
            xml.push_str("    <mm0:alternate>\n");
            version(&mut xml, alternate, "     ");
            xml.push_str("    </mm0:alternate>\n");
        }
        xml.push_str("   </mm0:alternates>\n");
    }
    xml.push_str("   <resources maxconnections=\"1\">\n");
    for (nth, place) in metalink.resources.iter().enumerate() {
        resource(&mut xml, *place, metalink.repo_path, MAX_PREFERENCE.saturating_sub(nth).max(1));
    }
    xml.push_str("   </resources>\n  </file>\n </files>\n</metalink>\n");
    xml
}

fn version(xml: &mut String, version: &Version<'_>, indent: &str) {
    let Version { timestamp, size, sha256, sha512 } = version;
    let _ = write!(
        xml,
        "{indent}<mm0:timestamp>{}</mm0:timestamp>\n{indent}<size>{size}</size>\n{indent}<verification>\n\
         {indent} <hash type=\"sha256\">{sha256}</hash>\n",
        timestamp.as_secs()
    );
    if let Some(sha512) = sha512 {
        let _ = writeln!(xml, "{indent} <hash type=\"sha512\">{}</hash>", escape(sha512));
    }
    let _ = writeln!(xml, "{indent}</verification>");
}

fn resource(xml: &mut String, place: Resource<'_>, repo_path: &str, preference: usize) {
    let protocol = if place.base.starts_with("https:") { "https" } else { "http" };
    let _ = write!(xml, "    <url protocol=\"{protocol}\" type=\"{protocol}\"");
    if let Some(country) = place.country {
        let _ = write!(xml, " location=\"{country}\"");
    }
    let (base, repo_path) = (escape(place.base), escape(repo_path));
    let slash = if repo_path.is_empty() { "" } else { "/" };
    let _ = writeln!(xml, " preference=\"{preference}\">{base}{repo_path}{slash}repodata/repomd.xml</url>");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librepo 1.14.5 reads this shape in full and without a warning.
    #[test]
    fn document() {
        let (new, old) = (Sha256::of(b"new"), Sha256::of(b"old"));
        let at = Timestamp::from_millis(784_111_777_900);
        let xml = metalink(&Metalink {
            made: at,
            current: Version { timestamp: at, size: 3000, sha256: new, sha512: Some("0a<") },
            alternates: vec![Version {
                timestamp: Timestamp::from_secs(5),
                size: 2999,
                sha256: old,
                sha512: None,
            }],
            resources: vec![
                Resource { base: "https://m/?a&b/", country: "DE".parse().ok() },
                Resource { base: "http://o/~1/", country: None },
            ],
            repo_path: "7/a/b",
        });
        let expected = format!(
            r#"<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" pubdate="Sun, 06 Nov 1994 08:49:37 GMT" generator="freshet" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
   <mm0:timestamp>784111777</mm0:timestamp>
   <size>3000</size>
   <verification>
    <hash type="sha256">{new}</hash>
    <hash type="sha512">0a&lt;</hash>
   </verification>
   <mm0:alternates>
    <mm0:alternate>
     <mm0:timestamp>5</mm0:timestamp>
     <size>2999</size>
     <verification>
      <hash type="sha256">{old}</hash>
     </verification>
    </mm0:alternate>
   </mm0:alternates>
   <resources maxconnections="1">
    <url protocol="https" type="https" location="DE" preference="100">https://m/?a&amp;b/7/a/b/repodata/repomd.xml</url>
    <url protocol="http" type="http" preference="99">http://o/~1/7/a/b/repodata/repomd.xml</url>
   </resources>
  </file>
 </files>
</metalink>
"#
        );
        assert_eq!(xml, expected);
    }

    #[test]
    fn many_resources_keep_their_order_and_a_legal_preference() {
        let current = Version { timestamp: Timestamp::EPOCH, size: 0, sha256: Sha256::of(b""), sha512: None };
        let bases: Vec<_> = (0..150).map(|n| format!("http://h{n}/")).collect();
        let resources = bases.iter().map(|base| Resource { base, country: None }).collect();
        let xml = metalink(&Metalink {
            made: current.timestamp,
            current,
            alternates: vec![],
            resources,
            repo_path: "a",
        });
        assert!(!xml.contains("alternate"));
        let (mut preferences, mut urls) = (Vec::new(), Vec::new());
        for line in xml.lines().filter_map(|line| line.split_once("<url ")).map(|(_, line)| line) {
            let (preference, url) = line.split_once(" preference=\"").unwrap().1.split_once("\">").unwrap();
            preferences.push(preference.parse::<u32>().unwrap());
            urls.push(url.strip_suffix("</url>").unwrap());
        }
        assert!(preferences.is_sorted_by(|a, b| a >= b) && preferences.iter().all(|p| (1..=100).contains(p)));
        assert_eq!(urls, bases.iter().map(|base| format!("{base}a/repodata/repomd.xml")).collect::<Vec<_>>());
    }
}
