//! What is small and wants to be big (A12, A13): memory counted for this process alone, so that no other test is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine;
use bytes::Bytes;
use jiff::Timestamp;
use miniz_oxide::deflate::compress_to_vec_zlib;
use waxwing::keys::Cek;
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::path::TrustSet;
use waxwing::smime::open::{OpenContext, Opened, Opener, Step};
use waxwing::smime::seal::Draft;
use waxwing::smime::verdict::SmimeResult;

/// One measures at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A figure of /proc/self/status, in octets.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How far the resident memory rises above what it is now while `work` goes on, in octets.
fn growth<T>(work: impl FnOnce() -> T) -> (u64, T) {
    // 5 sets the high-water mark back (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let result = work();
    (memory("VmHWM").saturating_sub(before), result)
}

fn open(message: Bytes) -> Opened {
    let message = Entity::parse(message, &MimeLimits::default()).unwrap();
    let context = OpenContext::new(Vec::new(), Arc::new(TrustSet::default()), Timestamp::UNIX_EPOCH);
    match Opener::new(message, context, || Cek::new(vec![0; 32])).step(None) {
        Step::Done(opened) => *opened,
        Step::Key(_) => panic!("there is no key"),
    }
}

/// DER with the long form of length throughout.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84][..], &length, content].concat()
}

/// A CompressedData entity around zlib's octets.
fn compressed(zlib: &[u8]) -> Vec<u8> {
    let oid = |last: [u8; 2]| [&[0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10][..], &last].concat();
    let id_data = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    let content = [&id_data[..], &element(0xa0, &element(0x04, zlib))].concat();
    let data = [vec![2, 1, 0], element(0x30, &oid([3, 8])), element(0x30, &content)].concat();
    let object = element(0x30, &[oid([1, 9]), element(0xa0, &element(0x30, &data))].concat());
    let head =
        "Content-Type: application/pkcs7-mime; smime-type=compressed-data\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let body = base64::engine::general_purpose::STANDARD.encode(object);
    let lines = body.as_bytes().chunks(76).flat_map(|line| line.iter().chain(b"\r\n"));
    head.bytes().chain(lines.copied()).collect()
}

fn text(length: usize) -> Vec<u8> {
    let mut text = b"Content-Type: text/plain\r\n\r\n".to_vec();
    text.resize(length, b'a');
    text
}

#[test]
fn a12_ten_kilobytes_do_not_become_fifty_megabytes() {
    let _alone = alone();
    let simple = compressed(&compress_to_vec_zlib(&text(10_000_000), 10));
    // Layer in layer, as long as it stays at ten kilobytes and what is inside is far bigger.
    let mut nested = compressed(&compress_to_vec_zlib(&text(100_000_000), 10));
    for _ in 0..2 {
        nested = compressed(&compress_to_vec_zlib(&nested, 10));
    }
    for bomb in [simple, nested] {
        assert!((500..15_000).contains(&bomb.len()), "{}", bomb.len());
        let message = Bytes::from([b"From: a@example.org\r\n".to_vec(), bomb].concat());
        let (grown, opened) = growth(|| open(message));
        assert_eq!(opened.verdict.result, SmimeResult::PermError, "{}", opened.verdict.reason);
        assert!(grown <= 50_000_000, "{grown} octets");
        println!("A12: {} octets in, {grown} octets of memory", opened.message.len());
    }
}

/// The row's figure: by hand, `cargo test --release --test bombs -- --ignored --nocapture`. Time is told, not asserted.
#[test]
#[ignore = "54 MB of message; a figure to be read by people"]
fn a13_a_million_levels_of_mime() {
    let _alone = alone();
    let mut mail = String::with_capacity(60 << 20);
    mail.push_str("From: a@example.org\r\n");
    for level in 0..1_000_000u32 {
        mail.push_str(&format!("Content-Type:multipart/mixed;boundary={level:x}_\r\n\r\n--{level:x}_\r\n"));
    }
    mail.push_str("\r\n\u{fc}");
    let message = Bytes::from(mail);
    let began = Instant::now();
    let (grown, opened) = growth(|| open(message.clone()));
    assert_eq!(opened.verdict.result, SmimeResult::None);
    println!("A13: opening: {:?}, {grown} octets of memory", began.elapsed());
    assert!(grown <= 64 << 20, "{grown} octets");
    let began = Instant::now();
    let (grown, sealed) = growth(|| {
        let entity = Entity::parse(message.clone(), &MimeLimits::default()).unwrap();
        Draft::new(&entity).map(|_| ())
    });
    println!("A13: sealing: {:?}, {grown} octets of memory: {sealed:?}", began.elapsed());
    assert!(grown <= 64 << 20, "{grown} octets");
}
