//! Mirrors with https: taken with a good certificate, refused by name with any other.

use super::support::client::Connection;
use super::support::node::Node;
use super::support::origin::Origin;
use super::support::repo::{self, Push, REPO, Tree};
use super::support::{config, scratch, wait_until};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A certificate of its own authority, for a host, as PEM and as what a server has of it.
pub fn certified(authority: &str, host: &str, expired: bool) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, authority);
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (certificate.pem(), Arc::new(config))
}

/// Puts TLS before `origin`; the port.
pub fn secured(runtime: &Runtime, origin: SocketAddr, config: Arc<ServerConfig>) -> u16 {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(config);
    runtime.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who refuses the certificate hangs up.
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let Ok(mut plain) = TcpStream::connect(origin).await else { return };
                let _ = copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    port
}

#[test]
fn a_mirror_with_a_bad_certificate_is_down_and_says_why() {
    let dir = scratch();
    let tree = Tree::link(Push::First, &dir.path().join("tree"));
    let origin = Origin::serve(tree.root());
    let runtime = Runtime::new().unwrap();
    let (mut authorities, mut mirrors, mut good) = (String::new(), String::new(), String::new());
    for (name, host, expired, known) in [
        ("good", "localhost", false, true),
        ("wrong-name", "elsewhere.example", false, true),
        ("expired", "localhost", true, true),
        ("unknown-issuer", "localhost", false, false),
    ] {
        let (pem, server) = certified(name, host, expired);
        if known {
            authorities += &pem;
        }
        let url = format!("https://localhost:{}/", secured(&runtime, origin.addr(), server));
        mirrors += &format!("[[mirror]]\nname = \"{name}\"\nurl = \"{url}\"\nbandwidth = \"1 Gbit/s\"\n");
        if name == "good" {
            good = url;
        }
    }
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, authorities).unwrap();
    let trusting = format!("SSL_CERT_FILE={}", roots.display());
    let text = [config::BRISK, &config::updates("1ms"), &mirrors].concat();
    let node = Node::start_by(&["env", &trusting], &config::cached(&origin, &text));
    node.wait_ready();

    let named = |status: &Value, name: &str| {
        let mirrors = status["mirrors"].as_array().unwrap();
        mirrors.iter().find(|mirror| mirror["name"] == name).unwrap().clone()
    };
    for (name, why) in [
        ("wrong-name", "certificate not valid for name"),
        ("expired", "TLS: the certificate has expired"),
        ("unknown-issuer", "UnknownIssuer"),
    ] {
        node.wait_status(name, |status| {
            let mirror = named(status, name);
            mirror["state"] == "down" && mirror["why"].as_str().is_some_and(|said| said.contains(why))
        });
    }
    node.wait_status("the good one is fresh", |status| named(status, "good")["repos"][0]["fresh"] == true);
    for number in 0..4 {
        let mut connection = Connection::open(node.http()).unwrap();
        let path = format!("{REPO}/{}", repo::rpm(0, Push::First));
        let client = format!("libdnf {number}");
        let response = connection.request("GET", &format!("/{path}"), &[("User-Agent", &client)]).unwrap();
        assert_eq!(response.header("location"), Some(format!("{good}{path}").as_str()));
    }
    // Long enough that a time in words would be another.
    wait_until("it is asked again and again", || {
        node.metric("freshet_probes_total{mirror=\"expired\",outcome=\"down\"}") >= Some(6.0)
    });
    let lines = node.log().lines().filter(|line| line.contains("is down mirror=\"expired\"")).count();
    assert_eq!(lines, 1, "the same failure is said once");
}
