//! Against the examples of RFC 9788, and round trips.

use std::collections::BTreeSet;

use super::*;
use crate::cms::algorithm::{ContentEncryption, Legacy};
use crate::keys::{SoftwareKey, SoftwareKeys};
use crate::mime::canonical::canonical_line_ends;
use crate::outside::corpora;
use crate::pki::authority::NewKey;
use crate::pki::certificate::Certificate;
use crate::pki::pkcs12;
use crate::smime::open::{OpenContext, OwnKey};
use crate::smime::seal::Draft;
use crate::smime::testing::*;

fn limits() -> MimeLimits {
    MimeLimits::default()
}

/// Fields as name and value, white space alike.
fn set(header: &Header) -> BTreeSet<String> {
    let value = |field: &Field| field.value().split_whitespace().collect::<Vec<_>>().join(" ");
    let fields = header.fields.iter().filter(|field| !is_content_field(field.name()) && !field.is("MIME-Version"));
    fields.map(|field| format!("{}: {}", field.name(), value(field))).collect()
}

/// An example of RFC 9788 appendix C: the outer message, and what is inside of encryption and signature.
fn example(name: &str) -> Option<(Entity, Entity, Entity)> {
    let folder = corpora()?;
    let octets = std::fs::read(folder.join("rfc9788-header-protection/files").join(name)).unwrap();
    let outer = entity(canonical_line_ends(&octets.into()));
    let keys = folder.join("rfc9216/files");
    let certificates = |name: &str| Certificate::from_pem_or_der(&std::fs::read(keys.join(name)).unwrap()).unwrap();
    let bundle = pkcs12::read_any(&std::fs::read(keys.join("bob.decrypt.key")).unwrap(), None).unwrap();
    let mut holder = SoftwareKeys::default();
    let key = holder.insert(SoftwareKey::from_pkcs8(&bundle.keys[0]).unwrap());
    let own = OwnKey { certificate: certificates("bob.encrypt.crt").remove(0), key };
    let context = OpenContext::new(vec![own], Default::default(), "2021-02-22T13:20:00Z".parse().unwrap());
    let opened = open_with(OpenContext { legacy: Legacy::default(), ..context }, &holder, outer.raw.clone());
    assert!(opened.verdict.decrypted, "{}", opened.verdict.reason);
    Some((outer, entity(opened.content.clone()), entity(opened.message)))
}

/// What we write of the message in the example is what the RFC writes of it.
#[test]
fn rfc9788_examples_are_written_alike() {
    for (name, outside, legacy_display) in [
        ("c.3.1-smime-signed-enc-hp-baseline.eml", Confidentiality::Baseline, false),
        ("c.3.2-smime-signed-enc-hp-baseline-legacy.eml", Confidentiality::Baseline, true),
        ("c.3.3-smime-signed-enc-hp-shy.eml", Confidentiality::Shy, false),
    ] {
        let Some((outer, payload, _)) = example(name) else { return };
        // The message before it was protected.
        let bare = without_display(&payload, &limits()).unwrap();
        let mut octets = Vec::new();
        payload
            .header
            .fields
            .iter()
            .filter(|field| !is_content_field(field.name()) && !field.is("HP-Outer"))
            .for_each(|field| push_field(&mut octets, &field.raw));
        octets.extend_from_slice(&bare.raw);
        let how = HeaderProtection { outside, legacy_display };
        let composed = compose(&entity(octets), how, true, &limits()).unwrap().unwrap();
        assert_eq!(set(&composed.message.header), set(&outer.header), "{name}");
        let inside = entity([&composed.inside, &b"\r\n"[..]].concat());
        assert_eq!(set(&inside.header), set(&payload.header), "{name}");
        assert_eq!(composed.message.content_type().unwrap().parameter("hp"), Some("cipher"));
        let parameter =
            |entity: &Entity| entity.content_type().unwrap().parameter("hp-legacy-display").map(str::to_owned);
        assert_eq!(parameter(&composed.message), parameter(&payload), "{name}");
        assert_eq!(composed.message.body, payload.body, "{name}");
    }
}

#[test]
fn rfc9788_examples_are_delivered_with_the_fields_that_were_protected() {
    for name in ["baseline", "shy"] {
        let file =
            if name == "shy" { "c.3.3-smime-signed-enc-hp-shy.eml" } else { "c.3.1-smime-signed-enc-hp-baseline.eml" };
        let Some((outer, payload, delivered)) = example(file) else { return };
        for field in ["Subject", "Date", "To", "Message-ID"] {
            let value = |entity: &Entity| entity.header.one(field).unwrap().unwrap().value();
            assert_eq!(value(&delivered), value(&payload), "{file}: {field}");
        }
        assert_eq!(
            delivered.header.one("From").unwrap().unwrap().value(),
            outer.header.one("From").unwrap().unwrap().value()
        );
        assert!(delivered.header.all("HP-Outer").next().is_none());
    }
}

const MAIL: &str = "Received: by somewhere\r\nFrom: Alice Secretname <alice@example.org>\r\nTo: Bob Hiddenname <bob@example.net>\r\n\
    Subject: =?utf-8?q?Pl=C3=A4ne?= to leave\r\nDate: Mon, 1 Jun 2026 10:00:00 +0900\r\nKeywords: moon\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n";

fn mails() -> Vec<String> {
    let plain = "Content-Type: text/plain; charset=us-ascii\r\n\r\nAt eight, then.\r\n";
    let html = "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<html><body class=3D\"a\"><p>At eight, then.</p></body></html>\r\n";
    vec![
        format!("{MAIL}{plain}"),
        format!("{MAIL}\r\nAt eight, then.\r\n"),
        format!(
            "{MAIL}Content-Type: multipart/alternative; boundary=b\r\n\r\npreamble\r\n--b\r\n{plain}\r\n--b\r\n{html}\r\n--b--\r\n"
        ),
        format!(
            "{MAIL}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{plain}\r\n--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nAt eight, then.\r\n--b--\r\n"
        ),
    ]
}

#[test]
fn what_is_to_be_hidden_is_nowhere_outside_and_comes_back() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    for mail in mails() {
        for (outside, signed) in
            [(Confidentiality::Baseline, false), (Confidentiality::Shy, false), (Confidentiality::Shy, true)]
        {
            let how = HeaderProtection { outside, legacy_display: true };
            let draft = Draft::with_protected_header(&entity(mail.clone()), how, true).unwrap();
            let draft = if signed { sign_draft(&pki, draft) } else { draft };
            let sealed = draft
                .encrypt(&encrypt_plan(&[bob], crate::cms::algorithm::ContentEncryption::Aes256Gcm), true)
                .unwrap();
            let sealed = sealed.rope().to_bytes();
            let text = String::from_utf8_lossy(&sealed);
            let hidden: &[&str] =
                if outside == Confidentiality::Shy { &["leave", "moon", "name", "+0900"] } else { &["leave", "moon"] };
            for word in hidden {
                let header = text.split("\r\n\r\n").next().unwrap().replace("filename", "").replace("name=smime", "");
                assert!(!header.contains(word), "{word} in {header}");
            }
            assert!(text.contains("Subject: [...]\r\n") && text.contains("Received: by somewhere"), "{text}");
            let opened = open(&pki, &[bob], sealed);
            let delivered = entity(opened.message.clone());
            let value = |name: &'static str| delivered.header.one(name).unwrap().unwrap().decoded();
            assert_eq!(value("Subject"), "Pläne to leave");
            assert_eq!(value("To"), "Bob Hiddenname <bob@example.net>");
            assert_eq!(value("Date"), "Mon, 1 Jun 2026 10:00:00 +0900");
            assert_eq!(value("Keywords"), "moon");
            let shown = String::from_utf8_lossy(&opened.message).into_owned();
            let told = shown.contains("hp=") || shown.contains("legacy-display") || shown.contains("HP-Outer");
            assert!(!told || signed, "{shown}");
            if !signed {
                assert_eq!(shown.matches("At eight, then.").count(), mail.matches("At eight, then.").count());
                assert!(!shown.contains("Subject: Pläne"), "{shown}");
            }
            let content = String::from_utf8_lossy(&opened.content);
            assert!(content.contains("hp-legacy-display=\"1\""), "{content}");
        }
    }
}

#[test]
fn a_signature_alone_hides_nothing_and_proves_the_fields() {
    let pki = people(NewKey::P256);
    let how = HeaderProtection { outside: Confidentiality::Shy, legacy_display: true };
    let draft = Draft::with_protected_header(&entity(mails().remove(0)), how, false).unwrap();
    let signed = sign_draft(&pki, draft).signed().unwrap().rope().to_bytes();
    let text = String::from_utf8_lossy(&signed).into_owned();
    assert!(text.contains("hp=\"clear\"") && !text.contains("HP-Outer") && !text.contains("legacy-display"), "{text}");
    let opened = open(&pki, &[], signed);
    assert!(opened.verdict.signer.is_some() && !opened.verdict.notes.iter().any(|note| note.contains("differ")));
    // Outside something else than what was signed: what was signed is shown, and all else stays octet for octet.
    let changed = text.replacen("=?utf-8?q?Pl=C3=A4ne?= to leave", "Urgent: pay", 1);
    let changed = changed.replacen("To: Bob Hiddenname <bob@example.net>\r\n", "", 1).replacen(
        "Date:",
        "Reply-To: eve@evil.example\r\nDate:",
        1,
    );
    let opened = open(&pki, &[], changed.clone());
    let told = |part: &str| opened.verdict.notes.iter().any(|note| note.contains(part));
    assert!(told("stand for the outer ones, which differ: Subject, To"), "{:?}", opened.verdict.notes);
    assert!(told("not under protection: Reply-To"), "{:?}", opened.verdict.notes);
    let delivered = entity(opened.message.clone());
    assert_eq!(delivered.header.one("Subject").unwrap().unwrap().decoded(), "Pl\u{e4}ne to leave");
    assert_eq!(delivered.header.to_and_cc(), [crate::address::Mailbox::parse(BOB).unwrap()]);
    assert_eq!(delivered.body, entity(changed.clone()).body);
    assert!(open(&pki, &[], delivered.raw.clone()).verdict.signer.is_some(), "the signature is whole");
    // Where the signature proves nothing, nothing is put in place of anything.
    let broken = changed.replace("At eight, then.", "At nine, then.");
    let opened = open(&pki, &[], broken.clone());
    assert_eq!((opened.verdict.signer.is_none(), opened.message.as_ref()), (true, broken.as_bytes()));
    assert!(opened.verdict.notes.iter().any(|note| note.starts_with("fields under the signature differ")));
}

/// From under the signature is another one: whatever says so, nothing is valid, and From is never replaced.
#[test]
fn a_from_that_differs_under_protection_is_never_valid() {
    let pki = people(NewKey::P256);
    let how = HeaderProtection { outside: Confidentiality::None, legacy_display: false };
    let draft = Draft::with_protected_header(&entity(mails().remove(0)), how, false).unwrap();
    let signed = String::from_utf8(sign_draft(&pki, draft).signed().unwrap().rope().to_bytes().to_vec()).unwrap();
    for outside in [BOB, MALLORY] {
        let changed = signed.replacen("Alice Secretname <alice@example.org>", outside, 1);
        let opened = open(&pki, &[], changed.clone());
        assert!(opened.verdict.signer.is_none(), "{outside}: {}", opened.verdict.reason);
        assert_eq!(opened.message, changed.as_bytes());
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_not_sent_half_hidden() {
    let how = HeaderProtection { outside: Confidentiality::Baseline, legacy_display: false };
    for mail in
        [format!("{MAIL}no field\r\nSubject: b\r\n\r\nx\r\n"), format!("{MAIL}HP-Outer: Subject: x\r\n\r\nx\r\n")]
    {
        assert!(Draft::with_protected_header(&entity(mail), how, true).is_err());
    }
}

#[test]
fn a_wrapped_message_is_what_is_delivered() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let wrapped = format!(
        "From: {ALICE}\r\nSubject: Inside\r\nAuthentication-Results: forged\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    );
    let content = format!("Content-Type: message/rfc822; forwarded=no\r\n\r\n{wrapped}");
    let opened = open(&pki, &[bob], envelope_of(bob, content.as_bytes()));
    let text = String::from_utf8_lossy(&opened.message).into_owned();
    assert!(
        text.contains("Subject: Inside\r\n") && text.ends_with("\r\n\r\nhello\r\n") && !text.contains("rfc822"),
        "{text}"
    );
    assert!(!text.contains("forged"), "{text}");
    // RFC 8551 section 3.1 asks for no parameter: what is of the same author is wrapped; what is another's, or says so, is forwarded.
    let silent = content.replace("; forwarded=no", "");
    let delivered = |content: &str| {
        let opened = open(&pki, &[bob], envelope_of(bob, content.as_bytes()));
        String::from_utf8_lossy(&opened.message).into_owned()
    };
    assert_eq!(delivered(&silent), text);
    for forwarded in [
        content.replace("forwarded=no", "forwarded=yes"),
        silent.replace(ALICE, MALLORY),
        silent.replace("From: alice", "X: alice"),
    ] {
        let text = delivered(&forwarded);
        assert!(text.contains("message/rfc822") && text.contains("Subject: Supper\r\n"), "{text}");
    }
}

/// A mail that is nothing but another one of the same author, forwarded, comes back under its own fields.
#[test]
fn a_mail_that_forwards_is_not_taken_for_one_that_is_wrapped() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let forwarded = format!("From: {ALICE}\r\nSubject: Yesterday\r\nContent-Type: text/plain\r\n\r\nBring bread.\r\n");
    let mail = |parameter: &str| {
        format!(
            "From: {ALICE}\r\nTo: {BOB}\r\nSubject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822{parameter}\r\n\r\n{forwarded}"
        )
    };
    let how = HeaderProtection { outside: Confidentiality::Baseline, legacy_display: false };
    for protected in [false, true] {
        let draft = match protected {
            true => Draft::with_protected_header(&entity(mail("")), how, true).unwrap(),
            false => Draft::new(&entity(mail(""))).unwrap(),
        };
        let sealed = draft.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Gcm), true).unwrap();
        let opened = entity(open(&pki, &[bob], sealed.rope().to_bytes()).message);
        assert_eq!(opened.header.one("Subject").unwrap().unwrap().value(), "Fwd");
        assert_eq!(opened.message(&limits()).unwrap().raw, forwarded);
    }
    // Who says that it is wrapped is believed.
    let sealed = Draft::new(&entity(mail("; forwarded=no"))).unwrap();
    let sealed = sealed.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Gcm), true).unwrap();
    let opened = entity(open(&pki, &[bob], sealed.rope().to_bytes()).message);
    assert_eq!(opened.header.one("Subject").unwrap().unwrap().value(), "Yesterday");
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let seeds = [
        "From: Al <a@example.org>\r\nTo: b@example.net\r\nSubject: Supper\r\nKeywords: k\r\nDate: Mon, 1 Jun 2026 10:00:00 +0200\r\n\r\nBring bread.\r\n",
        "Subject: one\r\nContent-Type: text/plain; hp=cipher; hp-legacy-display=1\r\nHP-Outer: Subject: [...]\r\n\r\nSubject: one\r\n\r\ntext\r\n",
        "Content-Type: message/rfc822; forwarded=no\r\n\r\nFrom: a@example.org\r\nSubject: wrapped\r\n\r\ntext\r\n",
        "Subject: \u{fc}\r\n folded\r\nContent-Type: multipart/mixed; protected-headers=v1; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    ];
    for seed in seeds {
        fuzz_header_protection(seed.as_bytes());
        for at in 0..seed.len() {
            fuzz_header_protection(&seed.as_bytes()[..at]);
            let mut changed = seed.as_bytes().to_vec();
            changed[at] ^= 0x15;
            fuzz_header_protection(&changed);
        }
    }
}
