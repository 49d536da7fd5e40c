//! Files outside of repos, known by a list of checksums that lies beside them: sent to mirrors on proof, as packages are.

use super::support::client::Connection;
use super::support::config;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::scratch;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use std::fs;
use std::path::Path;

const ISOS: &str = "9/isos/x86_64";
const REPO: &str =
    "[[repo]]\nname = \"isos\"\npath = \"9/isos/x86_64\"\nchecksums = \"CHECKSUM\"\ndelivery = \"offload\"\n";

/// Writes images and their list.
fn publish(tree: &Path, images: &[(&str, &str)]) {
    fs::create_dir_all(tree.join(ISOS)).unwrap();
    for (name, body) in images {
        fs::write(tree.join(ISOS).join(name), body).unwrap();
    }
    publish_list(tree, images);
}

fn publish_list(tree: &Path, images: &[(&str, &str)]) {
    let folder = tree.join(ISOS);
    let mut list = String::from("# made for a test\n");
    for (name, body) in images {
        let sum = digest(&SHA256, body.as_bytes());
        list += &format!("SHA256 ({name}) = {}\n", data_encoding::HEXLOWER.encode(sum.as_ref()));
    }
    fs::write(folder.join(".new"), list).unwrap();
    fs::rename(folder.join(".new"), folder.join("CHECKSUM")).unwrap();
}

/// Where a client of its own is sent for a file; what it gets instead.
fn asked(node: &Node, file: &str, client: &str) -> Result<String, Vec<u8>> {
    let mut connection = Connection::open(node.http()).unwrap();
    let response = connection.request("GET", &format!("/{ISOS}/{file}"), &[("User-Agent", client)]).unwrap();
    match response.header("location") {
        Some(location) => Ok(location.to_owned()),
        None => Err(response.body),
    }
}

#[test]
fn images_go_to_mirrors_that_are_proven_to_hold_them() {
    let dir = scratch();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    let first = [("one.iso", "the first image"), ("two.iso", "the second")];
    publish(&tree, &first);
    publish(&copy, &first);
    let (origin, mirror) = (Origin::serve(&tree), Origin::serve(&copy));
    let node =
        Node::start(&config::cached(&origin, &[config::BRISK, REPO, &config::mirror("m", &mirror)].concat()));
    node.wait_ready();
    let holding = |status: &Value| status["mirrors"][0]["repos"][0].clone();
    node.wait_status("the mirror is fresh", |status| holding(status)["fresh"] == true);
    assert_eq!(asked(&node, "one.iso", "a"), Ok(format!("{}{ISOS}/one.iso", mirror.url())));
    let list = fs::read(tree.join(ISOS).join("CHECKSUM")).unwrap();
    assert_eq!(asked(&node, "CHECKSUM", "a"), Err(list), "the list itself is the node's");
    assert_eq!(node.get("/mirrorlist?repo=isos").status, 400);

    // A push: one image is another now, of the same name, and one is new.
    let second =
        [("one.iso", "the first image"), ("two.iso", "the second, anew"), ("three.iso", "the third")];
    publish(&tree, &second);
    node.wait_status("the mirror lags", |status| {
        status["repos"][0]["generation"]["sequence"] == 2 && holding(status)["fresh"] == false
    });
    assert_eq!(asked(&node, "one.iso", "b"), Ok(format!("{}{ISOS}/one.iso", mirror.url())));
    assert_eq!(asked(&node, "two.iso", "c"), Err(b"the second, anew".to_vec()));
    assert_eq!(asked(&node, "three.iso", "d"), Err(b"the third".to_vec()));
    // The list first, the images later.
    fs::copy(tree.join(ISOS).join("CHECKSUM"), copy.join(ISOS).join("CHECKSUM")).unwrap();
    node.wait_status("it is asked for the images", |status| {
        holding(status)["note"]
            .as_str()
            .is_some_and(|note| note.contains(".iso") && note.contains("shows generation 2"))
    });
    publish(&copy, &second);
    node.wait_status("the mirror is fresh again", |status| holding(status)["fresh"] == true);
    assert_eq!(asked(&node, "three.iso", "e"), Ok(format!("{}{ISOS}/three.iso", mirror.url())));
}

#[test]
fn a_list_that_is_ahead_of_its_image_waits_and_other_bytes_of_one_size_are_never_redirected() {
    let dir = scratch();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    let first = [("latest.img", "first bytes"), ("other.img", "other")];
    publish(&tree, &first);
    publish(&copy, &first);
    let mirror = Origin::serve(&copy);
    let more = [config::BRISK, REPO, &config::mirror("m", &mirror)].concat();
    let node = Node::start(&config::in_place(&tree, &more));
    node.wait_ready();
    let holding = |status: &Value| status["mirrors"][0]["repos"][0].clone();
    node.wait_status("the mirror is fresh", |status| holding(status)["fresh"] == true);
    assert!(asked(&node, "latest.img", "a").is_ok());

    let second = [("latest.img", "other bytes"), ("other.img", "other")];
    publish_list(&tree, &second);
    node.wait_status("the image is missed", |status| {
        let error = status["repos"][0]["push"]["last_error"].as_str();
        error.is_some_and(|error| error.contains("latest.img "))
    });
    assert!(asked(&node, "latest.img", "x").is_ok(), "the old list is in force");
    // rsync's way: another file in its place. First one that is whole, and not the listed one.
    let put = |body: &str| {
        fs::write(tree.join(ISOS).join(".new"), body).unwrap();
        fs::rename(tree.join(ISOS).join(".new"), tree.join(ISOS).join("latest.img")).unwrap();
    };
    put("wrong bytes");
    node.wait_status("the image is read", |status| {
        let error = status["repos"][0]["push"]["last_error"].as_str();
        error.is_some_and(|error| error.contains("latest.img isn't as listed yet: SHA-256"))
    });
    put("other bytes");
    node.wait_status("the push is offered", |status| status["repos"][0]["generation"]["sequence"] == 2);

    // The mirror has the new list and the old image, whose length is right: its bytes are compared.
    publish_list(&copy, &second);
    node.wait_status("the mirror's image is found to be another", |status| {
        let note = holding(status)["note"].as_str().unwrap_or_default().to_owned();
        holding(status)["fresh"] == false && note.contains("latest.img has other bytes than listed")
    });
    assert_eq!(asked(&node, "latest.img", "b"), Err(b"other bytes".to_vec()));
    // It takes nothing else either, until that is settled.
    assert_eq!(asked(&node, "other.img", "c"), Err(b"other".to_vec()));
}
