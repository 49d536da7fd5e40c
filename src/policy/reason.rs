//! Why a request was answered as it was: one word for log, metrics, `Cache-Status` and `explain`.

/// The reason of a decision. Its [`word`](Reason::word) is a stable label: dashboards and log filters rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Metadata that the node alone delivers: its name is reused, so that only the node's own copy is known to be current; or it
    /// is zchunk, of which a client takes parts, and tries no other source after a bad one.
    Metadata,
    /// No repo lists the file, so no mirror is proven to hold it.
    Unlisted,
    /// The repo's window is open.
    Window,
    /// The window is over, but too few mirrors are fresh.
    WindowExtended,
    /// The repo is delivered by the nodes alone.
    Own,
    /// A redirect was due, but no mirror is proven to hold the file and fit for this client.
    NoFreshMirror,
    /// Only an older generation lists it: a mirror may remove it at any moment.
    Superseded,
    /// The client came back for what it was redirected for: the mirror failed it.
    Bounce,
    /// The client bounced lately and gets no redirects for a while.
    CoolOff,
    /// The client's earlier redirects are not known to have worked yet.
    SlowStart,
    /// The client isn't known to try again where a mirror fails it, and the node has capacity left.
    NoRetry,
    /// Firmware or a boot loader, which follows no redirect.
    Firmware,
    /// The window is over (or there is none): fresh mirrors take it.
    Offload,
    /// Measured egress is over the budget: fresh mirrors take it.
    Pressure,
    /// No repo lists it, and a mirror was seen to have one of the same size and time (`[[unlisted]]`): that takes it.
    Sighted,
    /// Neither cache nor origin has it any more, but a mirror still does.
    Removed,
    /// The origin can't be reached and the cache lacks it.
    OriginDown,
    /// The origin answered with an error, or with bytes that are not what the catalogue lists.
    OriginFault,
    /// A directory listing.
    Listing,
    /// `/mirrorlist` or `/metalink`.
    Mirrorlist,
    /// `[[moved]]`: the release lives elsewhere now; or a directory without its slash.
    Moved,
    /// Nobody has it.
    NotFound,
    /// A name in the path begins with a dot, and neither the config nor a repo's metadata name it: it is not for clients.
    Hidden,
    /// The request is malformed.
    BadRequest,
    /// The method is neither GET nor HEAD.
    Method,
    /// The client hung up before there was an answer.
    ClientLeft,
    /// A fault of the node itself.
    Internal,
}

impl Reason {
    /// All reasons, in label order of the metrics.
    pub const ALL: [Self; 27] = [
        Self::Metadata,
        Self::Unlisted,
        Self::Window,
        Self::WindowExtended,
        Self::Own,
        Self::NoFreshMirror,
        Self::Superseded,
        Self::Bounce,
        Self::CoolOff,
        Self::SlowStart,
        Self::NoRetry,
        Self::Firmware,
        Self::Offload,
        Self::Pressure,
        Self::Sighted,
        Self::Removed,
        Self::OriginDown,
        Self::OriginFault,
        Self::Listing,
        Self::Mirrorlist,
        Self::Moved,
        Self::NotFound,
        Self::Hidden,
        Self::BadRequest,
        Self::Method,
        Self::ClientLeft,
        Self::Internal,
    ];

    /// The label: lower case, words joined by `-`; a valid token in structured header fields (RFC 8941).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Unlisted => "unlisted",
            Self::Window => "window",
            Self::WindowExtended => "window-extended",
            Self::Own => "own",
            Self::NoFreshMirror => "no-fresh-mirror",
            Self::Superseded => "superseded",
            Self::Bounce => "bounce",
            Self::CoolOff => "cool-off",
            Self::SlowStart => "slow-start",
            Self::NoRetry => "no-retry",
            Self::Firmware => "firmware",
            Self::Offload => "offload",
            Self::Pressure => "pressure",
            Self::Sighted => "sighted",
            Self::Removed => "removed",
            Self::OriginDown => "origin-down",
            Self::OriginFault => "origin-fault",
            Self::Listing => "listing",
            Self::Mirrorlist => "mirrorlist",
            Self::Moved => "moved",
            Self::NotFound => "not-found",
            Self::Hidden => "hidden",
            Self::BadRequest => "bad-request",
            Self::Method => "method",
            Self::ClientLeft => "client-left",
            Self::Internal => "internal",
        }
    }

    /// The reason in a sentence, for `explain`.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Metadata => "metadata of a reused name, and zchunk, always come from the node",
            Self::Unlisted => "no repo lists this file, so no mirror is proven to hold it",
            Self::Window => "the repo's window is open: the nodes deliver it themselves",
            Self::WindowExtended => "the window is over, but too few mirrors are fresh to take the load",
            Self::Own => "the repo is configured to be delivered by the nodes alone",
            Self::NoFreshMirror => {
                "a redirect was due, but no mirror that fits this client is proven to hold the file"
            }
            Self::Superseded => {
                "a push removes the file from its repo, so that a mirror may lose it at any moment"
            }
            Self::Bounce => "the client asked again for what it was redirected for: the mirror failed it",
            Self::CoolOff => "the client was failed by a mirror lately and gets no redirects for a while",
            Self::SlowStart => "the client's earlier redirects are not known to have worked yet",
            Self::NoRetry => {
                "the client isn't known to try again where a mirror fails it, and the node has capacity left"
            }
            Self::Firmware => "firmware and boot loaders follow no redirect",
            Self::Offload => "no window is open: a mirror proven to hold the file takes it",
            Self::Pressure => "egress is over the budget: a mirror proven to hold the file takes it",
            Self::Sighted => {
                "no repo lists the file, and a mirror has one of the same size and time: that takes it"
            }
            Self::Removed => "the file is gone from the origin, but a mirror still holds it",
            Self::OriginDown => "the file is not in the cache and the origin can't be reached",
            Self::OriginFault => "the origin's answer can't be used",
            Self::Listing => "a directory listing",
            Self::Mirrorlist => "an answer for the client's choice of mirrors",
            Self::Moved => "the path has moved",
            Self::NotFound => "neither the cache, the origin nor a proven mirror has it",
            Self::Hidden => {
                "a name in the path begins with a dot, and neither tree.shown nor a repo's metadata name it"
            }
            Self::BadRequest => "the request is malformed",
            Self::Method => "only GET and HEAD are served",
            Self::ClientLeft => "the client hung up before there was an answer",
            Self::Internal => "a fault of the node itself",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_distinct_and_in_table_order() {
        let words: HashSet<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason:?} stands elsewhere in ALL than in the enum");
        }
    }
}
