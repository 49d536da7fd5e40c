//! The disk tier over a file system that forgets, and what earlier versions have left.

mod crash;
mod model;

use super::*;
use crate::http::TreePath;
use std::fs;
use std::os::unix::fs::FileExt;

#[test]
fn an_entry_of_a_node_without_other_digests_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), "http://127.0.0.1:48113/".to_owned()).unwrap();
    let body = b"second";
    let path = TreePath::new("up/Packages/b.rpm").unwrap();
    let object = Object::listed(path, Sha256::of(body), body.len() as u64);
    let entry = disk.entry_path(&object);
    assert!(entry.ends_with("76/5bbd63f95cb7f13c18edecee1e0a5ca87c3ea68adf4e043643f553626f7907"));
    fs::write(&entry, include_bytes!("testdata/entry.v2")).unwrap();
    let Look::Found(found) = disk.look(&object, Trust::Epoch).unwrap() else { panic!("it is there") };
    assert_eq!(
        (found.meta.sha256, found.meta.listed),
        (Some(Sha256::of(body)), Some(Sha256::of(body).into()))
    );
    let mut read = [0; 6];
    found.file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, body);
}
