//! Mirrorlists: one base URL a line, nearest first.

use super::query::Form;
use crate::config::{Delivery, OutsideWindow};

/// Who stands in the list, and who first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Inside a window: the own nodes alone.
    OwnOnly,
    /// Mirrors, then own nodes.
    MirrorsFirst,
    /// Own nodes, then mirrors.
    OwnFirst,
}

impl Order {
    /// For a repo that is delivered so, whose window is `open` or not.
    #[must_use]
    pub const fn of(delivery: Delivery, open: bool, outside: OutsideWindow) -> Self {
        match (delivery, outside) {
            (Delivery::Own, _) => Self::OwnOnly,
            (Delivery::Window, _) if open => Self::OwnOnly,
            (_, OutsideWindow::MirrorsFirst) => Self::MirrorsFirst,
            (_, OutsideWindow::OwnFirst) => Self::OwnFirst,
        }
    }

    /// The entries of a list in their order there, so that mirrorlist and metalink agree.
    pub fn arrange<T>(
        self,
        own: impl IntoIterator<Item = T>,
        mirrors: impl IntoIterator<Item = T>,
    ) -> Vec<T> {
        match self {
            Self::OwnOnly => own.into_iter().collect(),
            Self::MirrorsFirst => mirrors.into_iter().chain(own).collect(),
            Self::OwnFirst => own.into_iter().chain(mirrors).collect(),
        }
    }
}

/// The list as `text/plain`. Each of `own` and `mirrors` is a base URL that ends in `/`; `repo_path` is as it stands in a URL,
/// without slashes around it. `comment` is the first line of Fedora's form; line breaks in it become spaces.
#[must_use]
pub fn mirrorlist(
    form: Form,
    comment: &str,
    own: &[String],
    mirrors: &[&str],
    order: Order,
    repo_path: &str,
) -> String {
    let mut list = String::new();
    if form == Form::Fedora {
        list.push_str("# ");
        list.extend(comment.chars().map(|c| if c.is_control() { ' ' } else { c }));
        list.push('\n');
    }
    // The base of a repo at the root ends in one already.
    let slash = if repo_path.is_empty() { "" } else { "/" };
    for base in order.arrange(own.iter().map(String::as_str), mirrors.iter().copied()) {
        list.extend([base, repo_path, slash, "\n"]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let own = ["http://o/".to_owned(), "http://o/~1/".to_owned()];
        let mirrors = ["https://m/centos/"];
        let lines = |form, order| mirrorlist(form, "repo = a\narch = b", &own, &mirrors, order, "7/a/b");
        let (o, m) = ("http://o/7/a/b/\nhttp://o/~1/7/a/b/\n", "https://m/centos/7/a/b/\n");
        assert_eq!(lines(Form::Centos, Order::OwnOnly), o);
        assert_eq!(lines(Form::Centos, Order::MirrorsFirst), format!("{m}{o}"));
        assert_eq!(lines(Form::Centos, Order::OwnFirst), format!("{o}{m}"));
        assert_eq!(lines(Form::Fedora, Order::OwnOnly), format!("# repo = a arch = b\n{o}"));
        let at_root = mirrorlist(Form::Centos, "", &own, &mirrors, Order::OwnFirst, "");
        assert_eq!(at_root, "http://o/\nhttp://o/~1/\nhttps://m/centos/\n");
    }
}
