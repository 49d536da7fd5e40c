//! For whom something is asked of the store, as far as that decides what waits for what. Pure.

use crate::shares::Owner;

/// Why something is fetched: an earlier class has places that later ones don't get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A push: metadata, or a file that is fetched before the generation is activated.
    Push,
    /// A client asks for what a repo lists.
    Listed,
    /// A client asks for anything else, or the node asks for itself.
    Unlisted,
}

/// A class, and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Decides which places it may take.
    pub class: Class,
    /// Whose places count.
    pub owner: Owner,
}

impl Demand {
    /// Of a push.
    pub const PUSH: Self = Self { class: Class::Push, owner: Owner::NODE };
    /// Of the node for itself, such as the prober's questions to the origin.
    pub const NODE: Self = Self { class: Class::Unlisted, owner: Owner::NODE };

    /// Of a client, for what a repo lists or not.
    #[must_use]
    pub const fn of_client(owner: Owner, is_listed: bool) -> Self {
        Self { class: if is_listed { Class::Listed } else { Class::Unlisted }, owner }
    }
}
