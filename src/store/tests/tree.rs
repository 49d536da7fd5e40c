//! A directory origin; and polls of both kinds.

use super::*;

pub(super) fn tree(bench: &Bench) -> (Arc<Store>, std::path::PathBuf) {
    let root = bench.dir.path().join("tree");
    fs::create_dir_all(root.join("7/os")).unwrap();
    let origin = DirectoryOrigin::open(&root, Some(&bench.dir.path().join("retained"))).unwrap();
    let origin = Origin::Directory(Arc::new(origin));
    (Store::open(origin, &bench.settings(), bench.background.handle()).unwrap(), root)
}

#[test]
fn a_directory_is_served_in_place_and_nothing_outside_of_it() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    fs::write(root.join("7/os/x.rpm"), body(5000)).unwrap();
    fs::write(bench.dir.path().join("secret"), b"s").unwrap();
    symlink("../../../secret", root.join("7/os/out")).unwrap();
    symlink(bench.dir.path().join("secret"), root.join("7/os/absolute")).unwrap();
    symlink("/proc/self/fd/0", root.join("7/os/magic")).unwrap();
    symlink("nowhere", root.join("7/os/dangling")).unwrap();
    symlink("x.rpm", root.join("7/os/inside")).unwrap();
    symlink("../7", root.join("7/current")).unwrap();
    for name in [".x.rpm.Ab3dEf", ".treeinfo"] {
        fs::write(root.join("7/os").join(name), b"").unwrap();
    }
    fs::create_dir(root.join("7/os/.~tmp~")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("7/os/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("7/os/socket")).unwrap();
    for name in ["7/os/x.rpm", "7/os/inside", "7/current/os/x.rpm"] {
        let content = bench.run(store.fetch(&unlisted(name), ANY)).expect(name);
        assert_eq!(content.tier, Tier::Tree);
        assert_eq!(content.meta.length, Some(5000));
        assert!(bench.run(drain(content)).unwrap() == body(5000));
        assert!(store.peek(&unlisted(name)).is_some());
    }
    for name in ["out", "absolute", "magic", "dangling", "fifo", "socket", "none", "x.rpm/y", "x.rpm/"] {
        let object = unlisted(&format!("7/os/{name}"));
        assert!(matches!(bench.run(store.fetch(&object, ANY)), Err(FetchError::Absent)), "{name}");
    }
    assert!(matches!(bench.run(store.fetch(&unlisted("7/os"), ANY)), Err(FetchError::IsDirectory)));
    assert!(matches!(bench.run(store.fetch(&unlisted("7/os/"), ANY)), Err(FetchError::Absent)));
    let mut names: Vec<_> = bench.run(store.listing(&path("7/os/"))).unwrap().unwrap();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = names.iter().map(|e| (e.name.as_str(), e.size, e.is_directory)).collect();
    let hidden = [(".treeinfo", 0, false), (".x.rpm.Ab3dEf", 0, false), (".~tmp~", 0, true)];
    assert_eq!(names, [&hidden[..], &[("inside", 5000, false), ("x.rpm", 5000, false)]].concat());
    assert!(matches!(bench.run(store.listing(&path("8/"))), Err(FetchError::Absent)));
    assert!(matches!(bench.run(store.listing(&path("7/os/x.rpm/"))), Err(FetchError::Absent)));
    assert_eq!(bench.run(store.listing(&path(""))).unwrap().unwrap().len(), 1);
    drop(socket);
}

#[test]
fn retained_files_outlive_rsync() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    let (old, new) = (body(5000), {
        let mut b = body(5000);
        b[0] ^= 1;
        b
    });
    let [replaced, deleted, small] =
        ["replaced", "deleted", "small"].map(|name| root.join("7/os").join(name));
    fs::write(&replaced, &old).unwrap();
    fs::write(&deleted, body(6000)).unwrap();
    fs::write(&small, b"old").unwrap();
    let objects =
        [listed("7/os/replaced", &old), listed("7/os/deleted", &body(6000)), listed("7/os/small", b"old")];
    let files: Vec<_> = objects.iter().map(|o| (o.path.clone(), o.identity.unwrap())).collect();
    bench.run(store.can_link()).unwrap();
    let missing = (path("7/os/missing"), files[0].1);
    let linked = bench.run(store.retain([files.clone(), vec![missing]].concat())).unwrap();
    // The missing one's bytes are retained already, by another name.
    assert_eq!((linked.made, linked.kept, linked.failed), (3, 1, 0), "{linked:?}");
    let wrong_size = Identity { size: 1, ..objects[1].identity.unwrap() };
    let other = Identity { digest: Sha256::of(b"other").into(), size: 1 };
    let linked =
        bench.run(store.retain(vec![(path("7/os/small"), other), (path("7/os/none"), other)])).unwrap();
    assert_eq!((linked.failed, linked.first_failure.is_some()), (2, true));

    // What rsync does: a new inode by rename; an unlink.
    for (target, bytes) in [(&replaced, &new), (&small, &b"new".to_vec())] {
        let temporary = root.join("7/os/.t.abcdef");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, target).unwrap();
    }
    fs::remove_file(&deleted).unwrap();
    for (object, bytes) in objects.iter().zip([&old, &body(6000), &b"old".to_vec()]) {
        assert!(bench.drained(&store, object).unwrap() == *bytes, "{object:?}");
        assert!(bench.run(store.whole(object, MIB)).unwrap() == *bytes);
        assert!(bench.run(store.complete(object)).is_err(), "it isn't what is in place");
    }
    let current = listed("7/os/replaced", &new);
    assert!(bench.drained(&store, &current).unwrap() == new);
    let twisted = Object { identity: Some(wrong_size), ..objects[1].clone() };
    assert!(bench.run(store.fetch(&twisted, ANY)).is_err());
    // Same size, other bytes, nothing retained: found out by whoever reads it all.
    let lie = Object::listed(path("7/os/replaced"), Sha256::of(b"lie"), 5000);
    assert!(matches!(bench.run(store.complete(&lie)), Err(FetchError::Body(_))));

    let keep = HashSet::from([objects[0].identity.unwrap().digest]);
    assert_eq!(bench.run(store.sweep(keep)).unwrap(), 2);
    for object in &objects {
        bench.run(store.purge(object));
    }
    assert!(bench.drained(&store, &objects[0]).unwrap() == old);
    assert!(matches!(bench.run(store.fetch(&objects[1], ANY)), Err(FetchError::Absent)));
}

#[test]
fn polls_see_each_version_once() {
    let bench = Bench::new();
    let (store, root) = tree(&bench);
    let name = path("7/os/repomd.xml");
    let poll = |known: &PollValidators| bench.run(store.poll(&name, known)).unwrap();
    let mut known = PollValidators::default();
    assert!(matches!(poll(&known), Polled::Absent));
    for version in ["one", "two"] {
        fs::write(root.join("7/os/new"), version).unwrap();
        fs::rename(root.join("7/os/new"), root.join("7/os/repomd.xml")).unwrap();
        let Polled::Changed { body, validators, last_modified } = poll(&known) else { panic!("{version}") };
        assert_eq!(body, version);
        assert!(last_modified > Some(Timestamp::EPOCH));
        known = validators;
        assert!(matches!(poll(&known), Polled::Unchanged));
    }

    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
    let settled = "last-modified: Sun, 06 Nov 1994 08:49:30 GMT";
    let recent = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let table: [(&[&str], Option<&str>); 4] = [
        (&["etag: \"e\"", date, settled], Some("if-none-match: \"e\"")),
        (&[date, settled], Some("if-modified-since: sun, 06 nov 1994 08:49:30 gmt")),
        (&[date, recent], None),
        (&[settled], None),
    ];
    for (lines, condition) in table {
        let owned: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let stub = Stub::start(move |_, head, stream| {
            let lines: Vec<&str> = owned.iter().map(String::as_str).collect();
            let conditional = head.contains("if-none-match") || head.contains("if-modified-since");
            let status = if conditional { "304 Not Modified" } else { "200 OK" };
            send(stream, &response(status, &lines, if conditional { b"" } else { b"<repomd/>" }));
        });
        let store = bench.over(&stub.url);
        let poll = |known: &PollValidators| bench.run(store.poll(&name, known)).unwrap();
        let Polled::Changed { validators, .. } = poll(&PollValidators::default()) else {
            panic!("{lines:?}")
        };
        assert_eq!(matches!(poll(&validators), Polled::Unchanged), condition.is_some(), "{lines:?}");
        let last = stub.requests().pop().unwrap();
        assert!(last.contains("cache-control: no-cache"));
        assert!(condition.is_none_or(|condition| last.contains(condition)), "{last}");
    }
    let store = bench.over(&Stub::fixed(response("200 OK", &[], &body(MIB as usize + 1))).url);
    assert!(bench.run(store.poll(&name, &PollValidators::default())).is_err(), "bounded");
}
