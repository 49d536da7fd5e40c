//! What holds a push, what doesn't, and what is asked of the origin meanwhile.

use super::*;

const ROOT: &str = "7/updates";

/// The node of one repo, which has offered a first generation of package `a`.
async fn offering(dir: &TempDir, tree: &Arc<Tree>) -> (Server, Node, Files) {
    offering_with(dir, tree, |_| {}, crate::push::gate::TRUSTED).await
}

/// The same with settings that `change` has made, and where what was seen longer ago than `trusted` can be in doubt.
async fn offering_with(
    dir: &TempDir,
    tree: &Arc<Tree>,
    change: impl FnOnce(&mut Config),
    trusted: Duration,
) -> (Server, Node, Files) {
    let server = Server::start(tree).await;
    let first = repo(&[("a", "one")]);
    tree.put(ROOT, &first);
    let mut config = Node::config(dir.path(), &url(&server), &updates(""));
    change(&mut config);
    let mut node = Node::start_trusting(dir.path(), config, trusted).await;
    node.offered(1).await;
    (server, node, first)
}

impl Node {
    async fn held(&mut self) -> Held {
        let held = |event: &Event| match event {
            Event::Held { held, .. } => Some(held.clone()),
            _ => None,
        };
        self.event(held).await
    }

    /// The file that holds a push; None: a push is offered.
    async fn held_or_offered(&mut self) -> Option<String> {
        let outcome = |event: &Event| match event {
            Event::Held { held, .. } => Some(Some(held.file.clone())),
            Event::Offered { .. } => Some(None),
            _ => None,
        };
        self.event(outcome).await
    }

    /// Waits for an attempt that ends at this file, by its name.
    async fn failed_at(&mut self, name: &str) {
        while !self.failure().await.contains(name) {}
    }

    fn without(&self) -> Vec<String> {
        self.handle.states()[0].without.clone()
    }
}

/// `files` with a list of these drpms, which are there, too.
fn with_drpms(mut files: Files, drpms: &[&str]) -> Files {
    let mut list = "<prestodelta><newpackage name=\"a\">".to_owned();
    for name in drpms {
        let sum = Sha256::of(name.as_bytes());
        list += &format!(
            "<delta><filename>drpms/{name}.drpm</filename><size>{}</size>\
             <checksum type=\"sha256\">{sum}</checksum></delta>",
            name.len()
        );
        files.insert(format!("drpms/{name}.drpm"), Bytes::from((*name).to_owned()));
    }
    with_record(files, "prestodelta", (list + "</newpackage></prestodelta>").into())
}

/// `files` with one record more, whose file has these bytes.
fn with_record(mut files: Files, kind: &str, bytes: Bytes) -> Files {
    let sum = Sha256::of(&bytes);
    let path = format!("repodata/{sum}-{kind}.xml");
    let record = format!(
        "<data type=\"{kind}\"><checksum type=\"sha256\">{sum}</checksum><location href=\"{path}\"/>\
         <size>{}</size></data></repomd>",
        bytes.len()
    );
    let repomd = String::from_utf8(files["repodata/repomd.xml"].to_vec()).unwrap();
    files.insert("repodata/repomd.xml".to_owned(), repomd.replace("</repomd>", &record).into());
    files.insert(path, bytes);
    files
}

#[tokio::test]
async fn each_file_that_is_wrong_holds_a_push_until_it_is_right() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, mut old) = offering(&dir, &tree).await;
    // (what is wrong, what it says)
    let cases: [(Spoil, &str); 6] = [
        (|files| drop(files.remove("Packages/b.rpm")), "Packages/b.rpm: the origin has no such file"),
        (|files| drop(files.insert("Packages/b.rpm".into(), "brown1".into())), "SHA-256 is"),
        (
            |files| drop(files.insert("Packages/b.rpm".into(), "bread and more".into())),
            "promises 14 bytes where 6 are listed",
        ),
        (
            |files| drop(files.insert("Packages/b.rpm".into(), "bre".into())),
            "promises 3 bytes where 6 are listed",
        ),
        (
            |files| drop(files.remove(&metadata(files, "filelists"))),
            "filelists.xml.gz: the origin has no such file",
        ),
        (
            |files| drop(files.insert(metadata(files, "filelists"), "<html>".into())),
            "filelists.xml.gz: the origin promises 6 bytes",
        ),
    ];
    for (at, (spoil, words)) in cases.into_iter().enumerate() {
        let good = repo(&[("a", &format!("content {at}")), ("b", &format!("bread{at}"))]);
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        *tree.files.lock().unwrap() = Files::new();
        tree.put(ROOT, &spoilt);
        let held = node.held().await;
        assert!(held.to_string().contains(words), "{words}: {held}");
        assert_eq!((held.generation, held.files), (id(&good), 1));
        // For longer than an origin gets to finish a push.
        for _ in 0..6 {
            assert_eq!(node.held().await, held);
        }
        assert_eq!(node.current(0), Some(id(&old)), "{words}");
        assert_eq!(node.handle.shared.metrics.push_held.with_label_values(&["updates"]).get(), 1);
        assert_eq!(node.handle.states()[0].held.as_ref().map(|(held, _)| held), Some(&held));
        tree.put(ROOT, &good);
        node.offered(2 * u32::try_from(at).unwrap() + 2).await;
        assert_eq!(node.current(0), Some(id(&good)), "{words}");
        let state = &node.handle.states()[0];
        assert!(state.held.is_none() && state.last_error.is_none(), "{state:?}");
        assert_eq!(node.handle.shared.metrics.push_held.with_label_values(&["updates"]).get(), 0);
        // So that `b` is new in the next push.
        old = repo(&[("a", &format!("content {at}"))]);
        tree.put(ROOT, &old);
        node.offered(2 * u32::try_from(at).unwrap() + 3).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn what_was_found_out_is_not_asked_again() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, _) = offering(&dir, &tree).await;
    let path = |name: &str| format!("{ROOT}/Packages/{name}.rpm");
    let good = repo(&[("b", "b"), ("c", "c"), ("d", "d")]);
    let mut spoilt = good.clone();
    spoilt.remove("Packages/c.rpm");
    tree.put(ROOT, &spoilt);
    for _ in 0..5 {
        assert_eq!(node.held().await.file, path("c"));
    }
    assert_eq!((tree.count(&Method::HEAD, &path("b")), tree.count(&Method::HEAD, &path("d"))), (1, 1));
    assert!(tree.count(&Method::HEAD, &path("c")) >= 2 && tree.count(&Method::GET, &path("c")) >= 2);

    // Another push takes its place, and what it has in common with it isn't asked for either.
    let newer = repo(&[("b", "b"), ("d", "d"), ("e", "e")]);
    tree.put(ROOT, &newer);
    node.offered(2).await;
    assert_eq!(node.current(0), Some(id(&newer)));
    assert_eq!((tree.count(&Method::HEAD, &path("b")), tree.count(&Method::GET, &path("b"))), (1, 1));
    assert!(node.handle.states()[0].held.is_none());
    node.stop().await;
}

#[tokio::test]
async fn what_was_seen_before_a_hold_or_another_state_of_the_origin_is_seen_again() {
    let path = |name: &str| format!("{ROOT}/Packages/{name}.rpm");
    for case in ["a hold", "what is on offer", "another push"] {
        let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
        // So that `c` is read, and `seen` isn't.
        let warm = |config: &mut Config| config.push.warm = 1;
        let (_server, mut node, first) = offering_with(&dir, &tree, warm, Duration::ZERO).await;
        let mut push = repo(&[("c", "c"), ("seen", "is too long to be read")]);
        if case == "a hold" {
            let c = push.remove("Packages/c.rpm").unwrap();
            tree.put(ROOT, &push);
            // All are looked at, whatever is wrong with one of them.
            for _ in 0..4 {
                assert_eq!(node.held().await.file, path("c"));
            }
            tree.files.lock().unwrap().remove(&path("seen"));
            push = Files::from([("Packages/c.rpm".to_owned(), c)]);
        } else {
            // Seen, both of them: then it can't be read.
            tree.statuses.lock().unwrap().insert(format!("GET {}", path("c")), 503);
            tree.put(ROOT, &push);
            node.failed_at("Packages/c.rpm").await;
            if case == "what is on offer" {
                tree.put(ROOT, &first);
                until(|| node.handle.states()[0].last_error.is_none()).await;
            } else {
                push = repo(&[("d", "d"), ("seen", "is too long to be read")]);
            }
            tree.files.lock().unwrap().remove(&path("seen"));
            push.remove("Packages/seen.rpm");
        }
        tree.put(ROOT, &push);
        tree.statuses.lock().unwrap().clear();
        let held = loop {
            let outcome = node.held_or_offered().await;
            if outcome != Some(path("c")) {
                break outcome;
            }
        };
        assert_eq!(held, Some(path("seen")), "{case}");
        tree.put(ROOT, &repo(&[("seen", "is too long to be read")]));
        node.offered(2).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_hold_for_wrong_bytes_reads_one_wrong_file_at_each_poll() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let one_by_one = |config: &mut Config| config.push.warm_parallel = 1;
    let (_server, mut node, _) = offering_with(&dir, &tree, one_by_one, crate::push::gate::TRUSTED).await;
    let names = ["b", "c", "d", "e", "f", "g"];
    let good = repo(&names.map(|name| (name, "right")));
    let mut spoilt = good.clone();
    let paths = names.map(|name| format!("Packages/{name}.rpm"));
    spoilt.extend(paths.clone().map(|path| (path, Bytes::from("wrong"))));
    tree.put(ROOT, &spoilt);
    let count = |method: &Method, path: &str| tree.count(method, &format!("{ROOT}/{path}"));
    // It is looked at at each poll.
    let polls = || count(&Method::HEAD, &paths[0]);
    while polls() < 20 {
        assert!(node.held().await.fault.contains("SHA-256"));
    }
    let (polls, reads) = (polls(), paths.iter().map(|path| count(&Method::GET, path)).sum::<usize>());
    assert!(reads <= names.len() + polls, "{reads} reads in {polls} polls");
    tree.put(ROOT, &good);
    node.offered(2).await;
    node.stop().await;
}

#[tokio::test]
async fn a_file_that_can_be_seen_and_never_read_holds_a_push_in_time() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let brief = |config: &mut Config| config.push.warm_for = Duration::from_millis(300);
    let (_server, mut node, first) = offering_with(&dir, &tree, brief, crate::push::gate::TRUSTED).await;
    let path = format!("{ROOT}/Packages/b.rpm");
    tree.statuses.lock().unwrap().insert(format!("GET {path}"), 503);
    tree.put(ROOT, &repo(&[("b", "b")]));
    let told = |event: &Event| match event {
        Event::Failed { error, .. } => Some(error.clone()),
        Event::Held { .. } => Some("held".to_owned()),
        _ => None,
    };
    let first_told = node.event(told).await;
    assert!(first_told.contains("Packages/b.rpm"), "not at once: {first_told}");
    let held = node.held().await;
    assert_eq!((held.file, held.files), (path, 1));
    assert_eq!(node.current(0), Some(id(&first)));
    tree.statuses.lock().unwrap().clear();
    node.offered(2).await;
    assert!(node.handle.states()[0].held.is_none());
    node.stop().await;
}

#[tokio::test]
async fn an_origin_in_trouble_fails_an_attempt_and_holds_nothing() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, first) = offering(&dir, &tree).await;
    let path = format!("{ROOT}/Packages/b.rpm");
    tree.statuses.lock().unwrap().insert(path.clone(), 503);
    tree.put(ROOT, &repo(&[("b", "b")]));
    for _ in 0..5 {
        let failure = node.failure().await;
        assert!(failure.contains("Packages/b.rpm: the origin"), "{failure}");
    }
    assert_eq!(node.current(0), Some(id(&first)));
    assert!(node.handle.states()[0].held.is_none());
    tree.statuses.lock().unwrap().clear();
    node.offered(2).await;
    node.stop().await;
}

#[tokio::test]
async fn a_hold_ends_when_the_origin_takes_the_push_back() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, first) = offering(&dir, &tree).await;
    let mut spoilt = repo(&[("b", "b")]);
    spoilt.remove("Packages/b.rpm");
    tree.put(ROOT, &spoilt);
    node.held().await;
    tree.put(ROOT, &first);
    until(|| node.handle.states()[0].held.is_none()).await;
    assert_eq!(node.handle.shared.metrics.push_held.with_label_values(&["updates"]).get(), 0);
    node.stop().await;
}

#[tokio::test]
async fn what_a_push_removes_is_leaving_from_when_its_metadata_are_read_to_its_end() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, first) = offering(&dir, &tree).await;
    let is_leaving = |node: &Node| {
        let view = node.view(0);
        view.is_leaving("Packages/a.rpm", &view.history.find("Packages/a.rpm").unwrap())
    };
    assert!(!is_leaving(&node));
    let mut spoilt = repo(&[("b", "b")]);
    spoilt.remove("Packages/b.rpm");
    tree.put(ROOT, &spoilt);
    node.held().await;
    assert!(is_leaving(&node), "mirrors may follow the origin already");
    // The origin takes the push back.
    tree.put(ROOT, &first);
    until(|| !is_leaving(&node)).await;
    // One that keeps it.
    tree.put(ROOT, &repo(&[("a", "one"), ("c", "c")]));
    node.offered(2).await;
    assert!(!is_leaving(&node) && node.view(0).coming.is_none());
    node.stop().await;
}

#[tokio::test]
async fn drpms_that_are_wrong_are_left_out() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, _) = offering(&dir, &tree).await;
    let mut files = with_drpms(repo(&[("b", "b")]), &["right", "absent", "wrong"]);
    files.remove("drpms/absent.drpm");
    files.insert("drpms/wrong.drpm".into(), "wrnog".into());
    tree.put(ROOT, &files);
    node.offered(2).await;
    let listed = |name: &str| node.view(0).history.current().unwrap().catalogue.find(name).is_some();
    assert!(listed("drpms/right.drpm") && listed("Packages/b.rpm"));
    assert!(!listed("drpms/absent.drpm") && !listed("drpms/wrong.drpm"));
    let words = "drpms/absent.drpm: the origin has no such file (and 1 other files)";
    assert_eq!(node.without(), [words]);
    node.stop().await;
}

#[tokio::test]
async fn a_list_of_drpms_that_can_not_be_read_is_left_out() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, _) = offering(&dir, &tree).await;
    let doctype = "<!DOCTYPE x [<!ENTITY a \"b\">]><prestodelta></prestodelta>";
    for (at, list) in ["", "<prestodelta><newpackage", doctype, "no XML"].into_iter().enumerate() {
        let files = repo(&[("b", &at.to_string())]);
        tree.put(ROOT, &with_record(files, "prestodelta", list.into()));
        node.offered(u32::try_from(at).unwrap() + 2).await;
        let without = node.without();
        assert!(without.len() == 1 && without[0].starts_with("drpms: "), "{list}: {without:?}");
    }
    // One that is listed and stays away is waited for, but not for ever.
    let mut files = with_record(repo(&[("b", "last")]), "prestodelta", "<prestodelta/>".into());
    files.remove(&metadata(&files, "prestodelta"));
    tree.put(ROOT, &files);
    assert!(node.failure().await.contains("prestodelta"));
    node.offered(6).await;
    node.stop().await;
}

#[tokio::test]
async fn a_signature_that_the_origin_does_not_have_holds_nothing_however_it_says_so() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, _) = offering(&dir, &tree).await;
    let signature = format!("{ROOT}/repodata/repomd.xml.asc");
    let mut sequence = 1;
    for status in [400, 401, 403, 404, 405, 451, 500, 503, 302] {
        let names = ["asc", "key"].map(|end| format!("{ROOT}/repodata/repomd.xml.{end}"));
        tree.statuses.lock().unwrap().extend(names.map(|name| (name, status)));
        tree.put(ROOT, &repo(&[("b", &status.to_string())]));
        sequence += 1;
        node.offered(sequence).await;
    }
    tree.statuses.lock().unwrap().clear();
    for page in ["<html>not found</html>".to_owned(), format!("<html>{}", "x".repeat(2 << 20))] {
        tree.put("7", &Files::from([(signature["7/".len()..].to_owned(), page.clone().into())]));
        tree.put(ROOT, &repo(&[("b", &page.len().to_string())]));
        sequence += 1;
        node.offered(sequence).await;
        assert!(node.view(0).history.current().unwrap().pinned("repodata/repomd.xml.asc").is_none());
        assert!(node.without()[0].starts_with("repodata/repomd.xml.asc: "), "{:?}", node.without());
    }
    // It isn't taken later either, and a signature is.
    until(|| tree.count(&Method::GET, &signature) > 20).await;
    assert!(node.handle.states()[0].last_error.is_none());
    assert!(node.view(0).history.current().unwrap().pinned("repodata/repomd.xml.asc").is_none());
    tree.put(ROOT, &Files::from([("repodata/repomd.xml.asc".to_owned(), SIGNATURES[0].into())]));
    until(|| node.view(0).history.current().unwrap().pinned("repodata/repomd.xml.asc").is_some()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_signature_that_comes_before_its_repomd_waits_for_it() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let signed = |files: Files, by: &'static str| {
        let signature = ("repodata/repomd.xml.asc".to_owned(), by.into());
        files.into_iter().chain([signature]).collect::<Files>()
    };
    tree.put(ROOT, &signed(repo(&[("a", "one")]), SIGNATURES[0]));
    // Polls are those that the test asks for.
    let mut config = Node::config(dir.path(), &url(&server), &updates(""));
    config.push.poll = Duration::from_secs(3600);
    let mut node = Node::start_with(dir.path(), config).await;
    node.offered(1).await;
    let taken = |node: &Node| {
        let view = node.view(0);
        let current = view.history.current().unwrap();
        (current.sequence, current.pinned("repodata/repomd.xml.asc").map(|pinned| pinned.body.clone()))
    };
    assert_eq!(taken(&node), (1, Some(SIGNATURES[0].into())));
    // Signatures first, as some tools upload them.
    tree.put(ROOT, &Files::from([("repodata/repomd.xml.asc".to_owned(), SIGNATURES[1].into())]));
    let asked = || tree.count(&Method::GET, &format!("{ROOT}/repodata/repomd.xml.asc"));
    let before = asked();
    until(|| {
        node.handle.poll_now(None);
        asked() > before + 5
    })
    .await;
    // The looks but the last are over.
    assert_eq!(taken(&node), (1, Some(SIGNATURES[0].into())), "it is not that of the repomd.xml on offer");
    tree.put(ROOT, &repo(&[("a", "two")]));
    node.handle.poll_now(None);
    node.offered(2).await;
    assert_eq!(taken(&node), (2, Some(SIGNATURES[1].into())));
    node.stop().await;
}

#[tokio::test]
async fn a_first_generation_is_offered_and_looked_at_behind() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let server = Server::start(&tree).await;
    let mut files = repo(&[("a", "a"), ("b", "b")]);
    files.remove("Packages/b.rpm");
    tree.put(ROOT, &files);
    let mut node = Node::start(dir.path(), &url(&server), &updates("")).await;
    node.offered(1).await;
    until(|| !node.handle.states()[0].faults.is_empty()).await;
    let faults = node.handle.states()[0].faults.clone();
    let path = format!("{ROOT}/Packages/b.rpm");
    assert_eq!(faults.into_iter().collect::<Vec<_>>(), [(path, "the origin has no such file".to_owned())]);
    tree.put(ROOT, &repo(&[("c", "c")]));
    node.offered(2).await;
    assert!(node.handle.states()[0].faults.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn what_the_operator_wants_offered_is_offered() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, mut node, _) = offering(&dir, &tree).await;
    let mut spoilt = repo(&[("a", "one"), ("b", "b"), ("c", "wrong")]);
    spoilt.remove("Packages/b.rpm");
    spoilt.insert("Packages/c.rpm".into(), "wrnog".into());
    tree.put(ROOT, &spoilt);
    let held = node.held().await;
    assert!(held.file.ends_with("b.rpm"), "{held}");
    assert!(node.handle.order(Some("none"), Faults::Ignore).is_empty());
    let orders = node.handle.order(Some("updates"), Faults::Ignore);
    assert_eq!(orders, [("updates".to_owned(), 1)]);
    node.offered(2).await;
    until(|| node.handle.states()[0].answered == 1 && node.handle.states()[0].faults.len() == 2).await;
    // It was meant for this push.
    let mut next = repo(&[("a", "two")]);
    next.remove("Packages/a.rpm");
    tree.files.lock().unwrap().remove(&format!("{ROOT}/Packages/a.rpm"));
    tree.put(ROOT, &next);
    assert!(node.held().await.file.ends_with("a.rpm"));
    node.stop().await;
}

#[tokio::test]
async fn many_files_are_seen_side_by_side() {
    let (dir, tree) = (TempDir::new().unwrap(), Arc::<Tree>::default());
    let (_server, node, _) = offering(&dir, &tree).await;
    *tree.latency.lock().unwrap() = Duration::from_millis(20);
    let files = if std::env::var_os("FRESHET_FULL").is_some() { 5000 } else { 500 };
    let names: Vec<String> = (0..files).map(|number| format!("p{number}")).collect();
    let packages: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let start = clock::monotonic();
    tree.put(ROOT, &repo(&packages));
    until(|| matches!(node.handle.states()[0].step, Step::Warming { .. })).await;
    println!("{files} files seen in {:?}", clock::monotonic() - start);
    let most = tree.most_heads.load(Ordering::Relaxed);
    assert!((16..=SIGHTS).contains(&most), "{most} at a time");
    let heads = tree.asked.lock().unwrap().iter().filter(|(method, _)| method == Method::HEAD).count();
    assert!(heads <= files + 10, "{heads}");
    node.stop().await;
}
