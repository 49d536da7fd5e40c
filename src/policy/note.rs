//! What is said of a mirror's repo.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Words for people. Each change of a mirror's state copies the notes of all its repos: copies share the words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note(Arc<str>);

impl Note {
    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Note {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Note {
    fn from(words: String) -> Self {
        Self(words.into())
    }
}

impl From<&str> for Note {
    fn from(words: &str) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq<&str> for Note {
    fn eq(&self, words: &&str) -> bool {
        *self.0 == **words
    }
}
