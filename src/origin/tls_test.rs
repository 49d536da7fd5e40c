//! TLS to the origin: only the configured authority is trusted.

use super::http::{Answer, Ask, Settings};
use super::stub::response;
use super::{HttpOrigin, OriginError};
use crate::http::TreePath;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

fn serve(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
            let mut head = [0; 4096];
            // A client that refuses the certificate sends no request.
            if tls.read(&mut head).is_ok_and(|read| read > 0) {
                let _ = tls.write_all(&response("200 OK", &[], b"safe"));
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    port
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let port = serve(own.cert.der().clone(), own.signing_key.serialize_der().try_into().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = TreePath::new("x").unwrap();
    for (pem, trusted) in [(own.cert.pem(), true), (other.cert.pem(), false)] {
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, pem).unwrap();
        let settings = Settings { ca: Some(ca), ..Settings::new(&format!("https://localhost:{port}/"), "n") };
        let origin = HttpOrigin::new(settings).unwrap();
        match origin.get(&path, None, Ask::Whole, None).await {
            Ok(Answer::Body(response)) if trusted => {
                assert_eq!(response.body.collect(4).await.unwrap().as_ref(), b"safe");
            }
            Err(OriginError::Down { reason }) if !trusted => {
                assert!(reason.contains("certificate"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    std::fs::write(dir.path().join("ca.pem"), "no certificate").unwrap();
    let settings =
        Settings { ca: Some(dir.path().join("ca.pem")), ..Settings::new("https://localhost/", "n") };
    assert!(matches!(HttpOrigin::new(settings), Err(OriginError::Setup(_))));
    for url in ["localhost", "ftp://localhost/", "/x"] {
        assert!(matches!(HttpOrigin::new(Settings::new(url, "n")), Err(OriginError::Setup(_))), "{url}");
    }
}
