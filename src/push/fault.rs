//! What is wrong with a file of a push, and whose fault that is. Pure.

use crate::origin::OriginError;
use crate::repo::Sha256;
use crate::store::{FetchError, FillError};
use std::fmt;

/// Why a push is held: a file of it that isn't at the origin as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// SHA-256 of the push's repomd.xml.
    pub generation: Sha256,
    /// The file, from the tree's root; of several the first that was found.
    pub file: String,
    /// What is wrong with it, in words.
    pub fault: String,
    /// Files that were found wrong, this one included; others may not have been looked at.
    pub files: u32,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.fault)?;
        match self.files {
            0 | 1 => Ok(()),
            files => write!(f, " (and {} other files)", files - 1),
        }
    }
}

/// Whose fault it is that a file was not found as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The origin answered, and it isn't this file: absent, of another length, of other bytes.
    File,
    /// The origin says nothing of this file: it is down, silent, or wants to be left alone for a while.
    Origin,
    /// The node couldn't find out.
    Node,
}

/// Whose fault `error` is.
pub(super) fn blame(error: &FetchError) -> Blame {
    match error {
        FetchError::Absent
        | FetchError::Answered(_)
        | FetchError::IsDirectory
        | FetchError::TooLarge { .. } => Blame::File,
        FetchError::Origin(error) => of_origin(error),
        FetchError::Body(error) => match &**error {
            FillError::Origin(error) => of_origin(error),
            FillError::Mismatch { .. } => Blame::File,
            FillError::Disk(_) | FillError::NoRoom | FillError::Abandoned => Blame::Node,
        },
        FetchError::NotStored | FetchError::Busy | FetchError::ShuttingDown => Blame::Node,
    }
}

fn of_origin(error: &OriginError) -> Blame {
    match error {
        OriginError::Down { .. }
        | OriginError::Withheld { .. }
        | OriginError::Silent { .. }
        | OriginError::Cut { .. }
        | OriginError::Setup(_) => Blame::Origin,
        // RFC 9110 15.5.9, RFC 6585 4, RFC 9110 15.6.4: another time.
        OriginError::Status(status) if matches!(status.as_u16(), 408 | 429 | 503) => Blame::Origin,
        _ => Blame::File,
    }
}

/// Whether the answer to a request for a signature or key says that there is none, rather than that the origin is in trouble.
pub(super) fn denies(error: &OriginError) -> bool {
    match error {
        OriginError::Status(status) => {
            !status.is_server_error() && !matches!(status.as_u16(), 408 | 425 | 429)
        }
        error => of_origin(error) == Blame::File && !matches!(error, OriginError::Disk(_)),
    }
}

/// Packages that clients can do without: a delta stands for a whole package, which is listed as well.
pub(super) fn is_spare_package(path: &str) -> bool {
    path.ends_with(".drpm")
}

/// Metadata that clients can do without: lists of drpms, databases beside the XML, and changelogs.
pub(super) fn is_spare_record(kind: &str) -> bool {
    let kind = kind.strip_suffix("_zck").unwrap_or(kind);
    kind.ends_with("_db") || matches!(kind, "prestodelta" | "deltainfo" | "other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn the_blame_is_the_files_where_the_origin_speaks_of_it() {
        let status = |code| OriginError::Status(StatusCode::from_u16(code).unwrap());
        let fetch = |error: OriginError| FetchError::from(error);
        let body = |error: FillError| FetchError::Body(Arc::new(error));
        let silent = || OriginError::Silent { wait: crate::origin::Wait::FirstByte, after: Duration::ZERO };
        let down = || OriginError::Down { reason: String::new() };
        let sum = crate::repo::Digest::from(Sha256::of(b""));
        let cases = [
            (FetchError::Absent, Blame::File),
            (fetch(OriginError::Length { promised: 1, listed: 2 }), Blame::File),
            (fetch(OriginError::Redirected { to: String::new() }), Blame::File),
            (fetch(OriginError::Disk(io::Error::other("x"))), Blame::File),
            (fetch(status(500)), Blame::File),
            (fetch(status(451)), Blame::File),
            (fetch(status(503)), Blame::Origin),
            (fetch(status(429)), Blame::Origin),
            (fetch(down()), Blame::Origin),
            (fetch(silent()), Blame::Origin),
            (fetch(OriginError::Withheld { reason: String::new() }), Blame::Origin),
            (body(FillError::Mismatch { expected: Box::new(sum), received: Box::new(sum) }), Blame::File),
            (body(FillError::Origin(OriginError::Truncated { received: 1, expected: 2 })), Blame::File),
            (body(FillError::Origin(OriginError::TooLong { expected: 2 })), Blame::File),
            (body(FillError::Origin(OriginError::Cut { received: 1, reason: String::new() })), Blame::Origin),
            (body(FillError::Disk(io::Error::other("x"))), Blame::Node),
            (body(FillError::Abandoned), Blame::Node),
            (FetchError::NotStored, Blame::Node),
            (FetchError::Busy, Blame::Node),
        ];
        for (error, expected) in cases {
            assert_eq!(blame(&error), expected, "{error}");
        }
        for denied in [400, 401, 405, 410, 418, 451] {
            assert!(denies(&status(denied)), "{denied}");
        }
        assert!(denies(&OriginError::TooLong { expected: 1 }));
        assert!(denies(&OriginError::Redirected { to: String::new() }));
        for trouble in [408, 429, 500, 502, 503] {
            assert!(!denies(&status(trouble)), "{trouble}");
        }
        assert!(!denies(&down()) && !denies(&silent()));
    }

    #[test]
    fn clients_do_without_deltas_databases_and_changelogs() {
        let spare =
            ["prestodelta", "prestodelta_zck", "deltainfo", "other", "other_db", "other_zck", "primary_db"];
        let needed = [
            "primary",
            "primary_zck",
            "filelists",
            "group",
            "group_gz",
            "updateinfo",
            "modules",
            "productid",
        ];
        assert!(spare.iter().all(|kind| is_spare_record(kind)));
        assert!(!needed.iter().any(|kind| is_spare_record(kind)));
        assert!(is_spare_package("drpms/a-1_2.noarch.drpm") && !is_spare_package("Packages/drpm-1.rpm"));
    }
}
