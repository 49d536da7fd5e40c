//! Clients that a mirror fails: those that come back, with any number of transfers at a time; those that don't; and those that follow
//! no redirect at all.

use super::https_mirrors::{certified, secured};
use super::support::client::Connection;
use super::support::config;
use super::support::librepo::Librepo;
use super::support::node::Node;
use super::support::origin::{Act, Origin};
use super::support::repo::{self, Push, REPO, Tree};
use super::support::zypper::Zypper;
use super::support::{scratch, wait_until};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::generate_simple_self_signed;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use tokio::runtime::Runtime;

/// Over for repos with the date of 2023 that these are made with.
const OVER: &str = "1s";

/// Seconds after which the node has counted a client's connections, and more: until then not more than three of its redirects are
/// young.
const COUNTING: u32 = 1;

/// The ways in which a mirror fails a client.
fn failures() -> [(&'static str, Act); 4] {
    [
        ("404", Act::Status(404)),
        ("503", Act::Status(503)),
        ("refused", Act::Raw(Vec::new())),
        ("cut", Act::Truncate(5000)),
    ]
}

/// A node whose one mirror is proven, so that redirects are due.
fn offloading(origin: &Origin, mirror: &Origin) -> Node {
    let more = [config::BRISK, &config::updates(OVER), &config::mirror("m", mirror)].concat();
    let node = Node::start(&config::cached(origin, &more));
    proven(&node);
    node
}

fn proven(node: &Node) {
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| {
        status["mirrors"][0]["repos"][0]["fresh"] == true && status["repos"][0]["window"]["phase"] == "closed"
    });
}

fn packages(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| repo::rpm(i, Push::First)).collect()
}

/// The requests for packages that clients with this in their User-Agent have made.
fn asked_by(node: &Node, agent: &str) -> Vec<Value> {
    let is_of = |line: &Value| {
        line["user_agent"].as_str().is_some_and(|by| by.contains(agent))
            && line["path"].as_str().is_some_and(|path| path.ends_with(".rpm"))
    };
    node.access().into_iter().filter(is_of).collect()
}

fn count(log: &[Value], key: &str, value: &str) -> usize {
    log.iter().filter(|line| line[key] == value).count()
}

#[test]
fn zypper_with_one_url_gets_the_bytes_and_no_failing_mirror() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = offloading(&origin, &mirror);
    for (kind, act) in failures() {
        mirror.act("*", [Act::For("ZYpp", Box::new(act))]);
        let text = format!("[t]\nname=t\nbaseurl={}{REPO}/\nautorefresh=1\ngpgcheck=0\n", node.url());
        let zypper = Zypper::new(&text);
        zypper.ok(&["install", &repo::name(20), &repo::name(22), &repo::name(24)]);
        assert_eq!(zypper.installed().len(), 3, "{kind}");
    }
    let log = asked_by(&node, "ZYpp");
    assert!(log.len() >= 12, "{log:#?}");
    assert!(log.iter().all(|line| line["decision"] == "serve" && line["reason"] == "no-retry"), "{log:#?}");
    assert_eq!(node.status()["mirrors"][0]["repos"][0]["fresh"], true, "it would have been redirected there");
}

#[test]
fn librepo_with_many_transfers_at_a_time_is_failed_three_times_at_most() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = offloading(&origin, &mirror);
    let url = format!("{}{REPO}/", node.url());
    // A mirror that serves takes most of what a client with three transfers wants, and no more than may be lost of one with ten.
    for (parallel, redirected) in [(3, 26..=40), (10, 1..=3)] {
        let agent = format!("libdnf served {parallel}");
        let client = Librepo::new(&url, &agent, parallel).pausing_for(COUNTING);
        client.download(&tree.repo(), &packages(0..40));
        // A line is written once its client has all.
        wait_until("all requests are logged", || asked_by(&node, &agent).len() >= 40);
        let log = asked_by(&node, &agent);
        let redirects = count(&log, "decision", "redirect");
        println!("{parallel} at a time: {redirects} of {} redirected", log.len());
        assert!(log.len() == 40 && redirected.contains(&redirects), "{parallel} at a time: {log:#?}");
    }

    let [absent, busy, refused, cut] = failures();
    let hung = ("hung", Act::Hang);
    let mut all = 0;
    for (parallel, (kind, act)) in [
        (10, busy.clone()),
        (10, absent),
        (10, refused),
        (10, cut.clone()),
        (10, hung),
        (3, busy.clone()),
        (20, busy),
        (20, cut),
    ] {
        mirror.act("*", [Act::For("libdnf", Box::new(act))]);
        mirror.forget();
        let agent = format!("libdnf {kind} {parallel}");
        let client = Librepo::new(&url, &agent, parallel).patient_for(2);
        client.download(&tree.repo(), &packages(0..40));
        mirror.release("*");
        let failed = mirror.seen().iter().filter(|seen| seen.header("user-agent") == Some(&agent)).count();
        let log = || asked_by(&node, &agent);
        assert!(failed <= 3, "{kind}, {parallel} at a time: {failed} of its redirects failed: {:#?}", log());
        wait_until("all requests are logged", || asked_by(&node, &agent).len() >= 40 + failed);
        let log = asked_by(&node, &agent);
        assert_eq!(count(&log, "reason", "bounce"), failed, "{kind}, {parallel} at a time: {log:#?}");
        all += failed;
    }
    println!("{all} redirects of eight clients failed");
    assert!(all > 0, "something was tried");
}

#[test]
fn over_http2_librepo_is_failed_no_more_often() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let runtime = Runtime::new().unwrap();
    let (pem, server) = certified("mirror", "localhost", false);
    let own = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [authorities, certificate, key] = ["ca", "cert", "key"].map(|name| dir.path().join(name));
    fs::write(&authorities, pem + &own.cert.pem()).unwrap();
    fs::write(&certificate, own.cert.pem()).unwrap();
    fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let https = format!(
        "[https]\nlisten = [\"{{https}}\"]\ncertificate = {certificate:?}\nkey = {key:?}\n\
         [[mirror]]\nname = \"m\"\nurl = \"https://localhost:{}/\"\nbandwidth = \"100 Gbit/s\"\n",
        secured(&runtime, mirror.addr(), server)
    );
    let trusting = format!("SSL_CERT_FILE={}", authorities.display());
    let text = [config::BRISK, &config::updates(OVER), &https].concat();
    let node = Node::start_by(&["env", &trusting], &config::cached(&origin, &text));
    proven(&node);
    let url = format!("https://localhost:{}/{REPO}/", node.https().port());
    for (parallel, act, redirected) in [
        (3, None, 26..=40),
        (10, None, 1..=3),
        (10, Some(Act::Hang), 1..=3),
        (20, Some(Act::Status(404)), 1..=3),
    ] {
        let agent = format!("libdnf {act:?} {parallel}");
        if let Some(act) = act {
            mirror.act("*", [Act::For("libdnf", Box::new(act))]);
        }
        let client =
            Librepo::new(&url, &agent, parallel).trusting(&authorities).patient_for(10).pausing_for(COUNTING);
        client.download(&tree.repo(), &packages(0..40));
        mirror.release("*");
        wait_until("all requests are logged", || asked_by(&node, &agent).len() >= 40);
        let log = asked_by(&node, &agent);
        assert!(log.iter().all(|line| line["protocol"] == "2"), "{log:#?}");
        let redirects = count(&log, "decision", "redirect");
        println!("{agent}: {redirects} redirected");
        assert!(redirected.contains(&redirects), "{agent}: {log:#?}");
    }
}

/// The next line as GRUB 2.06 takes it.
fn grubs_line(rest: &mut &[u8]) -> Result<String, String> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or("time out opening")?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    let line = line.strip_suffix(b"\r").ok_or("invalid HTTP header - LF without CR")?;
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// What GRUB 2.06 makes of a response (`grub-core/net/http.c`): it takes lines to the letter. The file, and whether its length was known
/// from the head.
fn as_grub_reads(response: &[u8]) -> Result<(Vec<u8>, bool), String> {
    let mut rest = response;
    let status = grubs_line(&mut rest)?;
    let code = status.strip_prefix("HTTP/1.1 ").ok_or("unsupported HTTP response")?;
    if !code.starts_with("200") && !code.starts_with("206") {
        return Err(format!("unsupported HTTP error {code}"));
    }
    let (mut size, mut chunked) = (None, false);
    loop {
        let field = grubs_line(&mut rest)?;
        if field.is_empty() {
            break;
        }
        if let Some(length) = field.strip_prefix("Content-Length: ") {
            size = size.or(length.parse::<usize>().ok());
        }
        chunked |= field.starts_with("Transfer-Encoding: chunked");
    }
    let mut file = Vec::new();
    if chunked {
        loop {
            let length =
                usize::from_str_radix(&grubs_line(&mut rest)?, 16).map_err(|error| error.to_string())?;
            if length == 0 {
                return Ok((file, false));
            }
            let (chunk, after) = rest.split_at_checked(length).ok_or("timeout reading")?;
            file.extend_from_slice(chunk);
            rest = after.strip_prefix(b"\r\n").ok_or("timeout reading")?;
        }
    }
    // It reads on until it has the size that it knows; without one it waits in vain.
    let size = size.ok_or("timeout reading")?;
    file.extend_from_slice(rest.get(..size).ok_or("timeout reading")?);
    Ok((file, true))
}

/// All that comes for a request on a connection of its own, which ends with it.
fn raw(node: &Node, path: &str, agent: &str, more: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(node.http()).unwrap();
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: node\r\nUser-Agent: {agent}\r\nConnection: close\r\n{more}\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut response = Vec::new();
    socket.read_to_end(&mut response).unwrap();
    response
}

const ISOS: &str = "9/isos/x86_64";

#[test]
fn boot_loaders_are_served_and_grub_reads_what_it_gets() {
    let dir = scratch();
    let (tree, image) = (dir.path().join("tree"), vec![7_u8; 100_000]);
    fs::create_dir_all(tree.join(ISOS)).unwrap();
    fs::write(tree.join(ISOS).join("boot.img"), &image).unwrap();
    let sum = data_encoding::HEXLOWER.encode(digest(&SHA256, &image).as_ref());
    fs::write(tree.join(ISOS).join("CHECKSUM"), format!("SHA256 (boot.img) = {sum}\n")).unwrap();
    fs::write(tree.join("vmlinuz"), b"a kernel").unwrap();
    let (origin, mirror) = (Origin::serve(&tree), Origin::serve(&tree));
    // Of unknown length, as an origin's script may send it.
    let made =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nmade by a script\r\n0\r\n\r\n".to_vec();
    origin.act("grub.cfg", [Act::Raw(made)]);
    let repo = format!(
        "[[repo]]\nname = \"isos\"\npath = \"{ISOS}\"\nchecksums = \"CHECKSUM\"\ndelivery = \"offload\"\n"
    );
    let node = Node::start(&config::cached(
        &origin,
        &[config::BRISK, &repo, &config::mirror("m", &mirror)].concat(),
    ));
    node.wait_ready();
    node.wait_status("the mirror is fresh", |status| status["mirrors"][0]["repos"][0]["fresh"] == true);

    let path = format!("{ISOS}/boot.img");
    for agent in ["GRUB 2.06", "UefiHttpBoot/1.0", "iPXE/1.21.1+", "U-Boot"] {
        for _ in 0..3 {
            let response = raw(&node, &path, agent, "");
            assert_eq!(as_grub_reads(&response), Ok((image.clone(), true)), "{agent}");
        }
    }
    let boots = |line: &Value| line["reason"] == "firmware" && line["decision"] == "serve";
    wait_until("they are logged", || node.access().iter().filter(|line| boots(line)).count() == 12);
    let explained = node.explain(&path, "GRUB%202.06");
    assert_eq!((&explained["decision"], &explained["reason"]), (&"serve".into(), &"firmware".into()));
    for agent in ["curl/7.88.1", "Mozilla/5.0 (X11; Linux x86_64)", "ZYpp 17"] {
        assert!(raw(&node, &path, agent, "").starts_with(b"HTTP/1.1 302"), "{agent} may go to a mirror");
    }
    assert_eq!(as_grub_reads(&raw(&node, "vmlinuz", "GRUB 2.06", "")), Ok((b"a kernel".to_vec(), true)));
    let made = as_grub_reads(&raw(&node, "grub.cfg", "GRUB 2.06", ""));
    assert_eq!(made, Ok((b"made by a script".to_vec(), false)));
    // A part: GRUB needs no length there, and librepo up to 1.14 gives up one in title case.
    let part = raw(&node, &path, "GRUB 2.06", "Range: bytes=99990-\r\n");
    let head = String::from_utf8_lossy(&part[..part.len() - 10]).into_owned();
    assert!(head.starts_with("HTTP/1.1 206") && head.contains("\r\ncontent-length: 10\r\n"), "{head}");
}

/// Lists a zchunk file in a tree's repomd.xml, as createrepo_c does where it is built with it; its path.
fn add_zchunk(tree: &Tree) -> String {
    let body = b"\0ZCK1 not really".repeat(100);
    let sum = data_encoding::HEXLOWER.encode(digest(&SHA256, &body).as_ref());
    let path = format!("repodata/{sum}-primary.xml.zck");
    let repomd = tree.repo().join("repodata/repomd.xml");
    let record = format!(
        "<data type=\"primary_zck\"><checksum type=\"sha256\">{sum}</checksum><location href=\"{path}\"/>\
         <timestamp>1700000000</timestamp><size>{}</size></data></repomd>",
        body.len()
    );
    let text = fs::read_to_string(&repomd).unwrap().replace("</repomd>", &record);
    replace(&tree.repo().join(&path), &body);
    replace(&repomd, text.as_bytes());
    path
}

fn replace(path: &Path, body: &[u8]) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, body).unwrap();
    fs::File::open(&temporary)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        .unwrap();
    fs::rename(temporary, path).unwrap();
}

#[test]
fn zchunk_comes_from_the_node_alone() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let path = add_zchunk(&tree);
    let (origin, mirror) = (Origin::serve(tree.root()), Origin::serve(tree.root()));
    let node = offloading(&origin, &mirror);
    let other = repo::files(&tree.repo()).into_iter().find(|file| file.contains("primary.xml.gz")).unwrap();
    for (number, (file, range, status)) in [
        (&path, None, 200),
        (&path, Some("bytes=0-299"), 206),
        (&path, Some("bytes=0-9,20-29"), 206),
        (&other, None, 302),
    ]
    .into_iter()
    .enumerate()
    {
        let agent = format!("libdnf {number}");
        let mut fields = vec![("User-Agent", agent.as_str())];
        fields.extend(range.map(|range| ("Range", range)));
        let mut connection = Connection::open(node.http()).unwrap();
        let response = connection.request("GET", &format!("/{REPO}/{file}"), &fields).unwrap();
        assert_eq!(response.status, status, "{file} {range:?}");
    }
}
