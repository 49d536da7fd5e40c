//! After its start the process keeps what it needs: files, privileges, capabilities, system calls. All other tests run a node that
//! is confined, too.

use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, said, scratch, wait_until};
use super::tls::{certificate, secure_node};
use landlock::{Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// What `/proc/PID/status` says of each thread.
fn of_threads(node: &mut Node, field: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", node.pid());
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let threads: Vec<_> = fs::read_dir(tasks).unwrap().filter_map(|task| status(task.unwrap())).collect();
    let value = |status: &String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
    };
    assert!(threads.len() > 3, "{threads:?}");
    threads.iter().map(value).collect()
}

/// Whether this kernel has it: tried by a thread that ends with it. Where it is missing, what needs it isn't tested, and the test
/// says so.
fn has_landlock() -> bool {
    let tried = std::thread::spawn(|| {
        let handled = AccessFs::from_all(landlock::ABI::V1);
        Ruleset::default().handle_access(handled)?.create()?.restrict_self()
    });
    let enforced = tried.join().unwrap().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced);
    if !enforced {
        eprintln!("NOT TESTED: there is no Landlock here");
    }
    enforced
}

#[test]
fn every_thread_has_given_up_what_it_does_not_need() {
    let dir = scratch();
    fs::write(dir.path().join("f"), "x").unwrap();
    let mut node = Node::start(&config::in_place(dir.path(), ""));
    assert_eq!(node.get("/f").text(), "x");
    assert!(of_threads(&mut node, "NoNewPrivs").iter().all(|value| value == "1"));
    assert!(of_threads(&mut node, "Seccomp").iter().all(|value| value == "2"));
    for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        for value in of_threads(&mut node, field) {
            // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, which only root has.
            assert_eq!(u64::from_str_radix(&value, 16).unwrap() & !0b110, 0, "{field}: {value}");
        }
    }
    let log = node.log();
    assert!(log.contains("new privileges: none; capabilities: none"), "{log}");
    assert_eq!(log.contains("confined: files: only what it needs, by Landlock"), has_landlock(), "{log}");
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(log.matches("it runs as root").count(), usize::from(is_root), "{log}");
}

#[test]
fn what_lies_elsewhere_is_not_opened_and_the_reload_names_it() {
    let (dir, elsewhere) = (scratch(), scratch());
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    fs::write(elsewhere.path().join("m.toml"), config::mirror("m", &origin)).unwrap();
    let plain = |more: &str| config::cached(&origin, more);
    let mut node = Node::start(&plain(""));
    let has_landlock = has_landlock();
    let inside = node.dir().join("link.toml");
    symlink(elsewhere.path().join("m.toml"), inside).unwrap();
    for (times, file) in [(1, elsewhere.path().join("m.toml")), (2, node.dir().join("link.toml"))] {
        // The key goes first: tables follow.
        node.configure(&(format!("include = [\"{}\"]\n", file.display()) + &plain("")));
        node.signal("HUP");
        let outcome = if has_landlock { "refused" } else { "applied" };
        let sample = format!("freshet_config_reloads_total{{outcome=\"{outcome}\"}}");
        wait_until("the reload", || node.metric(&sample) == Some(f64::from(times)));
        if has_landlock {
            let log = node.log();
            assert!(
                log.contains(&format!("expected to read {}: Permission denied", file.display())),
                "{log}"
            );
            assert_eq!(log.matches("files elsewhere need a restart").count(), times as usize, "{log}");
        }
    }
    // One beside the configuration is read.
    let name = node.dir().join("new.toml");
    fs::write(&name, config::mirror("m", &origin)).unwrap();
    let keys = "include = [\"new.toml\"]\negress.capacity = \"3 Gbit/s\"\n";
    node.configure(&(keys.to_owned() + &plain("")));
    node.signal("HUP");
    node.wait_status("it is in force", |status| status["egress"]["capacity"] == 3_000_000_000_u64);
    wait_until("the rest to be told", || {
        node.log().contains("[[mirror]] has changed, which needs a restart")
    });
}

#[test]
fn a_new_certificate_is_looked_at_and_used_after_a_restart() {
    let dir = scratch();
    certificate(dir.path());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), "x").unwrap();
    let mut node = secure_node(dir.path(), &format!("[origin]\npath = \"{}\"\n", tree.display()));
    let url = format!("https://{}/f", node.https());
    let get = |cert: &Path| {
        let output =
            Command::new("curl").args(["-sS", "--max-time", "20", "--cacert"]).arg(cert).arg(&url).output();
        output.unwrap().stdout
    };
    assert_eq!(get(&dir.path().join("cert.pem")), b"x");
    // As certbot does it: new files by the old names.
    let new = scratch();
    certificate(new.path());
    for name in ["cert.pem", "key.pem"] {
        fs::copy(new.path().join(name), dir.path().join("incoming")).unwrap();
        fs::rename(dir.path().join("incoming"), dir.path().join(name)).unwrap();
    }
    node.signal("HUP");
    let applied = "freshet_config_reloads_total{outcome=\"applied\"}";
    wait_until("the reload", || node.metric(applied) == Some(1.0));
    node.sigterm();
    node.launch();
    assert_eq!(get(&new.path().join("cert.pem")), b"x");
}

#[test]
fn a_tree_is_pushed_and_what_is_removed_is_linked() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let mut node =
        Node::start(&config::in_place(tree.root(), &[config::BRISK, &config::updates("1s")].concat()));
    node.wait_ready();
    let old = format!("/{REPO}/{}", repo::rpm(45, Push::First));
    let body = node.get(&old).body;
    tree.sync(Push::Second);
    node.wait_status("the push", |status| status["repos"][0]["generation"]["sequence"] == 2);
    wait_until("the old file to be gone", || !tree.root().join(&old[1..]).exists());
    let kept = node.get(&old);
    assert!(kept.status == 200 && kept.body == body, "{}", kept.status);
    assert!(of_threads(&mut node, "Seccomp").iter().all(|value| value == "2"));
}

#[test]
fn check_tells_what_would_be_in_force_and_a_key_turns_it_off() {
    let dir = scratch();
    fs::write(dir.path().join("f"), "x").unwrap();
    let node = Node::start(&config::in_place(dir.path(), ""));
    let file = node.dir().join("freshet.toml");
    let check = || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_freshet")).args(["check", "--config"]).arg(&file).output();
        said(&output.unwrap())
    };
    let text = check();
    assert!(text.contains("it would be confined") && text.contains("system calls: "), "{text}");
    drop(node);
    let mut node = Node::start(&config::in_place(dir.path(), "node.confine = false"));
    assert!(of_threads(&mut node, "Seccomp").iter().all(|value| value == "0"));
    assert!(of_threads(&mut node, "NoNewPrivs").iter().all(|value| value == "0"));
    assert!(node.log().contains("node.confine is false"), "{}", node.log());
    let output = Command::new(env!("CARGO_BIN_EXE_freshet"))
        .args(["check", "--config"])
        .arg(node.dir().join("freshet.toml"))
        .output()
        .unwrap();
    let text = said(&output);
    assert!(text.contains("it would not be confined: node.confine is false"), "{text}");
    assert!(text.contains("only for debugging"), "{text}");
}

#[test]
fn a_log_that_was_renamed_goes_on_in_a_new_file() {
    let (dir, logs) = (scratch(), scratch());
    fs::write(dir.path().join("f"), "x").unwrap();
    let log = logs.path().join("access.log");
    let more = format!("log.access = \"{}\"", log.display());
    let node = Node::start(&config::in_place(dir.path(), &more));
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    assert_eq!(node.get("/f").status, 200);
    wait_until("the first line", || lines(&log) == 1);
    // As logrotate does it, but for the signal, which isn't needed.
    let old = logs.path().join("access.log.1");
    fs::rename(&log, &old).unwrap();
    fs::write(&log, "").unwrap();
    assert_eq!(node.get("/f").status, 200);
    wait_until("the second line", || lines(&log) == 1);
    assert_eq!(lines(&old), 1);
}
