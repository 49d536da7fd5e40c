//! What goes wrong with a push at the origin, and what a node is to make of it.

use super::tree::{Push, SIGNATURE, Tree};
use crate::support::breakage::{Breakage as OfFile, Broken};
use crate::support::origin::{Act, Origin};
use crate::support::repo::REPO;

/// One thing that is wrong with a push until it is [mended](Harm::mend).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// Nothing: a good push.
    None,
    /// A new package is wrong, or the answers for it are.
    Package(OfFile),
    /// It comes, goes, and comes back.
    Vanishing,
    /// The new repomd.xml is there before any package.
    MetadataFirst,
    /// The new repomd.xml is there before the primary.xml that it names.
    HalfMetadata,
    /// One byte of primary.xml is another.
    FlippedMetadata,
    /// The signature is still that of the repomd.xml before.
    OldSignature,
    /// filelists.xml isn't there, which dnf asks for.
    NoFilelists,
    /// other.xml isn't there, which clients can do without.
    NoOther,
    /// The origin answers 403 for the signature.
    NoSignature,
}

impl Breakage {
    /// All, or those that a directory can have.
    pub fn all(served_by_http: bool) -> Vec<Self> {
        let mut all = vec![
            Self::None,
            Self::Vanishing,
            Self::MetadataFirst,
            Self::HalfMetadata,
            Self::FlippedMetadata,
            Self::OldSignature,
            Self::NoFilelists,
            Self::NoOther,
        ];
        all.extend(OfFile::OF_FILES.map(Self::Package));
        if served_by_http {
            all.push(Self::NoSignature);
            all.extend(OfFile::OF_ANSWERS.map(Self::Package));
        }
        all
    }

    /// Whether the node is to keep the old generation until the push is mended. Without, it may take some polls to accept the
    /// push as it is.
    pub fn holds(self) -> bool {
        match self {
            Self::None | Self::OldSignature | Self::NoOther | Self::NoSignature => false,
            Self::Package(breakage) => breakage.fails_clients(),
            _ => true,
        }
    }

    /// Publishes `push` with this wrong.
    pub fn publish(self, tree: &Tree, push: &Push, origin: Option<&Origin>) -> Harm {
        let is_held_back = |path: &str| match self {
            Self::Vanishing => path == push.news[0],
            Self::MetadataFirst => path.ends_with(".rpm"),
            Self::HalfMetadata => path.contains("primary"),
            Self::OldSignature => path == SIGNATURE,
            Self::NoFilelists => path.contains("filelists"),
            Self::NoOther => path.contains("other"),
            _ => false,
        };
        let files = || push.files.iter().filter(|path| !is_held_back(path));
        files().filter(|path| path.ends_with(".rpm")).for_each(|path| tree.put(path));
        let broken = match self {
            Self::Package(breakage) => {
                Some(Broken::new(breakage, &tree.root().join(REPO), origin, &push.news[0]))
            }
            Self::NoSignature => {
                origin.expect("an HTTP origin").act(&at(SIGNATURE), [Act::Status(403)]);
                None
            }
            _ => None,
        };
        for path in files().filter(|path| !path.ends_with(".rpm")) {
            if self == Self::FlippedMetadata && path.contains("primary") {
                let mut bytes = tree.right(path);
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                tree.write(path, &bytes);
            } else {
                tree.put(path);
            }
        }
        Harm { breakage: self, broken }
    }
}

fn at(path: &str) -> String {
    format!("{REPO}/{path}")
}

/// A push that is broken.
pub struct Harm {
    breakage: Breakage,
    broken: Option<Broken>,
}

impl Harm {
    /// What happens while it is broken, at each look of the node.
    pub fn go_on(&self, tree: &Tree, push: &Push) {
        if self.breakage == Breakage::Vanishing {
            tree.put(&push.news[0]);
            tree.remove(&push.news[0]);
        }
    }

    /// Puts everything right, and removes what the push doesn't have.
    pub fn mend(self, tree: &Tree, push: &Push, origin: Option<&Origin>) {
        if let Some(broken) = self.broken {
            broken.mend(origin);
        }
        if let Some(origin) = origin {
            origin.act(&at(SIGNATURE), []);
        }
        push.files.iter().for_each(|path| tree.put(path));
        tree.delete_old(push);
    }
}
