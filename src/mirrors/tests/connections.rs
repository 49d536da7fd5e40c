//! How many connections and comparisons probes cost a mirror, as the mirror counts them.

use super::super::hosts::FRESH_ONE_IN;
use super::super::lanes::LANES;
use super::*;
use std::collections::HashMap;

/// Requests under way at a time: those of the lanes, and a liveness check.
const AT_ONCE: usize = LANES + 1;
/// A client that waits for a free connection opens another meanwhile, and keeps it for the next request.
const KEPT: usize = 2 * AT_ONCE;

impl TestMirror {
    /// The numbers of requests, and of those for parts, over each connection.
    fn connections(&self) -> HashMap<usize, (usize, usize)> {
        let mut connections = HashMap::new();
        for (number, _, is_part) in &self.script.lock().unwrap().over {
            let (requests, parts) = connections.entry(*number).or_insert((0, 0));
            *requests += 1;
            *parts += usize::from(*is_part);
        }
        connections
    }

    fn parts(&self) -> usize {
        self.script.lock().unwrap().over.iter().filter(|(.., is_part)| *is_part).count()
    }

    /// The files in so many repos more, all at generation 1.
    fn put_repos(&self, repos: usize, files: &Files) {
        let shown = (REPOMD.to_owned(), repomd(1).to_vec());
        for (repo, (path, body)) in
            (1..=repos).flat_map(|repo| files.iter().chain([&shown]).map(move |file| (repo, file)))
        {
            let path = format!("/{}{path}", root(repo));
            self.script.lock().unwrap().files.insert(path, body.clone().into());
        }
    }
}

fn root(repo: usize) -> String {
    format!("7/repo{repo}/x86_64/")
}

/// So many repos with these files.
fn published(repos: usize, files: &Files) -> Arc<Published> {
    let published = Node::published(first(files));
    let first = RepoView::clone(&published.repos.load().views()[0]);
    let view = |number: usize| {
        let path = TreePath::new(root(number).trim_end_matches('/')).unwrap();
        let repo = Repo { id: format!("repo{number}/7/x86_64"), path, ..Repo::clone(&first.repo) };
        Arc::new(RepoView { repo: Arc::new(repo), ..first.clone() })
    };
    published.repos.store(Arc::new(Repos::new((1..=repos).map(view).collect())));
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_spot_check_in_eight_has_a_connection_of_its_own() {
    let old = files(&["a", "b", "c"]);
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let often = Duration::from_millis(5);
    let settings = Probes { probe_every: often, probe_lagging: often, ..Node::settings() };
    let mut node = Node::start_by(settings, &[&mirror], Node::published(first(&old)), None);
    node.until(|_| mirror.parts() >= 64, |_| true).await;
    node.stop().await;
    let (connections, parts) = (mirror.connections(), mirror.parts());
    let with_parts = connections.values().filter(|(_, parts)| *parts > 0).count();
    assert!(with_parts <= parts.div_ceil(FRESH_ONE_IN) + KEPT, "{parts} parts: {connections:?}");
    let own = connections.values().filter(|(requests, parts)| (*requests, *parts) == (1, 1)).count();
    assert!(own + 2 >= parts / FRESH_ONE_IN, "a kept one sees but one server: {connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_proofs_of_many_repos_share_connections_and_compare_few_files() {
    const REPOS: usize = 12;
    let old = files(&["a", "b", "c", "d", "e", "f"]);
    let mirror = TestMirror::start().await;
    mirror.put_repos(REPOS, &old);
    let mut node = Node::start_by(Node::settings(), &[&mirror], published(REPOS, &old), None);
    node.until(|state| (0..REPOS).all(|repo| state.is_current(repo, 1)), |_| true).await;
    node.stop().await;
    let heads = mirror.asked("HEAD /7/repo");
    assert!(heads >= REPOS * old.len(), "{heads}");
    let (connections, parts) = (mirror.connections(), mirror.parts());
    // One for each repo, 16 more at once, and one more each 15 s.
    assert!((REPOS + 16..=REPOS + 18).contains(&parts), "{parts} files were compared");
    let fresh = (REPOS * old.len() + parts).div_ceil(FRESH_ONE_IN);
    assert!(connections.len() <= fresh + KEPT, "{} connections: {connections:?}", connections.len());
    let own = connections.values().filter(|(requests, _)| *requests == 1).count();
    assert!(own + 2 >= fresh, "{own} of {fresh}: {connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_and_bounces_are_checked_over_fresh_connections() {
    let (old, new) = (files(&["a"]), files(&["a", "b"]));
    let mirror = TestMirror::start().await;
    mirror.show(1);
    mirror.put_all(&old);
    let mut node = Node::start(&[&mirror], first(&old), None);
    node.until_current(1).await;
    // The requests over the connection of the last such one.
    let over = |request: &str| {
        let script = mirror.script.lock().unwrap();
        let (last, ..) = script.over.iter().rfind(|(_, asked, _)| asked == request).unwrap();
        script.over.iter().filter(|(number, ..)| number == last).count()
    };
    let head = |name: &str| format!("HEAD /{ROOT}Packages/{name}.rpm");
    mirror.show(2);
    mirror.put_all(&new);
    node.flip(&new);
    node.until_current(2).await;
    assert_eq!((mirror.asked(&head("b")), over(&head("b"))), (1, 1), "the first file of a push");

    // In turn, one in eight would be fresh anyway; two in a row are not.
    for bounce in 1..=2 {
        let path = format!("{ROOT}Packages/a.rpm");
        let asked = mirror.asked(&head("a"));
        node.bounces.send(BounceReport { mirror: 0, path: Some(path), network: None }).await.unwrap();
        node.until(|_| mirror.asked(&head("a")) > asked, |_| true).await;
        assert_eq!(over(&head("a")), 1, "bounce {bounce}");
    }
    node.stop().await;
}
