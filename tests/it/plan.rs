//! `freshet plan`: from a file, from two states of a real repo, from a running node; as text, JSON and a page.

use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, PACKAGES, Push, Tree};
use super::support::{config, said, scratch};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn plan(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
    command.current_dir(dir).arg("plan").args(["--sample", "2000"]).args(args).output().unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let output = plan(dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All bytes that hosts fetched.
fn bytes(planned: &Value) -> f64 {
    let region = &planned["outcome"]["regions"][0];
    ["served", "redirected", "direct"].map(|by| region[by].as_f64().unwrap()).iter().sum()
}

#[test]
fn the_scenarios_that_come_with_it_are_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for scenario in
        ["config/scenarios/seed.toml", "config/scenarios/push-day.toml", "config/scenarios/rapid.toml"]
    {
        let output = plan(root, &[scenario]);
        let text = said(&output);
        assert!(output.status.success() && text.contains("When hosts have the push"), "{text}");
        assert!(!text.contains("warning"), "{text}");
        assert_eq!(scenario.contains("rapid"), text.contains("window alone"), "{text}");
    }
    // What stands in the first is what holds without a file.
    let [with, without] = [json(root, &["config/scenarios/seed.toml"]), json(root, &[])];
    assert_eq!(with, without);
    assert!(with["outcome"]["updated"]["p50"].as_f64() < with["outcome"]["by_mirrors_alone"]["p50"].as_f64());
}

#[test]
fn a_rapid_repo_stands_beside_the_window_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let planned = json(root, &["config/scenarios/rapid.toml"]);
    let served = |by: &str| -> f64 {
        let regions = planned[by]["regions"].as_array().unwrap().iter();
        regions.map(|region| region["served"].as_f64().unwrap()).sum()
    };
    assert!(served("outcome") < served("by_window") / 5.0, "{} {}", served("outcome"), served("by_window"));
    let [rapid, window] =
        ["outcome", "by_window"].map(|by| planned[by]["updated"]["p95"].as_f64().unwrap() / 3600.0);
    assert!(rapid < 24.0 && window > 40.0, "{rapid} {window}");
}

#[test]
fn mistakes_are_told_and_exit_64() {
    let dir = scratch();
    fs::write(dir.path().join("s.toml"), "hosts = 0\n[policy]\nwindw = \"3h\"\n").unwrap();
    let output = plan(dir.path(), &["s.toml"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("s.toml:1: hosts = 0") && text.contains("s.toml:3: policy.windw"), "{text}");
    for wrong in [["--target", "soon"], ["--sample", "many"], ["--repo", "updates"]] {
        assert_eq!(plan(dir.path(), &wrong).status.code(), Some(64), "{wrong:?}");
    }
    let output = plan(dir.path(), &["--from-repo", "none", "none"]);
    assert!(
        !output.status.success() && said(&output).contains("none/repodata/repomd.xml"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_target_is_met_or_said_to_be_out_of_reach() {
    let dir = scratch();
    let text = "hosts = 50000\nlasts = \"30h\"\n[push]\npackages = 10\nbytes = \"50 MB\"\n[[checks]]\nname = \"x\"\nevery = \"2h\"\n\
        [[region]]\nname = \"all\"\ncapacity = \"10 Gbit/s\"\n[[mirrors]]\ncount = 20\n";
    fs::write(dir.path().join("s.toml"), text).unwrap();
    let output =
        plan(dir.path(), &["s.toml", "--target", "95% in 4h", "--html", "p.html", "--plots", "plots"]);
    let text = said(&output);
    assert!(text.contains("It is enough to have") && text.contains("[egress]\n# capacity = "), "{text}");
    let page = fs::read_to_string(dir.path().join("p.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("x 0.25") && !page.contains("src="));
    assert!(dir.path().join("plots/all-who-delivers.svg").is_file());
    let never = json(dir.path(), &["s.toml", "--target", "99% in 30m"]);
    assert!(never["sweep"]["possible"].as_f64().unwrap() < 0.3, "hosts look every 2 h: {}", never["sweep"]);
}

#[test]
fn a_push_comes_from_two_states_of_a_repo() {
    let dir = scratch();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let (old, new) = (Tree::link(Push::First, &old), Tree::link(Push::Second, &new));
    let text = "hosts = 1000\n[[region]]\nname = \"r\"\ncapacity = \"1 Gbit/s\"\n[[checks]]\nname = \"x\"\nneeds = [1, 1]\n";
    fs::write(dir.path().join("s.toml"), text).unwrap();
    fs::write(dir.path().join("drpms.toml"), format!("{text}drpms = 1\n")).unwrap();
    let repos = [old.repo(), new.repo()].map(|path| path.to_str().unwrap().to_owned());
    let planned = json(dir.path(), &["s.toml", "--from-repo", &repos[0], &repos[1]]);
    // What the push updates, and all metadata that dnf fetches, by each host.
    let length = |below: &str| fs::metadata(new.repo().join(below)).unwrap().len();
    let is_new = |i: &usize| repo::updated(*i) || *i >= PACKAGES;
    let packages: u64 = (0..PACKAGES + 2).filter(is_new).map(|i| length(&repo::rpm(i, Push::Second))).sum();
    let names = repo::files(&new.repo());
    let metadata: u64 = ["-primary.xml", "-filelists.xml", "-updateinfo.xml", "-comps"]
        .iter()
        .flat_map(|kind| names.iter().filter(move |name| name.contains(kind)))
        .map(|name| length(name))
        .sum();
    let each = bytes(&planned) / 1000.0;
    let expected = (packages + metadata + 4096) as f64;
    assert!((each / expected - 1.0).abs() < 0.01, "{each} for {packages} and {metadata}");

    let by_drpms = json(dir.path(), &["drpms.toml", "--from-repo", &repos[0], &repos[1]]);
    assert!(bytes(&by_drpms) < bytes(&planned) * 0.9, "{} for {}", bytes(&by_drpms), bytes(&planned));

    let same = plan(dir.path(), &["--from-repo", &repos[1], &repos[1]]);
    assert!(!same.status.success() && said(&same).contains("lists no package that"), "{}", said(&same));
}

#[test]
fn freshness_comes_from_a_running_node() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let stale = Tree::link(Push::First, &dir.path().join("stale"));
    tree.sync(Push::Second);
    tree.date_now();
    let (origin, fresh, stale) =
        (Origin::serve(tree.root()), Origin::serve(tree.root()), Origin::serve(stale.root()));
    let tables = config::updates("1h") + &config::mirror("fresh", &fresh) + &config::mirror("stale", &stale);
    let node = Node::start(&config::cached(&origin, &format!("{}{tables}", config::BRISK)));
    node.wait_ready();
    let status = node.wait_status("one is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);
    assert!(status["mirrors"][0]["repos"][0]["proven_at"].is_string());
    let file = node.dir().join("freshet.toml");
    let repo = status["repos"][0]["id"].as_str().unwrap();
    let args = ["--from-node", file.to_str().unwrap(), "--repo", repo];
    let output = plan(dir.path(), &args);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 of 1 mirrors hold what was pushed"), "{text}");
    // Mirrors hold it within the first point then, and 571 of 600 after hours else.
    let planned = json(dir.path(), &args);
    assert_eq!(planned["outcome"]["points"][2]["fresh"], 600);
    let unknown = plan(dir.path(), &["--from-node", file.to_str().unwrap(), "--repo", "none/0"]);
    assert!(!unknown.status.success() && said(&unknown).contains("no repo none/0"), "{}", said(&unknown));
}
