//! Foreign programs and we read each other: OpenSSL's `cms`, NSS's `cmsutil`, GnuPG's `gpgsm` and Bouncy Castle make every case that they
//! can and read every case that anybody made; one tampered octet is refused by all. The table stands in README.md. A peer that is not
//! installed is left out, and named; WAXWING_REQUIRE_PEERS=1 makes that a failure. WAXWING_WRITE=1 writes the table into README.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "interop/bouncy_castle.rs"]
mod bouncy_castle;
#[path = "interop/case.rs"]
mod case;
#[path = "interop/gnupg.rs"]
mod gnupg;
#[path = "interop/messages.rs"]
mod messages;
#[path = "interop/nss.rs"]
mod nss;
#[path = "interop/openssl.rs"]
mod openssl;
#[path = "interop/ourselves.rs"]
mod ourselves;
#[path = "support/outside.rs"]
mod outside;
#[path = "interop/place.rs"]
mod place;
#[path = "interop/table.rs"]
mod table;

use case::{Case, Peer, World};
use outside::peers as present;

/// Who reads what we make: those who read such objects of each other (see the table).
const READ_OURS: [(Case, &str); 9] = [
    (Case::DetachedRsa, "ONGB"),
    (Case::DetachedPss, "ONGB"),
    (Case::DetachedEcdsa, "ONGB"),
    (Case::DetachedEd25519, "B"),
    (Case::Opaque, "ONGB"),
    (Case::RsaCbc, "ONGB"),
    (Case::OaepCbc, "OB"),
    (Case::EcdhCbc, "OB"),
    (Case::Gcm, "OB"),
];

#[test]
fn peers_and_we_read_each_other() {
    if !present(&["openssl"]) {
        return;
    }
    let world = World::new();
    let ourselves = ourselves::Waxwing;
    let nss = present(&["cmsutil", "certutil", "pk12util"]).then(|| nss::Nss::new(&world));
    let gnupg = present(&["gpgsm", "gpgconf"]).then(|| gnupg::Gnupg::new(&world));
    let java = present(&["java", "javac"]) && outside::is_here(bouncy_castle::is_installed(), "Bouncy Castle");
    let bouncy_castle = java.then(bouncy_castle::BouncyCastle::new);
    let mut peers: Vec<&dyn Peer> = vec![&ourselves, &openssl::OpenSsl];
    peers.extend(nss.as_ref().map(|peer| peer as &dyn Peer));
    peers.extend(gnupg.as_ref().map(|peer| peer as &dyn Peer));
    peers.extend(bouncy_castle.as_ref().map(|peer| peer as &dyn Peer));

    let mut table = table::run(&world, &peers);
    let letters: Vec<char> = peers.iter().map(|peer| peer.letter()).collect();
    let text = table.markdown(&letters);
    println!("{text}\n{}", table.refusals());
    judge(&mut table, &letters);
    assert!(table.complaints.is_empty(), "{}", table.complaints.join("\n"));
    if letters.len() == 5 {
        readme(&text);
    }
}

/// We read all that is made, and what we make is read.
fn judge(table: &mut table::Table, letters: &[char]) {
    for case in Case::ALL {
        for &maker in letters {
            if let Some(Err(why)) = table.reads(case, maker, 'W') {
                table.complaints.push(format!("we do not read {} of {maker}: {why}", case.title()));
            }
        }
    }
    for (case, readers) in READ_OURS {
        for reader in readers.chars().filter(|reader| letters.contains(reader)) {
            match table.reads(case, 'W', reader) {
                Some(Ok(())) => {}
                other => table.complaints.push(format!("{reader} does not read our {}: {other:?}", case.title())),
            }
        }
    }
}

const BEGIN: &str = "<!-- written by tests/interop.rs -->\n";
const END: &str = "<!-- end -->\n";

/// README shows what was found.
fn readme(table: &str) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("README.md has a place for the table");
    let (shown, after) = rest.split_once(END).expect("README.md has an end of the table");
    if std::env::var_os("WAXWING_WRITE").is_some_and(|value| value == "1") {
        std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "README.md shows another table: WAXWING_WRITE=1 writes this one");
    }
}
