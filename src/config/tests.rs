//! The configuration as a whole: a full example, the shipped ones, every kind of mistake, and arbitrary text.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FULL: &str = r#"
include = ["mirrors.d/*.toml"]
[node]
name = "use1"
region = "us"
self_url = "http://use1.mirror.example.org/"
urls = ["http://mirror.example.org"]
[http]
listen = ["0.0.0.0:80", "[::]:80"]
[https]
listen = ["0.0.0.0:443"]
certificate = "cert.pem"
key = "key.pem"
[admin]
listen = "192.0.2.1:9180"
token_file = "token"
[origin]
url = "https://master.example.org/centos/"
[tree]
shown = [".snapshot"]
[cache]
memory = "512 MiB"
disk = "/var/cache/freshet"
disk_size = "200 GiB"
[egress]
capacity = "20 Gbit/s"
interface = "eth0"
shed_from = 0.80
shed_all = 0.95
[[repo]]
name = "updates"
path = "{release}/updates/{arch}"
releases = ["7"]
arches = ["x86_64", "aarch64"]
delivery = "window"
window = "24h"
window_scope = "push"
[[repo]]
name = "rapid"
path = "{release}/rapid/{arch}"
releases = ["7"]
arches = ["x86_64"]
delivery = "own"
twin = "updates"
[[repo]]
name = "source"
path = "7/source/"
delivery = "offload"
[[alias]]
from = "7"
to = "7.9.2009"
[[moved]]
from = "5"
to = "https://vault.example.org/5"
[listing]
outside_window = "own-first"
[push]
poll = "1s"
warm_for = "5s"
[mirrors]
probe_every = "30s"
probe_lagging = "60s"
[[mirror]]
name = "example-de"
url = "http://ftp.example.de/centos/"
country = "de"
continent = "EU"
bandwidth = "10 Gbit/s"
networks = ["192.0.2.9/24"]
"#;

/// A folder with the files that `FULL` names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        fs::write(folder.path().join(name), text).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(folder.path().join("mirrors.d")).unwrap();
    file(
        "mirrors.d/b.toml",
        "[[mirror]]\nname = 'b'\nurl = 'https://b.example.org/'\ncountry = 'US'\n",
        0o644,
    );
    file("mirrors.d/a.toml", "[[mirror]]\nname = 'a'\nurl = 'https://a.example.org/'\n", 0o644);
    file("mirrors.d/a.toml~", "not TOML", 0o644);
    file("cert.pem", "", 0o644);
    file("key.pem", "", 0o600);
    file("token", "0123456789abcdef\n", 0o600);
    file("empty", " \n", 0o600);
    folder
}

#[test]
fn a_full_file_resolves() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (config, warnings) = Config::parse(FULL, &at("freshet.toml")).unwrap();
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let nowhere = "mirror.country: missing, and no networks either: no client is near to this mirror";
    assert_eq!(warnings, [format!("{}:1: {nowhere}", at("mirrors.d/a.toml").display())]);

    assert_eq!(config.node.urls, ["http://mirror.example.org/"]);
    assert_eq!(config.node.state.as_deref(), Some(Path::new("/var/cache/freshet/state")));
    assert_eq!(config.https.as_ref().unwrap().key, at("key.pem"));
    assert_eq!(config.admin.token.as_deref(), Some("0123456789abcdef"));
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "a token is never shown");
    assert!(matches!(&config.origin, Origin::Http { url, first_byte_timeout, .. }
            if url == "https://master.example.org/centos/" && *first_byte_timeout == Duration::from_secs(8)));
    assert_eq!(config.cache.disk, Some(DiskCache { path: "/var/cache/freshet".into(), size: 200 << 30 }));
    assert_eq!(config.tree.shown, [".snapshot"]);
    assert_eq!(config.egress.capacity, Some(Bandwidth::from_bits_per_second(20_000_000_000)));
    assert_eq!((config.push.poll, config.push.warm), (Duration::from_secs(1), 100 << 30));
    assert_eq!(config.push.warm_for, Duration::from_secs(5));
    assert_eq!(config.probes.probe_lagging, Duration::from_secs(30), "never slower than probe_every");
    assert_eq!(config.probes.contact, "http://mirror.example.org/");
    assert_eq!(config.listing.outside_window, OutsideWindow::OwnFirst);

    let repos: Vec<_> =
        config.repos.iter().map(|r| (r.id.as_str(), r.path.as_str(), r.delivery, r.twin)).collect();
    let expected = [
        ("updates/7/x86_64", "7.9.2009/updates/x86_64", Delivery::Window, None),
        ("updates/7/aarch64", "7.9.2009/updates/aarch64", Delivery::Window, None),
        ("rapid/7/x86_64", "7.9.2009/rapid/x86_64", Delivery::Own, Some(0)),
        ("source", "7.9.2009/source", Delivery::Offload, None),
    ];
    assert_eq!(repos, expected);
    let path = TreePath::new("5/os/a.iso").unwrap();
    assert_eq!(moved(&config.moved, &path).as_deref(), Some("https://vault.example.org/5/os/a.iso"));
    let names: Vec<_> = config.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
    assert_eq!(names, ["example-de", "a", "b"]);
    let places = config.mirrors.iter().map(|mirror| (mirror.country, mirror.continent));
    assert_eq!(places.collect::<Vec<_>>()[0], ("DE".parse().ok(), "EU".parse().ok()));
    assert_eq!(config.mirrors[0].networks, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.mirrors[1].bandwidth, Bandwidth::from_bits_per_second(1_000_000_000));
}

#[test]
fn shipped_files_load_without_warnings() {
    let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    for (name, repos, mirrors) in [("freshet.toml", 6, 2), ("dev.toml", 2, 0)] {
        let (config, warnings) = Config::load(&shipped.join(name)).unwrap();
        assert_eq!((config.repos.len(), config.mirrors.len()), (repos, mirrors), "{name}");
        assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0], "{name}");
    }
}

/// The example explains every key there is: uncommented, it has them all, and their values are right.
#[test]
fn the_shipped_example_names_every_key() {
    let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    let text = fs::read_to_string(shipped.join("freshet.toml")).unwrap();
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) || rest.starts_with('[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: String = text.lines().map(|line| uncommented(line) + "\n").collect();
    let Err(found) = Config::parse(&all, &shipped.join("freshet.toml")) else {
        panic!("the alternative to origin.url, at least, is a mistake once it is uncommented");
    };
    let texts: Vec<_> = found.iter().map(|mistake| mistake.text.as_str()).collect();
    for text in &texts {
        let about_files = text.contains("expected a file that can be read");
        assert!(
            about_files || text.contains("together with origin.url") || text.contains("not both"),
            "{text}"
        );
    }
    let all = all + &fs::read_to_string(shipped.join("mirrors.d/example.toml")).unwrap();
    // What a table knows is what it offers in place of an unknown key.
    let tables =
        ["node", "http", "https", "admin", "origin", "cache", "egress", "listing", "push", "mirrors", "log"];
    let tables = tables.map(|table| format!("[{table}]")).into_iter();
    for table in
        tables.chain(["repo", "alias", "moved", "unlisted", "mirror"].map(|table| format!("[[{table}]]")))
    {
        let text = format!("{table}\nzzzzzzzzzz = 1\n");
        let offered = Config::parse(&text, Path::new("f.toml")).unwrap_err();
        let offered = offered
            .iter()
            .find_map(|mistake| mistake.text.split_once("unknown key, expected one of "))
            .unwrap()
            .1;
        let header = format!("\n{table}\n");
        for key in offered.split(", ") {
            let sections = all.split(&header).skip(1);
            let mut lines =
                sections.flat_map(|section| section.lines().take_while(|line| !line.starts_with('[')));
            assert!(lines.any(|line| line.starts_with(&format!("{key} = "))), "{table} {key}");
        }
    }
}

#[test]
fn a_tree_needs_no_file() {
    let config = Config::for_tree(Path::new("/srv/tree"));
    assert_eq!(
        config.origin,
        Origin::Directory { path: "/srv/tree".into(), retain: None, retain_size: 10 << 30 }
    );
    let addresses = config.http.listen.iter().chain([&config.admin.listen]);
    assert!(addresses.clone().all(|address| address.ip().is_loopback()) && addresses.count() == 3);
    assert_eq!((config.cache.disk, config.node.state, config.repos.len()), (None, None, 0));
}

/// What `text` gets said about it, with what every file needs added where it is not about that.
fn mistakes(text: &str) -> Vec<String> {
    let folder = folder();
    let needed = if text.contains("[origin]") {
        ""
    } else {
        "\n[origin]\nurl = 'http://o.example.org/'\n[cache]\ndisk = 'cache'\n"
    };
    let path = folder.path().join("f.toml");
    let mistakes = Config::parse(&format!("{text}{needed}"), &path).err().unwrap_or_default();
    let root = format!("{}/", folder.path().display());
    mistakes.iter().map(|mistake| mistake.to_string().replace(&root, "")).collect()
}

#[test]
fn every_mistake_names_its_line_its_value_and_what_is_expected() {
    let cases = include_str!("mistakes.txt");
    let mut seen = 0;
    for case in cases.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (expected, text): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("=> "));
        let expected: Vec<_> =
            expected.iter().map(|line| line.trim_start_matches("=> ").to_owned()).collect();
        assert_eq!(mistakes(&text.join("\n")), expected, "for\n{}", text.join("\n"));
        seen += 1;
    }
    assert!(seen > 40, "{seen} cases read");
}

#[test]
fn a_token_that_others_can_have_is_a_mistake() {
    let folder = folder();
    let token = |text: &str, mode| {
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let config = "[origin]\npath = '/srv/tree'\n[node]\nstate = 's'\n[admin]\ntoken_file = 'token'\n";
        match Config::parse(config, &folder.path().join("f.toml")) {
            Ok((config, _)) => config.admin.token.ok_or_else(String::new),
            Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    };
    let (long, path) = ("0123456789abcdef", folder.path().join("token").display().to_string());
    for mode in [0o600, 0o400, 0o640, 0o440] {
        assert_eq!(token(long, mode).as_deref(), Ok(long), "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o660, 0o620, 0o602, 0o666] {
        let why = token(long, mode).unwrap_err();
        assert!(why.contains(&format!("but {path} has mode {mode:04o}; chmod 600")), "{mode:o}: {why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    let why = token("0123456789abcde\n", 0o600).unwrap_err();
    assert!(
        why.contains(&format!("at least 16 characters, but the one in {path} (mode 0600) has 15")),
        "{why}"
    );
    assert_eq!(token("short", 0o644).unwrap_err().lines().count(), 2);
}

#[test]
fn warnings() {
    let folder = folder();
    let text = "[origin]\npath = 'tree'\n[node]\nstate = 's'\n[egress]\nshed_from = 0.5\n[[repo]]\nname = 'a'\npath = 'a'\n[[repo]]\nname = 'b'\npath = 'b'\ndelivery = 'own'\nwindow = '1h'\n";
    let (config, warnings) = Config::parse(text, &folder.path().join("f.toml")).unwrap();
    assert_eq!(config.node.state, Some(folder.path().join("s")));
    let retained = folder.path().join("s/retained");
    assert!(matches!(&config.origin, Origin::Directory { retain, .. } if *retain == Some(retained)));
    let root = format!("{}/", folder.path().display());
    let warnings: Vec<_> = warnings.iter().map(|warning| warning.to_string().replace(&root, "")).collect();
    let expected = [
        r#"f.toml:2: origin.path = "tree": there is no directory tree yet"#,
        "f.toml:3: node.urls: missing: a mirrorlist needs URLs by which clients reach the nodes",
        "f.toml:6: egress.shed_from = 0.5: has no effect without egress.capacity",
        "f.toml:7: repo.delivery: without any [[mirror]] the nodes deliver everything",
        r#"f.toml:14: repo.window = "1h": has no effect unless delivery = "window""#,
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn a_file_that_is_not_there_is_one_mistake() {
    let mistakes = Config::load(Path::new("/nonexistent/freshet.toml")).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].to_string().starts_with("/nonexistent/freshet.toml:1: expected a configuration file")
    );
}

proptest! {
    #[test]
    fn any_text_is_a_config_or_mistakes(text in "[\\PC\n]{0,200}") {
        let _ = Config::parse(&text, Path::new("f.toml"));
    }

    /// Close to what is right, where the readers of values are reached: one line of a full file is replaced.
    #[test]
    fn a_changed_line_never_panics(line in 0_usize..80, value in "([a-z_]{1,12} = )?[\\[\\]{}\"'0-9a-zA-Z/:.µ* -]{0,20}", keep_key: bool) {
        let changed = FULL.lines().enumerate().map(|(at, old)| match old.split_once(" = ") {
            _ if at != line => old.to_owned(),
            Some((key, _)) if keep_key => format!("{key} = {value}"),
            Some((key, _)) => format!("{key} = '{}'", value.replace('\'', "")),
            None => value.clone(),
        });
        let text = changed.collect::<Vec<_>>().join("\n");
        if let Err(mistakes) = Config::parse(&text, Path::new("nowhere/f.toml")) {
            prop_assert!(!mistakes.is_empty());
        }
    }
}
