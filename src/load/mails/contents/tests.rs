use proptest::prelude::*;

use super::*;
use crate::load::mails::parts::{difference, parts};
use crate::load::scenario::parse;
use crate::mime::entity::{Entity, MimeLimits};

fn scenario(mail: &str) -> Scenario {
    let text = format!("name = 't'\n[pace]\nkind = 'closed'\n[bound]\nmails = 1\n[mail]\n{mail}");
    parse(&text, "t").unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn made_contents_have_their_size_and_are_good_mime() {
    for (size, count) in [("'1 KiB'", 16), ("'4 KiB'", 16), ("'100 KiB'", 16), ("'1 MiB'", 16), ("1", 16)] {
        let scenario = scenario(&format!("size = {size}"));
        let pool = Pool::new(&scenario).unwrap();
        assert_eq!(pool.len(), count);
        let wanted = sizes::at(&scenario.sizes, 0.5);
        for number in 0..pool.len() {
            let entity = pool.get(number).unwrap().entity("Load-Id: 1-1\r\n");
            let whole = entity.len() + 380;
            assert!(whole.abs_diff(wanted) < 300 || wanted < 500, "{whole} for {wanted}");
            let lines = entity.split(|octet| *octet == b'\n').map(<[u8]>::len).max().unwrap();
            assert!(lines <= 79 && entity.is_ascii() && entity.ends_with(b"\r\n"), "{lines}");
            let found = parts(&Entity::parse(entity, &MimeLimits::default()).unwrap(), &MimeLimits::default()).unwrap();
            assert!(found[0].content.starts_with(b"Load-Id: 1-1\r\n"));
        }
    }
}

#[test]
fn a_pool_has_the_shape_of_its_distribution_and_bounded_memory() {
    let pool = Pool::new(&scenario("size = { from = '1 MiB', to = '5 MiB' }")).unwrap();
    let sizes: Vec<usize> = (0..pool.len()).map(|number| pool.get(number).unwrap().len(0)).collect();
    let all: usize = sizes.iter().sum();
    assert!(all <= ROOM && pool.len() >= 16, "{} contents, {all} octets", pool.len());
    let mean = all / sizes.len();
    assert!(mean.abs_diff(3 << 20) < 200_000, "{mean}");
    assert!(sizes[0] < 1_300_000 && *sizes.last().unwrap() > 5_000_000);
}

#[test]
fn a_body_is_told_by_its_octets() {
    let pool = Pool::new(&scenario("size = '8 KiB'")).unwrap();
    let template = pool.get(3).unwrap();
    let body = template.entity("mark\r\n").slice(template.body..);
    assert!(template.is_body("mark\r\n", &body));
    for at in 0..body.len() {
        let mut changed = body.to_vec();
        changed[at] ^= 1;
        assert!(!template.is_body("mark\r\n", &changed));
    }
    assert!(!template.is_body("nark\r\n", &body) && !template.is_body("mark\r\n", &body[1..]));
    assert!(!template.is_body("mark\r\n", &[&body[..], b"x"].concat()));
}

#[test]
fn a_difference_is_told_in_words() {
    let read = |text: &str| {
        let entity = Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap();
        parts(&entity, &MimeLimits::default()).unwrap()
    };
    let sent = read("Content-Type: text/plain; name=a\r\n\r\nabc\r\n");
    assert_eq!(difference(&sent, &read("content-type: TEXT/plain;\r\n name=\"a\"\r\n\r\nabc")), None);
    let encoded = "Content-Type: text/plain; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJjDQo=\r\n";
    assert_eq!(difference(&sent, &read(encoded)), None, "encoded anew");
    for (other, word) in [
        ("Content-Type: text/plain; name=a\r\n\r\nabd\r\n", "octet 2"),
        ("Content-Type: text/plain; name=a\r\n\r\nab\r\n", "2 octets in place of 3"),
        ("Content-Type: text/plain; name=b\r\n\r\nabc\r\n", "name"),
        ("Content-Type: text/html; name=a\r\n\r\nabc\r\n", "text/html"),
        ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nabc\r\n--b\r\n\r\n--b--\r\n", "2 came"),
    ] {
        let why = difference(&sent, &read(other)).unwrap();
        assert!(why.contains(word), "{why}");
    }
}

const MBOX: &[u8] = b"left over\n\nFrom anna Mon Jun  1 10:00:00 2026\nSubject: one\nTo: x@example.org\n\nline\n>From here\n>>From there\nFrom now\n\n\
From bert Mon Jun  1 10:00:00 2026\nContent-Type: text/html\n\n<p>two\n\nFrom carla\n\nFrom dora\nContent-Type: multipart/signed; boundary=b\n\nx\n";

#[test]
fn real_mails_are_sent_without_who_wrote_them_and_those_that_cannot_be_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("box"), MBOX).unwrap();
    let pool = Pool::new(&scenario(&format!("contents = {{ mbox = '{}/box' }}", folder.path().display()))).unwrap();
    assert_eq!(pool.len(), 2, "{:?}", pool.notes);
    assert_eq!(
        pool.get(2).unwrap().entity("never"),
        "MIME-Version: 1.0\r\nSubject: one\r\n\r\nline\r\nFrom here\r\n>From there\r\nFrom now\r\n"
    );
    assert!(pool.notes.iter().any(|note| note.contains("signed or encrypted already")), "{:?}", pool.notes);
    let dir = folder.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let from_folder = || Pool::new(&scenario(&format!("contents = {{ folder = '{}' }}", dir.display())));
    assert!(from_folder().unwrap_err().contains("no mail"));
    std::fs::write(dir.join("b.eml"), "Subject: b\r\n\r\nb\r\n").unwrap();
    std::fs::write(dir.join("a.eml"), "Subject: a\n\na").unwrap();
    std::fs::write(dir.join("long.eml"), format!("Subject: l\n\n{}", "x".repeat(999))).unwrap();
    std::fs::write(dir.join("nul.eml"), "Subject: n\n\n\0").unwrap();
    let pool = from_folder().unwrap();
    assert_eq!((pool.len(), pool.notes.len()), (2, 2), "{:?}", pool.notes);
    assert!(pool.get(0).unwrap().entity("").ends_with(b"Subject: a\r\n\r\na\r\n"));
}

#[test]
fn fuzz_body_holds_on_what_was_seen() {
    for end in 0..=MBOX.len() {
        real::fuzz_real_mail(&MBOX[..end]);
        real::fuzz_real_mail(&MBOX[end..]);
    }
}

proptest! {
    #[test]
    fn fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        real::fuzz_real_mail(&data);
        real::fuzz_real_mail(&[b"Subject: x\n\n".as_slice(), &data].concat());
    }
}
