use super::Scenario;
use std::path::Path;
use std::time::Duration;

fn parse(text: &str) -> Result<Scenario, Vec<String>> {
    let read = Scenario::parse(text, Path::new("s.toml"));
    read.map(|(scenario, _)| scenario).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn an_empty_file_is_a_whole_scenario() {
    let scenario = parse("").unwrap();
    assert_eq!((scenario.hosts, scenario.lasts), (1_000_000, Duration::from_secs(48 * 3600)));
    assert_eq!(scenario.push.files.len(), 80);
    let bytes: u64 = scenario.push.files.iter().map(|file| file.size).sum();
    assert!((249_000_000..=250_000_000).contains(&bytes), "{bytes}");
    let sums = [
        scenario.kinds.iter().map(|kind| kind.share).sum::<f64>(),
        scenario.regions.iter().map(|region| region.share).sum(),
    ];
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-9), "{sums:?}");
    assert_eq!(scenario.mirrors.iter().map(|group| group.count).sum::<usize>(), 600);
    assert!(scenario.push.files.iter().all(|file| file.drpm.is_none()));
}

#[test]
fn a_rapid_repo_has_defaults_and_bounds() {
    assert_eq!(parse("").unwrap().rapid, None);
    let scenario = parse("[rapid]").unwrap();
    let rapid = scenario.rapid.as_ref().unwrap();
    assert_eq!((rapid.files.len(), rapid.expire.as_secs(), rapid.metadata), (8, 900, 100_000));
    let names: Vec<_> = scenario.repos().iter().map(|repo| (repo.id.clone(), repo.twin)).collect();
    assert_eq!(names, [("updates/9/x86_64".to_owned(), None), ("rapid/9/x86_64".to_owned(), Some(0))]);
    let alone = scenario.by_window().unwrap();
    assert_eq!((alone.rapid.is_none(), alone.push.files.len(), alone.repos().len()), (true, 88, 1));
    let mistakes =
        parse("lasts = \"10h\"\n[rapid]\nbefore_updates = \"10h\"\ndelivery = \"window\"").unwrap_err();
    assert_eq!(
        mistakes,
        [
            "s.toml:3: rapid.before_updates = \"10h\": expected updates that are offered before the end",
            "s.toml:4: rapid.delivery = \"window\": expected \"own\" or \"offload\": a plan has one window, that of updates",
        ]
    );
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = "\
hosts = 0
[push]
at = \"50h\"
sizes = [\"1 MB\", \"big\"]
packages = 3
[[region]]
name = \"us\"
share = 0.4
[[checks]]
name = \"dnf\"
every = \"1h\"
from = \"6h\"
needs = [0.9, 0.1]
[policy]
shed_from = 0.9
shed_all = 0.8
windw = \"3h\"
";
    let mistakes = parse(text).unwrap_err();
    let expected = [
        "s.toml:1: hosts = 0: expected a whole number from 1 to 1000000000",
        "s.toml:3: push.at = \"50h\": expected a push that is offered before the end",
        "s.toml:4: push.sizes = \"big\": expected a size with a unit, from 1 B to 1 TB, such as \"64 MiB\"",
        "s.toml:4: push.sizes = [...]: expected either this or packages and bytes",
        "s.toml:6: region.capacity: missing, expected a bandwidth above zero with a unit (bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s), such as \"20 Gbit/s\"",
        "s.toml:6: region = [...]: expected shares that come to 1, but these come to 0.400",
        "s.toml:12: checks.from = \"6h\": expected no time of day for hosts that look more than once a day",
        "s.toml:13: checks.needs = [...]: expected a list of the least and the most, each a number from 0 to 1, such as 0.8",
        "s.toml:15: policy.shed_from = 0.9: expected at most policy.shed_all, 0.8",
        "s.toml:17: policy.windw = \"3h\": unknown key, expected perhaps \"window\"",
    ];
    assert_eq!(mistakes, expected);
}
