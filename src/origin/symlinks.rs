//! Symlinks that name a place in the tree by its absolute path, as mirrors and masters have them (`7 -> /srv/centos/7.9.2009`).

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// `path` with every symlink in it replaced by what it names, from `root` on, which absolute ones call by one of `names`. None
/// where it leads out of the tree, or in a circle. Only a text: whoever opens it has to have the kernel hold it below the root.
pub(super) fn rewritten(root: &OwnedFd, names: &[PathBuf], path: &str) -> Option<String> {
    let mut left = parts(Path::new(path))?;
    let (mut real, mut links) = (PathBuf::new(), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            real.pop().then_some(())?;
            continue;
        }
        let next = real.join(&part);
        let Some(target) = target(root, &next) else {
            real = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let below = match names.iter().find_map(|name| target.strip_prefix(name).ok()) {
            Some(below) if target.is_absolute() => {
                real = PathBuf::new();
                below
            }
            _ if target.is_absolute() => return None,
            _ => &target,
        };
        left.extend(parts(below)?);
    }
    let real = real.to_str()?;
    Some(if real.is_empty() { ".".to_owned() } else { real.to_owned() })
}

/// The components, the last one first.
fn parts(path: &Path) -> Option<Vec<std::ffi::OsString>> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    let is_odd = |component: &Component<'_>| matches!(component, Component::RootDir | Component::Prefix(_));
    let mut parts: Vec<_> = path.components().filter_map(part).collect();
    parts.reverse();
    (!path.components().any(|component| is_odd(&component))).then_some(parts)
}

/// What the symlink at `path` says; None if it is none.
fn target(root: &OwnedFd, path: &Path) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let link = rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), below).ok()?;
    let text = rustix::fs::readlinkat(&link, "", Vec::new()).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use crate::http::TreePath;
    use crate::origin::{DirectoryOrigin, Node};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn absolute_ones_are_followed_within_the_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("7.9/os")).unwrap();
        fs::create_dir_all(dir.path().join("tree-beside")).unwrap();
        fs::write(root.join("7.9/os/file"), "x").unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        fs::write(dir.path().join("tree-beside/file"), "x").unwrap();
        let by_another_name = dir.path().join("name");
        symlink(&root, &by_another_name).unwrap();
        for (link, target) in [
            ("7", root.join("7.9")),
            ("named", by_another_name.join("7.9/os")),
            ("relative", "7/os".into()),
            ("7.9/up", "../named".into()),
            ("file", root.join("7/os/file")),
            ("root", root.clone()),
            ("up", root.join("..")),
            ("secret", dir.path().join("secret")),
            ("beside", dir.path().join("tree-beside")),
            ("etc", "/etc".into()),
            ("circle", root.join("circle")),
            ("round", root.join("round/round")),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let origin = DirectoryOrigin::open(&by_another_name, None).unwrap();
        let is_file = |path: &str| matches!(origin.node(&TreePath::new(path).unwrap()), Ok(Node::File(_)));
        for path in ["7/os/file", "named/file", "relative/file", "7.9/up/file", "file", "root/7/os/file"] {
            assert!(is_file(path), "{path}");
        }
        for path in ["up/secret", "secret", "beside/file", "etc/passwd", "circle", "round", "7/os/none"] {
            assert!(origin.node(&TreePath::new(path).unwrap()).is_err(), "{path}");
        }
        let listed = origin.list(&TreePath::new("").unwrap()).unwrap();
        let mut names: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["7", "7.9", "file", "named", "relative", "root"]);
    }
}
