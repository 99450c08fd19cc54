//! A house: a PKI, a store in a temporary folder, sinks, and a gateway between them.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use waxwing::address::Mailbox;
use waxwing::config::Config;
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::relay::gateway::Gateway;
use waxwing::store::embedded::EmbeddedStore;
use waxwing::store::keyring::Kek;
use waxwing::store::{CertStore, NewCertificate, Owner, Provenance};

use super::{Client, Sink};

/// What a house is built with.
pub struct Plan<'p> {
    /// Rules and default, as TOML.
    pub policy: &'p str,
    /// Further top-level keys, as TOML.
    pub top: &'p str,
    /// Host and TLS of the outbound next hop, as TOML.
    pub hop: &'p str,
    /// Both next hops, as TOML, in place of the sinks.
    pub hops: Option<&'p str>,
    /// Keys of `[retry]`, as TOML.
    pub retry: &'p str,
}

const HOP: &str = "host = \"127.0.0.1\"\ntls = \"off\"";

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            policy: "[default]\nsign = \"if-key\"\nencrypt = \"require\"\n",
            top: "",
            hop: HOP,
            hops: None,
            retry: "first = \"1 s\"",
        }
    }
}

pub struct House {
    pub folder: TempDir,
    pub store: Arc<EmbeddedStore>,
    pub ca: Issued,
    /// Where outbound mail goes.
    pub world: Sink,
    /// Where inbound mail goes.
    pub server: Sink,
    pub gateway: Gateway,
}

pub fn mailbox(address: &str) -> Mailbox {
    Mailbox::parse(address).unwrap()
}

impl House {
    pub async fn new() -> Self {
        Self::build(&Plan::default()).await
    }

    pub async fn with_policy(policy: &str) -> Self {
        Self::build(&Plan { policy, ..Plan::default() }).await
    }

    pub async fn build(plan: &Plan<'_>) -> Self {
        let (world, server) = (Sink::start().await, Sink::start().await);
        let (hop_out, hop_in) = (world.address, server.address);
        Self::between(plan, world, server, hop_out, hop_in).await
    }

    /// The same with other next hops.
    pub async fn between(plan: &Plan<'_>, world: Sink, server: Sink, hop_out: SocketAddr, hop_in: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kek = folder.path().join("kek");
        Kek::create(&kek).unwrap();
        let store = EmbeddedStore::create(&folder.path().join("store"), &kek).unwrap();
        let ca = issue(&Recipe::authority("House Root", Timestamp::now(), NewKey::P256), None);
        store.add_trust(ca.certificate.clone(), Some(AnchorScope::Global)).unwrap();
        let store = Arc::new(store);
        let text = config(plan, folder.path(), hop_out, hop_in);
        std::fs::write(folder.path().join("waxwing.toml"), &text).unwrap();
        let config = Config::parse(&text, "test.toml", &read).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        let gateway = Gateway::start(config, store.clone(), store.clone(), b"house").await.unwrap();
        Self { folder, store, ca, world, server, gateway }
    }

    pub fn out(&self) -> SocketAddr {
        self.gateway.address("out").unwrap()
    }

    pub fn inward(&self) -> SocketAddr {
        self.gateway.address("in").unwrap()
    }

    /// A client at the outbound listener.
    pub async fn submit(&self) -> Client {
        Client::connect(self.out()).await
    }

    /// A client at the inbound listener.
    pub async fn outside(&self) -> Client {
        Client::connect(self.inward()).await
    }

    /// A certificate with a key of ours.
    pub fn user(&self, address: &str) -> Certificate {
        self.add(address, Recipe::mailbox(address, Timestamp::now(), NewKey::Rsa2048), true, TrustState::Trusted)
    }

    /// A certificate of somebody outside.
    pub fn partner(&self, address: &str) -> Certificate {
        self.add(address, Recipe::mailbox(address, Timestamp::now(), NewKey::Rsa2048), false, TrustState::Trusted)
    }

    pub fn add(&self, address: &str, recipe: Recipe, with_key: bool, trust: TrustState) -> Certificate {
        self.add_for(&Owner::Mailbox(mailbox(address).key()), recipe, with_key, trust)
    }

    pub fn add_for(&self, owner: &Owner, recipe: Recipe, with_key: bool, trust: TrustState) -> Certificate {
        let issued = issue(&recipe, Some(&self.ca));
        let provenance = Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() };
        let new = NewCertificate {
            certificate: issued.certificate.clone(),
            provenance,
            trust,
            key: with_key.then(|| issued.pkcs8.clone()),
        };
        self.store.add_certificates(owner, vec![new]).unwrap();
        issued.certificate
    }

    pub fn expired(address: &str) -> Recipe {
        let now = Timestamp::now();
        let day = SignedDuration::from_hours(24);
        Recipe {
            not_before: now - day * 20,
            not_after: now - day * 10,
            ..Recipe::mailbox(address, now, NewKey::Rsa2048)
        }
    }

    /// Sends outbound; the answer to the final dot (or the refusal before).
    pub async fn send_out(&self, from: &str, to: &[&str], message: &str) -> super::Said {
        self.submit().await.send(from, to, message.as_bytes()).await
    }

    /// Sends inbound.
    pub async fn send_in(&self, from: &str, to: &[&str], message: &[u8]) -> super::Said {
        self.outside().await.send(from, to, message).await
    }
}

/// Files that a configuration names.
pub fn read(file: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

fn config(plan: &Plan<'_>, folder: &std::path::Path, hop_out: SocketAddr, hop_in: SocketAddr) -> String {
    let own_spool = plan.top.contains("spool = ");
    let usual = format!(
        "[next_hop.outbound]\nport = {}\n{}\n[next_hop.inbound]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"off\"",
        hop_out.port(),
        plan.hop,
        hop_in.port()
    );
    let spool = if own_spool { String::new() } else { format!("spool = \"{}/spool\"", folder.display()) };
    format!(
        r#"hostname = "gw.ours.example"
domains = ["ours.example"]
store = "{folder}/store"
kek = "{folder}/kek"
{spool}
{top}
[[listener]]
name = "out"
address = "127.0.0.1:0"
direction = "outbound"
trusted_networks = ["127.0.0.0/8"]
[[listener]]
name = "in"
address = "127.0.0.1:0"
direction = "inbound"
[[listener]]
name = "both"
address = "127.0.0.1:0"
direction = "by-recipient"
[[listener]]
name = "lmtp"
address = "127.0.0.1:0"
direction = "outbound"
trusted_networks = ["127.0.0.0/8"]
lmtp = true
{hops}
[retry]
{retry}
{policy}
"#,
        folder = folder.display(),
        top = plan.top,
        hops = plan.hops.map_or(usual, str::to_owned),
        retry = plan.retry,
        policy = plan.policy,
    )
}

/// A plain message.
pub fn plain(from: &str, to: &str, subject: &str, body: &str) -> String {
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\nMessage-ID: <{subject}@test.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{body}\r\n"
    )
}

impl House {
    /// Waits until the spool has handed over all that it does not hold.
    pub async fn settled(&self) {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            while self.gateway.spool().entries().iter().any(|entry| entry.held.is_none()) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("still in the spool: {:?}", self.gateway.spool().entries()));
    }

    pub fn disable(&self, address: &str) {
        self.store.set_disabled(&Owner::Mailbox(mailbox(address).key()), true).unwrap();
    }
}
