//! What operators see of a node: every query of the Grafana dashboard and every rule has an answer in a real Prometheus.

use super::support::client::{self, Connection};
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{Port, config, scratch, wait_for, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A Prometheus that is killed when this is dropped.
struct Prometheus {
    child: Child,
    port: Port,
}

impl Prometheus {
    fn start(dir: &Path, node: SocketAddr) -> Self {
        let port = Port::reserve();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/freshet.rules.yml");
        let text = format!(
            "global:\n  scrape_interval: 250ms\n  evaluation_interval: 250ms\nrule_files: [{}]\nscrape_configs:\n\
             - job_name: freshet\n  static_configs:\n  - targets: [\"{node}\"]\n",
            rules.display()
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, text).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={}", port.addr()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's prometheus");
        let started = Self { child, port };
        wait_until("Prometheus to be ready", || {
            let Ok(mut connection) = Connection::open(started.port.addr()) else { return false };
            connection.request("GET", "/-/ready", &[]).is_ok_and(|response| response.status == 200)
        });
        started
    }

    fn api(&self, path: &str) -> Value {
        let answer = client::get(self.port.addr(), path).text();
        let value: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(value["status"], "success", "{path}: {value}");
        value["data"].clone()
    }

    /// How many series answer the query.
    fn series(&self, query: &str) -> usize {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.api(&format!("/api/v1/query?query={encoded}"))["result"].as_array().map_or(0, Vec::len)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every query of the dashboard, as Grafana would send it.
fn queries() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/freshet.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let filled = |target: &Value| {
        let query = target["expr"].as_str().expect("a query");
        query.replace("$__rate_interval", "1m").replace("$job", ".+").replace("$instance", ".+")
    };
    targets.chain(annotations).map(filled).collect()
}

#[test]
fn every_query_and_rule_has_an_answer() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    tree.date_now();
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let push_scope = config::updates("24h").replace("window =", "window_scope = \"push\"\nwindow =");
    let text =
        ["egress.capacity = \"1 Gbit/s\"\n", config::BRISK, &push_scope, &config::mirror("m", &mirror)]
            .concat();
    let node = Node::start(&config::cached(&origin, &text));
    node.wait_ready();
    let prometheus = Prometheus::start(dir.path(), node.admin());
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);

    // The queries that have no answer yet, while clients come: dnf's way, one of them back from the mirror each time.
    let mut unanswered: BTreeSet<_> = queries().into_iter().collect();
    assert!(unanswered.len() > 20, "{unanswered:#?}");
    let (mut round, mut pushed) = (0, false);
    wait_for("an answer to each query", || {
        round += 1;
        for path in ["repodata/repomd.xml".to_owned(), repo::rpm(round % repo::PACKAGES, Push::First)] {
            for _ in 0..2 {
                let mut connection = Connection::open(node.http()).unwrap();
                let agent = format!("libdnf {round}");
                connection.request("GET", &format!("/{REPO}/{path}"), &[("User-Agent", &agent)]).unwrap();
            }
        }
        if !pushed && prometheus.series("freshet_generation_sequence == 1") > 0 {
            pushed = true;
            let next = Tree::link(Push::Second, &dir.path().join("next"));
            next.date_now();
            origin.switch(next.root());
        }
        unanswered.retain(|query| prometheus.series(query) == 0);
        unanswered.is_empty().then_some(())
    });

    // Each was evaluated, without an error.
    let rules = wait_for("all rules to be healthy", || {
        let rules = prometheus.api("/api/v1/rules");
        let groups = rules["groups"].as_array()?.clone();
        let healthy = |group: &Value| {
            group["rules"].as_array().is_some_and(|rules| rules.iter().all(|rule| rule["health"] == "ok"))
        };
        groups.iter().all(healthy).then_some(rules)
    });
    let rules: Vec<_> = rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    for rule in &rules {
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().unwrap();
            wait_until(name, || prometheus.series(name) > 0);
        }
    }
    assert!(rules.len() > 10);
}
