//! What a node needs once it has started, and what is taken from it.

use crate::config::{self, AccessLog, Config};
use crate::confine::{self, InForce, Places};
use crate::origin::Retained;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// What the C library reads to resolve a name, and where the system's CAs are; and what tells of the process, its limits and its
/// interfaces. `/etc` as a whole, since files there are replaced by others: a lease that is renewed brings another `resolv.conf`.
const OF_SYSTEM: [&str; 17] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/nscd",
    "/proc",
    "/sys/class/net",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/dev/urandom",
];

/// Directories of many programs: of a file there the file alone is given.
const SHARED: [&str; 16] = [
    "/",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/usr",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];

/// Gives up what the node doesn't need, and says so; whether that was wanted.
pub(super) fn confine(config: &Config) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        tracing::warn!(
            "it runs as root, which nothing here needs, and may read all of /etc: give it a user of its own (AmbientCapabilities of systemd opens ports below 1024)"
        );
    }
    if !config.node.confine {
        tracing::warn!("node.confine is false: the process may do whatever its user may");
        return false;
    }
    make(config);
    let in_force = confine::confine(&places(config, is_root));
    if in_force.missing().next().is_none() {
        tracing::info!("confined: {in_force}");
    } else {
        tracing::warn!("confined in part: {in_force}");
    }
    true
}

/// What would be in force, in words, for `freshet check`.
#[must_use]
pub fn confinement(config: &Config) -> String {
    if !config.node.confine {
        return "it would not be confined: node.confine is false".to_owned();
    }
    match confine::tried(&places(config, rustix::process::geteuid().is_root())) {
        Ok(in_force) => confined_by(&in_force),
        Err(error) => format!("whether it would be confined can't be tried: {error}"),
    }
}

fn confined_by(in_force: &InForce) -> String {
    let how = if in_force.missing().next().is_none() { "confined" } else { "confined in part" };
    format!("it would be {how}: {in_force}")
}

/// Makes the node's own directories and its log: a place that isn't there can't be given. The part that needs one says why it can't be
/// made.
fn make(config: &Config) {
    for dir in own(config) {
        let _ = fs::create_dir_all(dir);
    }
    if let AccessLog::File(path) = &config.log.access {
        let _ = OpenOptions::new().create(true).append(true).open(path);
    }
}

/// The directories that the node writes to.
fn own(config: &Config) -> Vec<PathBuf> {
    let retain = match &config.origin {
        config::Origin::Directory { retain, .. } => retain.clone(),
        config::Origin::Http { .. } => None,
    };
    let disk = config.cache.disk.as_ref().map(|disk| disk.path.clone());
    [config.node.state.clone(), disk, retain].into_iter().flatten().collect()
}

fn places(config: &Config, is_root: bool) -> Places {
    let mut places = Places { write: own(config), ..Places::default() };
    // A cache whose directory is removed, or whose disk is another by now, is made anew.
    places.write.extend(config.cache.disk.as_ref().map(|disk| beside(&disk.path)));
    if let config::Origin::Directory { path, retain, .. } = &config.origin {
        let is_linked = retain.as_deref().is_some_and(|dir| Retained::takes_hard_links_only(dir, path));
        let kind = if is_linked { &mut places.linked } else { &mut places.read };
        kind.push(path.clone());
    }
    if let AccessLog::File(path) = &config.log.access {
        // A log that is rotated is followed by a new file of its name. Of root's rights, all logs of a shared directory are too many.
        places.append.push(if is_root { beside(path) } else { directory_of(path) });
    }
    for path in config.sources.iter().chain(&config.geoip) {
        places.read.push(beside(path));
        // Certificates are often links into another directory.
        places.read.extend(path.canonicalize().ok().as_deref().map(beside));
    }
    places.read.extend(OF_SYSTEM.map(PathBuf::from));
    places
        .read
        .extend(["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(std::env::var_os).map(PathBuf::from));
    let resolver = Path::new("/etc/resolv.conf").canonicalize().ok();
    places.read.extend(resolver.as_deref().map(beside));
    places
}

/// The directory that a file lies in, so that one which replaces it is given as well; the file alone where the directory is one of
/// many programs.
fn beside(path: &Path) -> PathBuf {
    let dir = directory_of(path);
    let is_shared = SHARED.iter().any(|shared| dir == Path::new(shared));
    if is_shared { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) } else { dir }
}

fn directory_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().unwrap_or(&path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_given_is_what_its_config_names() {
        let text = "include = [\"mirrors.d/*.toml\"]\n[node]\nstate = \"/var/lib/freshet\"\n[origin]\nurl = \"http://o/\"\n\
                    [cache]\ndisk = \"/var/cache/freshet\"\n[log]\naccess = \"/var/log/freshet.log\"\n";
        let mut config = Config::parse(text, Path::new("/etc/freshet/freshet.toml")).unwrap().0;
        config.geoip.push("/var/lib/GeoIP/a.mmdb".into());
        let places = places(&config, true);
        let given = |list: &[PathBuf], path: &str| list.iter().any(|place| place == Path::new(path));
        for path in ["/etc", "/etc/freshet/mirrors.d", "/var/lib/GeoIP", "/proc", "/sys/fs/cgroup"] {
            assert!(given(&places.read, path), "{path}: {places:?}");
        }
        let own = ["/var/lib/freshet", "/var/cache/freshet"].map(PathBuf::from);
        assert!(places.write.iter().all(|place| own.contains(place)), "not all of /var/cache: {places:?}");
        let nested = Config::parse(&text.replace("/var/cache", "/data/x"), Path::new("/f.toml")).unwrap().0;
        assert!(given(&super::places(&nested, true).write, "/data/x"), "where it can be made anew");
        assert_eq!(places.append, [Path::new("/var/log/freshet.log")], "not all of /var/log, as root");
        assert_eq!(
            super::places(&config, false).append,
            [Path::new("/var/log")],
            "a new file after a rotation"
        );
        assert_eq!(places.linked, [] as [PathBuf; 0]);
    }
}
