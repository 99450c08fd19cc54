//! A listener for one tenant of a shared cloud, who shows it by his certificate (A31).

use rustls::pki_types::PrivateKeyDer;

use super::*;

/// Who connects.
enum Shows<'c> {
    /// No TLS.
    Clear,
    /// No certificate.
    Nothing,
    Certificate(&'c Issued),
}

/// What a client hears.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hears {
    /// His mail goes on.
    Taken,
    /// 550 5.7.1 at MAIL, and again.
    Refused,
    /// No session at all.
    Nothing,
}

/// A client's certificate with these names.
fn client(hosts: &[&str], ca: &Issued, age: i32) -> Issued {
    let mut recipe = server_recipe();
    recipe.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    recipe.email_protection = None;
    let day = SignedDuration::from_hours(24);
    (recipe.not_before, recipe.not_after) = (Timestamp::now() - day * (age + 1), Timestamp::now() + day * (10 - age));
    issue(&recipe, Some(ca))
}

async fn shake_hands_as(
    stream: TcpStream,
    ca: &Issued,
    who: Option<&Issued>,
) -> Option<Peer<impl AsyncRead + AsyncWrite + Unpin>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate.der().to_vec())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match who {
        None => config.with_no_client_auth(),
        Some(who) => {
            let chain = vec![CertificateDer::from(who.certificate.der().to_vec())];
            config.with_client_auth_cert(chain, PrivateKeyDer::try_from(who.pkcs8.to_vec()).unwrap()).unwrap()
        }
    };
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await;
    Some(Peer { stream: BufReader::new(stream.ok()?) })
}

/// To MAIL and RCPT.
async fn asks<S: AsyncRead + AsyncWrite + Unpin>(mut peer: Peer<S>) -> Hears {
    // TLS 1.3 tells a client whose certificate is bad after its own side of the handshake.
    let mut greeting = String::new();
    if peer.stream.write_all(b"EHLO client.example\r\n").await.is_err()
        || peer.stream.read_line(&mut greeting).await.unwrap_or(0) == 0
    {
        return Hears::Nothing;
    }
    while greeting.as_bytes().get(3) != Some(&b' ') || greeting.starts_with("220 ") {
        greeting.clear();
        peer.stream.read_line(&mut greeting).await.unwrap();
    }
    let said = peer.say(&format!("MAIL FROM:<{ANNA}>")).await;
    if said.starts_with("250") {
        peer.say("RSET").await;
        peer.mail().await;
        return Hears::Taken;
    }
    assert!(said.starts_with("550 5.7.1"), "{said}");
    assert!(peer.say(&format!("RCPT TO:<{BERT}>")).await.starts_with("503"));
    assert!(peer.say(&format!("MAIL FROM:<{ANNA}>")).await.starts_with("550 5.7.1"), "and again");
    Hears::Refused
}

#[tokio::test]
async fn a31_a_listener_that_wants_a_certificate_takes_mail_of_its_bearer_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, tenants, stranger) = (authority("Listener CA"), authority("Tenants CA"), authority("Stranger CA"));
    let own = issue(&server_recipe(), Some(&ca));
    let certificate = write_certificate(folder.path(), "tls.pem", &own);
    let tenant_ca = write_certificate(folder.path(), "tenants.pem", &tenants);
    let key = folder.path().join("tls.key");
    fs::write(&key, pem("PRIVATE KEY", &own.pkcs8)).unwrap();
    let listener = |tls: &str| {
        format!(
            "[[listener]]\nname = \"{tls}\"\naddress = \"127.0.0.1:0\"\ndirection = \"outbound\"\n\
             trusted_networks = [\"127.0.0.0/8\"]\ntls = \"{tls}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             tenant_certificate = [\"out.tenant.example\", \"Two.tenant.example\"]\ntenant_ca = \"{}\"\n",
            certificate.display(),
            key.display(),
            tenant_ca.display()
        )
    };
    let house = House::with_policy(&format!("{CLEAR}{}{}", listener("starttls"), listener("implicit"))).await;
    let good = client(&["out.tenant.example"], &tenants, 0);
    let second = client(&["neighbour.example", "two.tenant.example"], &tenants, 0);
    let neighbour = client(&["out.neighbour.example"], &tenants, 0);
    let below = client(&["x.out.tenant.example"], &tenants, 0);
    let forged = client(&["out.tenant.example"], &stranger, 0);
    let expired = client(&["out.tenant.example"], &tenants, 20);
    let for_servers = issue(&Recipe { hosts: vec!["out.tenant.example".into()], ..server_recipe() }, Some(&tenants));
    let mut taken = 0;
    for (what, shows, hears) in [
        ("clear", Shows::Clear, Hears::Refused),
        ("no certificate", Shows::Nothing, Hears::Refused),
        ("the tenant's", Shows::Certificate(&good), Hears::Taken),
        ("one of two names", Shows::Certificate(&second), Hears::Taken),
        ("a neighbour's", Shows::Certificate(&neighbour), Hears::Refused),
        ("a name below", Shows::Certificate(&below), Hears::Refused),
        ("by another CA", Shows::Certificate(&forged), Hears::Nothing),
        ("for servers alone", Shows::Certificate(&for_servers), Hears::Nothing),
        ("expired", Shows::Certificate(&expired), Hears::Nothing),
    ] {
        for listener in ["starttls", "implicit"] {
            let mut peer = Peer { stream: BufReader::new(connect(&house, listener).await) };
            if listener == "starttls" {
                assert!(peer.hear().await.starts_with("220 "));
                assert!(peer.say("EHLO client.example").await.contains("STARTTLS"));
            }
            let who = match shows {
                Shows::Clear if listener == "implicit" => continue,
                Shows::Clear => {
                    assert_eq!(asks(peer).await, hears, "{what}");
                    continue;
                }
                Shows::Nothing => None,
                Shows::Certificate(who) => Some(who),
            };
            if listener == "starttls" {
                assert!(peer.say("STARTTLS").await.starts_with("220"));
            }
            let heard = match shake_hands_as(peer.stream.into_inner(), &ca, who).await {
                Some(peer) => asks(peer).await,
                None => Hears::Nothing,
            };
            assert_eq!(heard, hears, "{what}, {listener}");
            taken += usize::from(hears == Hears::Taken);
        }
    }
    // None but those came through, and they did.
    assert_eq!(house.world.wait(taken).await.len(), taken);
    assert!(house.gateway.spool().entries().is_empty());
}
