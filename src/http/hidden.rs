//! Paths that are not for clients: a name in them begins with a dot.
//!
//! Such names are what a tree holds besides its files: rsync's temporaries (`.x.rpm.Xa3f91`, `.~tmp~/`), which are updates
//! before their publication, version control (`.git`), passwords (`.htpasswd`). Pure.

use super::TreePath;

/// Names that begin with a dot and that clients ask for: installers and composes (Anaconda, pungi), and RFC 8615.
const ALWAYS_SHOWN: [&str; 4] = [".treeinfo", ".discinfo", ".composeinfo", ".well-known"];
/// Bytes that a name in the configuration may have: Linux' `NAME_MAX`.
const MAX_NAME_BYTES: usize = 255;

/// Whether a name in `path` begins with a dot, is none of those that trees are known to have for clients, and is not in
/// `shown` (`tree.shown`).
#[must_use]
pub fn is_hidden(path: &TreePath, shown: &[String]) -> bool {
    let text = path.as_str();
    // Nearly all paths have no such name at all.
    let has_dotted = text.starts_with('.') || text.contains("/.");
    has_dotted && text.split('/').any(|name| name.starts_with('.') && !is_shown(name, shown))
}

/// Whether `name` can stand in `shown`: it begins with a dot, and can be a part of a [`TreePath`].
#[must_use]
pub fn is_dotted_name(name: &str) -> bool {
    let fits = |c: char| c != '/' && c != '\\' && !c.is_control();
    name.starts_with('.')
        && !matches!(name, "." | "..")
        && name.len() <= MAX_NAME_BYTES
        && name.chars().all(fits)
}

fn is_shown(name: &str, shown: &[String]) -> bool {
    ALWAYS_SHOWN.contains(&name) || shown.iter().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_with_a_dot_are_hidden_wherever_they_stand() {
        let shown = [".snapshot".to_owned()];
        for (path, hidden) in [
            ("", false),
            ("7/os/x.rpm", false),
            ("7/os/", false),
            ("7.9.2009/a..b/c.", false),
            (".git", true),
            (".git/config", true),
            ("7/.git/", true),
            ("7/os/.htpasswd", true),
            ("7/.~tmp~/x.rpm", true),
            ("7/os/.x.rpm.Xa3f91", true),
            ("7/os/.x.rpm.Xa3f9", true),
            ("7/os/..treeinfo.Xa3f91", true),
            ("7/os/...", true),
            ("7/os/.treeinfo", false),
            ("7/os/.treeinfo.Xa3f91", true),
            (".discinfo", false),
            ("compose/.composeinfo", false),
            (".well-known/security.txt", false),
            (".well-known/.git/config", true),
            (".snapshot/x", false),
            (".snapshot/.x", true),
            (".snapshots/x", true),
        ] {
            assert_eq!(is_hidden(&TreePath::new(path).unwrap(), &shown), hidden, "{path:?}");
        }
    }

    #[test]
    fn names_for_the_configuration() {
        for (name, fits) in [
            (".a", true),
            ("...", true),
            (".", false),
            ("..", false),
            ("a", false),
            ("", false),
            (".a/b", false),
        ] {
            assert_eq!(is_dotted_name(name), fits, "{name:?}");
        }
        assert!(!is_dotted_name(&format!(".{}", "a".repeat(MAX_NAME_BYTES))));
    }
}
