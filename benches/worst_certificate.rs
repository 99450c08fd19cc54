//! A11: the certificates that cost most, and what they cost: processor time of reading them and of looking for a path, at the bounds of
//! `pki::certificate` and `pki::path`. The worst may cost 50 ms.
//!
//! `cargo bench --bench worst_certificate`; under `cargo test` each runs once. Exit status 1: one costs more.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use bytes::Bytes;
use jiff::Timestamp;
use waxwing::cms::ber::{tag, write};
use waxwing::pki::authority::{Issued, NewKey, Recipe, cached_key, issue, issue_cached, issue_with_key};
use waxwing::pki::certificate::{Certificate, MAX_NAMES};
use waxwing::pki::path::{AnchorScope, PathLimits, TrustAnchor, TrustSet, find};

/// The thread's processor time in milliseconds: what else runs does not count.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn trust(anchor: &Certificate) -> TrustSet {
    let anchor = TrustAnchor { certificate: anchor.clone(), scope: AnchorScope::Global };
    TrustSet { anchors: vec![anchor], ..TrustSet::default() }
}

/// What somebody sends: the end certificate first; and whom the receiver trusts.
struct Sent {
    name: &'static str,
    certificates: Vec<Bytes>,
    anchor: Certificate,
}

fn sent(name: &'static str, certificates: Vec<&Certificate>, anchor: &Issued) -> Sent {
    let certificates = certificates.into_iter().map(|one| one.der().clone()).collect();
    Sent { name, certificates, anchor: anchor.certificate.clone() }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn root() -> Issued {
    issue_cached(&Recipe::authority("Root", now(), NewKey::P256), None)
}

fn alice() -> Recipe {
    Recipe::mailbox("alice@example.org", now(), NewKey::P256)
}

/// A certificate whose issuers are all false; their own signatures are never looked at, so that nobody needs their private keys.
fn false_issuers(name: &'static str, key: impl Fn(u64) -> Vec<u8>, algorithm: &[u8], signature: &[u8]) -> Sent {
    let root = root();
    let real = issue_cached(&Recipe::authority("Twin", now(), NewKey::P256), Some(&root)).certificate;
    let leaf = issue(&alice(), Some(&issue_cached(&Recipe::authority("Twin", now(), NewKey::P256), Some(&root))));
    let leaf = replaced(&leaf.certificate, leaf.certificate.signature_algorithm(), algorithm, algorithm, signature);
    let twin = |number| {
        let (algorithm, signature) = (real.signature_algorithm(), real.signature());
        let other = replaced(&real, real.public_key().spki(), &key(number), algorithm, signature);
        // Each has a serial number of its own.
        let serial = other.serial().to_vec();
        let mut changed = serial.clone();
        let last = changed.len() - 2;
        changed[last..].copy_from_slice(&(number as u16).to_be_bytes());
        replaced(&other, &serial, &changed, algorithm, signature)
    };
    let twins: Vec<Certificate> = (0..110).map(twin).collect();
    sent(name, std::iter::once(&leaf).chain(&twins).collect(), &root)
}

fn oid(dotted: &str) -> Vec<u8> {
    write::oid(&const_oid::ObjectIdentifier::new_unwrap(dotted))
}

/// RSA with the longest modulus and the greatest exponent that are taken.
fn rsa(number: u64) -> Vec<u8> {
    let mut modulus = vec![0_u8; 1025];
    for (place, octet) in modulus.iter_mut().enumerate().skip(1) {
        *octet = (place as u64).wrapping_mul(0x9e37_79b9).wrapping_add(number * 77) as u8 | 1;
    }
    modulus[1] |= 0x80;
    let exponent = [0, 0xff, 0xff, 0xff, 0xff];
    let key =
        write::sequence(&[&write::element(tag::INTEGER, &[&modulus]), &write::element(tag::INTEGER, &[&exponent])]);
    let algorithm = write::sequence(&[&oid("1.2.840.113549.1.1.1"), &[0x05, 0x00]]);
    write::sequence(&[&algorithm, &write::element(tag::BIT_STRING, &[&[0], &key])])
}

/// The generator of P-521, as good a point as any.
fn p521(_: u64) -> Vec<u8> {
    const POINT: &str = "0400c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a\
        429bf97e7e31c2e5bd66011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086\
        a272c24088be94769fd16650";
    let digits: Vec<u8> = POINT.bytes().filter_map(|one| char::from(one).to_digit(16)).map(|one| one as u8).collect();
    let point: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let algorithm = write::sequence(&[&oid("1.2.840.10045.2.1"), &oid("1.3.132.0.35")]);
    write::sequence(&[&algorithm, &write::element(tag::BIT_STRING, &[&[0], &point])])
}

/// A certificate with a part of its tbsCertificate replaced, under this algorithm and signature.
fn replaced(certificate: &Certificate, part: &[u8], by: &[u8], algorithm: &[u8], signature: &[u8]) -> Certificate {
    let tbs = certificate.tbs();
    let at = tbs.windows(part.len()).position(|one| one == part).unwrap();
    // What is inside of the outer SEQUENCE: its header is four octets for anything of this size.
    let inside = [&tbs[4..at], by, &tbs[at + part.len()..]].concat();
    let signature = write::element(tag::BIT_STRING, &[&[0], signature]);
    let whole = write::sequence(&[&write::sequence(&[&inside]), algorithm, &signature]);
    Certificate::from_der(whole.into()).unwrap()
}

/// Every name of the end certificate against every constraint of its CA.
fn many_names() -> Sent {
    let root = root();
    let mut ca = Recipe::authority("Constrained", now(), NewKey::P256);
    ca.permitted_mail = (0..2_000).map(|number| format!("host{number}.example.org")).collect();
    let ca = issue_cached(&ca, Some(&root));
    let mut recipe = alice();
    recipe.mailboxes = (0..MAX_NAMES).map(|number| format!("m{number}@elsewhere.example")).collect();
    let leaf = issue(&recipe, Some(&ca));
    sent("1,000 names under 2,000 constraints", vec![&leaf.certificate, &ca.certificate], &root)
}

/// CAs that certify each other: the search has no end but its bound.
fn maze(kind: NewKey, name: &'static str) -> Sent {
    let root = root();
    let recipes: Vec<Recipe> = (0..8).map(|number| Recipe::authority(&format!("Maze {number}"), now(), kind)).collect();
    let selves: Vec<Issued> = recipes.iter().map(|recipe| issue_cached(recipe, None)).collect();
    let mut maze = Vec::new();
    for (recipe, subject) in recipes.iter().zip(&selves) {
        for issuer in selves.iter().filter(|issuer| issuer.certificate != subject.certificate) {
            maze.push(issue_with_key(recipe, cached_key(kind, &recipe.common_name), Some(issuer)).certificate);
        }
    }
    let leaf = issue(&alice(), Some(&selves[0]));
    sent(name, std::iter::once(&leaf.certificate).chain(&maze).collect(), &root)
}

fn cost(case: &Sent) -> f64 {
    let trust = trust(&case.anchor);
    let at = now();
    let began = processor();
    let read: Vec<Certificate> =
        case.certificates.iter().filter_map(|der| Certificate::from_der(der.clone()).ok()).collect();
    if let Some((leaf, extra)) = read.split_first() {
        let _ = black_box(find(leaf, extra, &trust, None, at, &PathLimits::default()));
    }
    processor() - began
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let cases = [
        false_issuers(
            "110 false issuers, RSA-8192, exponent near 2^32",
            rsa,
            &write::sequence(&[&oid("1.2.840.113549.1.1.11"), &[0x05, 0x00]]),
            &[0x11; 1024],
        ),
        false_issuers(
            "110 false issuers, P-521",
            p521,
            &write::sequence(&[&oid("1.2.840.10045.4.3.4")]),
            &write::sequence(&[
                &write::element(tag::INTEGER, &[&[0x11; 64]]),
                &write::element(tag::INTEGER, &[&[0x22; 64]]),
            ]),
        ),
        many_names(),
        maze(NewKey::P256, "8 CAs that certify each other, P-256"),
        maze(NewKey::P384, "8 CAs that certify each other, P-384"),
    ];
    let mut worst = 0.0_f64;
    for case in &cases {
        let mut times: Vec<f64> = (0..if measured { 15 } else { 1 }).map(|_| cost(case)).collect();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        worst = worst.max(median);
        println!("{:<52} {median:>7.2} ms", case.name);
    }
    println!("{:<52} {worst:>7.2} ms of 50", "the worst");
    std::process::exit(i32::from(measured && worst > 50.0));
}
