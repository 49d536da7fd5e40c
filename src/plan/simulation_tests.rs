use super::*;
use std::path::Path;

/// Hosts that ask at any time of a day, packages of one size, one region.
const PLAIN: &str = "
[push]
sizes = [\"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\", \"5 MB\"]
metadata = \"10 MB\"
[[checks]]
name = \"dnf\"
needs = [1, 1]
";

fn play(text: &str, sample: usize) -> Outcome {
    let (scenario, _) = Scenario::parse(&format!("{PLAIN}{text}"), Path::new("s.toml")).unwrap();
    simulate(&scenario, sample)
}

fn sum(outcome: &Outcome, of: fn(&super::super::RegionOutcome) -> f64) -> f64 {
    outcome.regions.iter().map(of).sum()
}

fn region(capacity: &str) -> String {
    format!("[[region]]\nname = \"all\"\ncapacity = \"{capacity}\"\n")
}

/// What all hosts together need: 50 MB of packages, 10 MB of metadata, repomd.xml.
const NEEDED: f64 = 1e6 * (60e6 + 4096.0);

#[test]
fn what_the_nodes_own_they_deliver() {
    let outcome = play(&format!("{}[policy]\ndelivery = \"own\"", region("20 Gbit/s")), 5000);
    let served = sum(&outcome, |region| region.served);
    assert!((served / NEEDED - 1.0).abs() < 0.01, "{served}");
    assert_eq!((outcome.redirected_share(), outcome.mirrors_share()), (0.0, 0.0));
    // Hosts ask once a day: half of them within 12 h.
    let hours = outcome.updated.p50.unwrap() / 3600.0;
    assert!((11.5..12.5).contains(&hours), "{hours}");
    // 60 TB in a day, with heads, are 5.8 Gbit/s in the mean.
    let egress: f64 =
        outcome.points.iter().take(120).map(|point| point.regions[0].egress).sum::<f64>() / 120.0;
    assert!((5.5e9..6.1e9).contains(&egress), "{egress}");
}

#[test]
fn outside_of_a_window_mirrors_take_it() {
    let rest = "[sync]\nmeasured = [\"1s\"]\n[policy]\ndelivery = \"offload\"\n";
    let direct = play(&format!("{}{rest}", region("20 Gbit/s")), 5000);
    assert!(direct.mirrors_share() > 0.99 && direct.redirected_share() == 0.0, "the list names mirrors");
    let by_redirect = play(&format!("{}{rest}outside_window = \"own-first\"", region("20 Gbit/s")), 5000);
    // But for repomd.xml, and what is held back at first.
    assert!((0.7..0.95).contains(&by_redirect.redirected_share()), "{}", by_redirect.redirected_share());
    assert!(by_redirect.reasons.iter().any(|(reason, _)| *reason == "slow-start"));
}

#[test]
fn under_load_the_thresholds_hold_and_mirrors_take_the_rest() {
    let outcome = play(&format!("{}[sync]\nmeasured = [\"1s\"]\n", region("3 Gbit/s")), 20_000);
    let early: Vec<f64> =
        outcome.points.iter().take(110).skip(5).map(|point| point.regions[0].egress / 3e9).collect();
    let mean = early.iter().sum::<f64>() / early.len() as f64;
    assert!((0.8..0.95).contains(&mean), "{mean}");
    assert!(early.iter().all(|pressure| *pressure <= 1.0), "{early:?}");
    let all = sum(&outcome, |region| region.served + region.redirected + region.direct);
    assert!((all / NEEDED - 1.0).abs() < 0.01, "{all}");
    assert!(outcome.regions[0].short_for == 0.0);
}

#[test]
fn without_mirrors_all_are_slowed_and_none_is_lost() {
    let text = format!(
        "lasts = \"72h\"\n{PLAIN}{}[policy]\nwindow = \"60h\"\n[[mirrors]]\ncount = 0",
        region("3 Gbit/s")
    );
    let (scenario, _) = Scenario::parse(&text, Path::new("s.toml")).unwrap();
    let outcome = simulate(&scenario, 5000);
    let region = &outcome.regions[0];
    assert!(region.peak <= 3e9 * 1.001 && region.peak > 2.9e9, "{}", region.peak);
    assert!((region.served / NEEDED - 1.0).abs() < 0.01);
    // 5.8 Gbit/s for a day over 3 take two days, so the last wait for nearly one.
    assert!(outcome.longest > 10.0 * 3600.0, "{}", outcome.longest);
    assert!(region.short_for > 20.0 * 3600.0);
    assert!(outcome.updated.p95.is_some() && outcome.by_mirrors_alone.p50.is_none());
}

#[test]
fn an_old_list_leads_to_old_mirrors() {
    let kind = |list: &str| {
        let text = PLAIN.replace("needs", &format!("every = \"6h\"\nlist = \"{list}\"\nneeds"));
        let text = format!("{text}{}[sync]\nmeasured = [\"5h\"]", region("100 Gbit/s"));
        let (scenario, _) = Scenario::parse(&text, Path::new("s.toml")).unwrap();
        simulate(&scenario, 5000)
    };
    let (fresh, old) = (kind("0s"), kind("24h"));
    assert_eq!(fresh.mirrors_share(), 0.0, "all learn of the window");
    // Three of four have a list of mirrors, which hold it after 5 h of the 6 until the next look.
    assert!((0.55..0.75).contains(&old.mirrors_share()), "{}", old.mirrors_share());
    assert!(old.updated.p50 > fresh.updated.p50);
    assert!((fresh.updated.p50.unwrap() / 3600.0 - 3.0).abs() < 0.3);
}

#[test]
fn how_many_are_played_makes_little_difference() {
    let of = |hosts: u64, gbit: u64, sample| {
        let text = format!("hosts = {hosts}\n{PLAIN}{}", region(&format!("{gbit} Gbit/s")));
        let mirrors = "[[mirrors]]\ncount = 300\nbandwidth = \"100 Gbit/s\"";
        let (scenario, _) = Scenario::parse(&format!("{text}{mirrors}"), Path::new("s.toml")).unwrap();
        simulate(&scenario, sample)
    };
    let few = of(1_000_000, 4, 4000);
    let share = few.redirected_share();
    assert!(share > 0.1, "{share}");
    for (name, other) in
        [("more played", of(1_000_000, 4, 40_000)), ("ten times as many", of(10_000_000, 40, 20_000))]
    {
        let (a, b) = (other.redirected_share(), other.updated.p80.unwrap() / few.updated.p80.unwrap());
        assert!((a / share - 1.0).abs() < 0.06, "{name}: {a} for {share}");
        assert!((b - 1.0).abs() < 0.02, "{name}: {b}");
    }
}

#[test]
fn one_scenario_has_one_outcome() {
    let (a, b) = (play("", 1000), play("", 1000));
    assert_eq!(a, b);
    assert_eq!(a.points.len(), POINTS as usize);
}

#[test]
fn installs_go_on_before_and_after() {
    let text = format!(
        "{PLAIN}{}[installs]\nper_hour = 36000\n[policy]\noutside_window = \"own-first\"",
        region("20 Gbit/s")
    );
    let text = text.replace("[push]", "[push]\nat = \"12h\"");
    let (scenario, _) = Scenario::parse(&text, Path::new("s.toml")).unwrap();
    let outcome = simulate(&scenario, 20_000);
    let before = &outcome.points[50].regions[0];
    assert!(before.redirected > before.egress, "outside of a window mirrors take packages: {before:?}");
    // 10 a second of 40 MB are 3.3 Gbit/s.
    let rate = (before.egress + before.redirected) / 1e9;
    assert!((2.6..4.2).contains(&rate), "{rate}");
    let window = &outcome.points[150].regions[0];
    assert!(window.redirected < window.egress, "{window:?}");
}
