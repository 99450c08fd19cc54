use super::*;
use crate::config::{Tenant, TenantCertificate};
use crate::pki::authority::{Issued, NewKey, Recipe, issue_cached};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::path::Path;
use tokio_rustls::{TlsConnector, client::TlsStream};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A certificate and its key in a folder; `name` makes another key.
fn write_pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let mut recipe = Recipe::authority(name, jiff::Timestamp::now(), NewKey::P256);
    recipe.ca = None;
    recipe.key_usage = vec!["digitalSignature"];
    recipe.email_protection = Some(false);
    let issued = issue_cached(&recipe, None);
    let files = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    std::fs::write(&files.0, pem("CERTIFICATE", issued.certificate.der())).unwrap();
    std::fs::write(&files.1, pem("PRIVATE KEY", &issued.pkcs8)).unwrap();
    files
}

/// What is tested is the listener, not whom it is.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn shake_hands(stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    shake_hands_as(stream, None).await
}

/// With a certificate of the client's own.
async fn shake_hands_as(stream: TcpStream, client: Option<&Issued>) -> io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let chain = vec![CertificateDer::from(client.certificate.der().to_vec())];
            config.with_client_auth_cert(chain, PrivateKeyDer::try_from(client.pkcs8.to_vec()).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("mx.example.org").unwrap(), stream).await
}

async fn serve(tls: ListenTls, relay: &Arc<Kept>) -> Handle {
    start(Listener { tls, ..listener() }, Limits::default(), relay).await.serve(Arc::clone(relay))
}

#[tokio::test]
async fn starttls_then_a_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let relay = Arc::new(Kept::default());
    let handle = serve(ListenTls::StartTls { certificate, key, required: true }, &relay).await;
    let mut plain = TcpStream::connect(handle.address()).await.unwrap();
    read_to(&mut plain, "220 ").await;
    assert!(say(&mut plain, b"EHLO before\r\n", "250 ").await.contains("250 STARTTLS\r\n"));
    say(&mut plain, b"MAIL FROM:<a@b>\r\n", "530 ").await;
    say(&mut plain, b"STARTTLS\r\n", "220 ").await;
    let mut client = shake_hands(plain).await.unwrap();
    // The greeting before TLS counts no more.
    say(&mut client, b"MAIL FROM:<a@b>\r\n", "503 ").await;
    assert!(!say(&mut client, b"EHLO after\r\n", "250 ").await.contains("STARTTLS"));
    say(&mut client, ENVELOPE, "354 ").await;
    let body = b"line\r\n".repeat(50_000);
    client.write_all(&body).await.unwrap();
    say(&mut client, b".\r\n", "250 ").await;
    assert_eq!(relay.messages.lock().unwrap()[0].1, body);
    let peer = relay.peers.lock().unwrap()[0].clone();
    assert_eq!((peer.helo.as_str(), peer.tls), ("after", true));
    let mut rest = String::new();
    client.write_all(b"QUIT\r\n").await.unwrap();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("221 "));
}

/// After close_notify, which anybody may cut in front of what he sends, nothing more is heard.
#[tokio::test]
async fn a18_octets_after_close_notify_are_not_handled() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let relay = Arc::new(Kept::default());
    let handle = serve(ListenTls::Implicit { certificate, key }, &relay).await;
    let mut client = shake_hands(TcpStream::connect(handle.address()).await.unwrap()).await.unwrap();
    read_to(&mut client, "220 ").await;
    say(&mut client, b"EHLO client\r\n", "250 ").await;
    let (mut stream, mut tls) = client.into_inner();
    tls.send_close_notify();
    let mut wire = Vec::new();
    tls.write_tls(&mut wire).unwrap();
    wire.extend_from_slice(TO_ONE);
    stream.write_all(&wire).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(handle.shut_down(Duration::from_secs(10)).await);
    assert!(relay.peers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn implicit_tls_greets_inside() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let relay = Arc::new(Kept::default());
    let handle = serve(ListenTls::Implicit { certificate, key }, &relay).await;
    let mut client = shake_hands(TcpStream::connect(handle.address()).await.unwrap()).await.unwrap();
    to_content(&mut client).await;
    say(&mut client, b"x\r\n.\r\n", "250 ").await;
    assert!(relay.peers.lock().unwrap()[0].tls);
}

/// A client is the tenant's with a certificate by the tenant's CA that bears one of the names, and not otherwise.
#[tokio::test]
async fn a31_a_client_is_the_tenants_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let now = jiff::Timestamp::now();
    let ca = issue_cached(&Recipe::authority("tenant root", now, NewKey::P256), None);
    let other_ca = issue_cached(&Recipe::authority("other root", now, NewKey::P256), None);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem("CERTIFICATE", ca.certificate.der())).unwrap();
    let client = |host: &str, ca: &Issued| {
        let mut recipe = Recipe::authority(host, now, NewKey::P256);
        (recipe.ca, recipe.hosts) = (None, vec![host.to_owned()]);
        (recipe.key_usage, recipe.email_protection) = (vec!["digitalSignature"], None);
        issue_cached(&recipe, Some(ca))
    };
    let relay = Arc::new(Kept::default());
    let names = vec![Domain::parse("out.tenant.example").unwrap()];
    let tenant = Tenant { header: None, certificate: Some(TenantCertificate { names, ca: file }) };
    let tls = ListenTls::Implicit { certificate, key };
    let listener = Listener { tls, tenant: Some(tenant), ..listener() };
    let handle = start(listener, Limits::default(), &relay).await.serve(Arc::clone(&relay));
    for (client, certified) in [
        (None, false),
        (Some(client("out.tenant.example", &ca)), true),
        (Some(client("out.neighbour.example", &ca)), false),
    ] {
        let stream = TcpStream::connect(handle.address()).await.unwrap();
        let mut tls = shake_hands_as(stream, client.as_ref()).await.unwrap();
        to_content(&mut tls).await;
        assert_eq!(relay.peers.lock().unwrap().pop().unwrap().certified, certified);
    }
    // By another CA there is no session at all; TLS 1.3 tells the client after its own side of the handshake.
    let stream = TcpStream::connect(handle.address()).await.unwrap();
    if let Ok(mut tls) = shake_hands_as(stream, Some(&client("out.tenant.example", &other_ca))).await {
        assert!(tls.read_u8().await.is_err());
    }
    assert!(relay.peers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a17_octets_behind_starttls_drop_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let relay = Arc::new(Kept::default());
    let handle = serve(ListenTls::StartTls { certificate, key, required: false }, &relay).await;
    // In one write, and after the reply: the second kind meets the handshake.
    for wait in [false, true] {
        let mut plain = TcpStream::connect(handle.address()).await.unwrap();
        read_to(&mut plain, "220 ").await;
        say(&mut plain, b"EHLO x\r\n", "250 ").await;
        if wait {
            say(&mut plain, b"STARTTLS\r\n", "220 ").await;
            plain.write_all(b"NOOP\r\nMAIL FROM:<evil@x>\r\n").await.unwrap();
            assert!(shake_hands(plain).await.is_err());
        } else {
            plain.write_all(b"STARTTLS\r\nNOOP\r\n").await.unwrap();
            let mut rest = Vec::new();
            plain.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"");
        }
    }
    assert!(relay.peers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bad_tls_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = write_pair(folder.path(), "one");
    let (_, other_key) = write_pair(folder.path(), "two");
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("broken"), "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    for (certificate, key, file, why) in [
        (&path("absent"), &key, "absent", "cannot be read"),
        (&path("empty"), &key, "empty", "no CERTIFICATE"),
        (&path("broken"), &key, "broken", "no PEM file with a certificate"),
        (&key, &key, "one.key", "no CERTIFICATE"),
        (&certificate, &path("absent"), "absent", "cannot be read"),
        (&certificate, &certificate, "one.crt", "no private key"),
        (&certificate, &other_key, "two.key", "not that of the first certificate"),
    ] {
        let listener =
            Listener { tls: ListenTls::Implicit { certificate: certificate.clone(), key: key.clone() }, ..listener() };
        let error = tls::acceptor(&listener).err().expect(why).to_string();
        assert!(error.contains(file) && error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a18_a_connection_cut_without_close_notify_brings_no_mail_and_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "one");
    let relay = Arc::new(Kept::default());
    let handle = serve(ListenTls::Implicit { certificate, key }, &relay).await;
    let mut client = shake_hands(TcpStream::connect(handle.address()).await.unwrap()).await.unwrap();
    to_content(&mut client).await;
    client.write_all(b"half a mail\r\n").await.unwrap();
    client.flush().await.unwrap();
    // The socket ends below TLS.
    let (mut socket, _) = client.into_inner();
    socket.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    assert!(handle.shut_down(std::time::Duration::from_secs(10)).await, "the session is over");
    assert_eq!((relay.messages.lock().unwrap().len(), relay.dropped.load(Ordering::SeqCst)), (0, 1));
}
