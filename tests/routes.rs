//! Where mail goes: by routes of the configuration, and by the MX of a real, signed DNS (BIND 9) under DANE and MTA-STS; into a real Dovecot
//! by LMTP. What a domain asks for holds, or its mail waits.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking; some are tables of cases"
)]

#[allow(dead_code, reason = "of the directory server nothing is used but its tools")]
#[path = "support/directory.rs"]
mod directory;
#[path = "support/names.rs"]
mod names;
#[path = "support/outside.rs"]
mod outside;
#[path = "support/dovecot.rs"]
mod real;
mod support;

/// In numbers.
#[path = "routes/counted.rs"]
mod counted;
/// TLSA records.
#[path = "routes/dane.rs"]
mod dane;
/// A real mail server behind.
#[path = "routes/dovecot.rs"]
mod dovecot;
/// Hosts by the configuration.
#[path = "routes/hosts.rs"]
mod hosts;
/// MX records, good and hostile.
#[path = "routes/mx.rs"]
mod mx;
/// Policies fetched over HTTPS.
#[path = "routes/sts.rs"]
mod sts;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use names::Named;
use support::house::{House, Plan, plain};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue};

const ANNA: &str = "anna@ours.example";
const CANARY: &str = "canary-5c1e";
/// Goes on in the section `[retry]`.
const CLEAR: &str = "longest = \"1 s\"\n[default]\nencrypt = \"never\"\n";

fn authority(name: &str) -> Issued {
    issue(&Recipe::authority(name, Timestamp::now(), NewKey::P256), None)
}

/// A server's certificate.
fn server(host: &str, ca: Option<&Issued>) -> Issued {
    let mut recipe = Recipe::mailbox("localhost", Timestamp::now(), NewKey::P256);
    recipe.mailboxes = Vec::new();
    recipe.hosts = vec![host.to_owned()];
    recipe.key_usage = vec!["digitalSignature"];
    recipe.email_protection = Some(false);
    issue(&recipe, ca)
}

/// An address of this machine.
fn here(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port))
}

/// `[direct]` and a route by MX for everybody outside.
fn by_mx(named: &Named, port: u16, route: &str, direct: &str) -> String {
    format!(
        "[direct]\nservers = [\"{}\"]\ntrust_anchor = \"{}\"\nprivate_addresses = true\n{direct}\n\
         [[route]]\ndomain = \"*\"\ndirection = \"outbound\"\nmx = true\nport = {port}\n{route}\n",
        named.address,
        named.anchor.display()
    )
}

async fn house(top: &str) -> House {
    House::build(&Plan { policy: CLEAR, top, ..Plan::default() }).await
}

/// The answer to a mail, or to what came before it.
async fn send(house: &House, to: &[&str]) -> support::Said {
    house.send_out(ANNA, to, &plain(ANNA, to[0], "routes", CANARY)).await
}

/// Waits until the spool's only mail was tried and is to be tried again, for this reason.
async fn put_off(house: &House, why: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let entries = house.gateway.spool().entries();
            let told = entries.iter().flat_map(|entry| &entry.recipients).filter_map(|one| one.last.clone());
            if told.into_iter().any(|last| last.contains(why)) && entries.len() == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never put off for {why:?}: {:?}", house.gateway.spool().entries()));
}
