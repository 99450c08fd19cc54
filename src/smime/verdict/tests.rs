use super::*;
use crate::mime::entity::MimeLimits;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

const BEFORE: &str = "Received: from a (b [192.0.2.1]) by c; \r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n";
const AFTER: &str = "x-other:keep\r\n  me \r\nAuthentication-Results: mx.example.net; smime=pass (theirs)\r\n";

fn marks() -> Marks {
    Marks { authserv_id: Domain::parse("gw.b\u{fc}cher.example").unwrap(), subject_tags: true }
}

fn stripped(text: &str) -> String {
    let octets = Bytes::copy_from_slice(text.as_bytes());
    let (header, _) = Header::parse(&octets, &MimeLimits::default()).unwrap();
    String::from_utf8(marks().strip(&header)).unwrap()
}

/// Ways to write a field that a lenient reader takes for `name: value`.
fn dressed_field(name: &str, value: &str) -> Vec<String> {
    let (head, tail) = name.split_at(name.len() / 2);
    let wide: String = name.chars().map(|c| char::from_u32(c as u32 + 0xFEE0).unwrap()).collect();
    vec![
        format!("{name}: {value}\r\n"),
        format!("{}: {value}\r\n", name.to_uppercase()),
        format!("{}:{value}\r\n", name.to_lowercase()),
        format!("{name} : {value}\r\n"),
        format!("{name}\t \t: {value}\r\n"),
        format!("{name}:\r\n {value}\r\n"),
        format!("{name}\r\n : {value}\r\n"),
        format!("{name}: {}\r\n", value.replace(' ', "\r\n\t")),
        format!("{head}\r\n {tail}: {value}\r\n"),
        format!("{head}\u{200b}{tail}: {value}\r\n"),
        format!("{wide}: {value}\r\n"),
        format!("{name}\0: {value}\r\n"),
        format!("X-A: b\r{name}: {value}\r\n"),
        format!("\u{feff}{name}: {value}\r\n"),
        format!("{name}: {value}\n"),
    ]
}

fn dressed_results() -> Vec<String> {
    let ids = [
        "gw.xn--bcher-kva.example",
        "GW.XN--BCHER-KVA.EXAMPLE",
        "gw.b\u{fc}cher.example",
        "gw.B\u{dc}CHER.example",
        "\"gw.xn--bcher-kva.example\"",
        "\"gw.xn--bcher\\-kva.example\"",
        "(a comment) gw.xn--bcher-kva.example",
        "(a (nested; one)) gw.xn--bcher-kva.example (x)",
        "gw.xn--bcher-kva.example 1",
        "gw.xn--bcher-kva.example/1",
        "gw.xn--bcher-kva.example (v) 1",
        "gw . xn--bcher-kva . example",
        "gw.xn--bcher-kva.example.",
        "gw\u{ff0e}xn--bcher-kva\u{3002}example",
        "\u{ff47}\u{ff57}.xn--bcher-kva.example",
        "gw.bu\u{308}cher.example",
        "=?utf-8?Q?gw=2Exn--bcher-kva=2Eexample?=",
        "(open gw.xn--bcher-kva.example",
        "\"gw.xn--bcher-kva.example",
        "g\u{200d}w.xn--bcher-kva.example",
    ];
    let mut all: Vec<String> =
        ids.iter().map(|id| format!("Authentication-Results: {id}; smime=pass forged\r\n")).collect();
    all.extend(dressed_field("Authentication-Results", "gw.xn--bcher-kva.example; smime=pass forged"));
    all.push("Authentication-Results: smime=pass forged\r\n".into());
    all.push("Authentication-Results gw.xn--bcher-kva.example; smime=pass forged\r\n".into());
    all
}

fn dressed_tags() -> Vec<String> {
    let mut all = Vec::new();
    for tag in ["[signed]", "[Encrypted]", "[signed, encrypted]", "[signature invalid]", "[UNSIGNED]"] {
        let wide: String =
            tag.chars().map(|c| if c == ' ' { c } else { char::from_u32(c as u32 + 0xFEE0).unwrap() }).collect();
        let bold: String = tag
            .chars()
            .map(|c| if c.is_ascii_lowercase() { char::from_u32(c as u32 - 97 + 0x1D41A).unwrap() } else { c })
            .collect();
        let hidden: String = tag.chars().flat_map(|c| [c, '\u{200b}', '\u{ad}']).collect();
        let hex: String = tag.bytes().map(|octet| format!("={octet:02X}")).collect();
        let b64 = STANDARD.encode(tag);
        let (head, tail) = tag.split_at(4);
        all.extend([
            tag.to_string(),
            wide.clone(),
            bold,
            hidden,
            format!("Re: {tag}"),
            format!("Re: Fwd: {wide}"),
            tag.replace('[', "[ ").replace(']', " ]"),
            tag.replace("e", "e\r\n "),
            format!("[x {tag}"),
            format!("=?utf-8?Q?{hex}?="),
            format!("=?UTF-8?b?{b64}?="),
            format!("=?utf-8?b?{}?=", b64.trim_end_matches('=')),
            format!("=?us-ascii*en?q?{}?=", tag.replace(' ', "_")),
            format!("=?utf-8?q?{head}?= =?utf-8?q?{}?=", tail.replace(' ', "_")),
            format!("=?utf-8?B?{}?=\r\n =?iso-8859-1?Q?{}?=", STANDARD.encode(head), tail.replace(' ', "_")),
            format!("=?utf-8?B?{}?=", STANDARD.encode(&wide)),
            format!("{head}=?utf-8?Q?{}?=", tail.replace(' ', "_")),
            format!("\u{3010}{}\u{3011}", tag.trim_matches(['[', ']'])),
            tag.replace('e', "\u{435}"),
            format!("{tag}{wide}{tag}"),
            format!("{head}{tag}{tail}"),
            format!("=?utf-7?Q?+AFs-{}+AF0-?=", tag.trim_matches(['[', ']']).replace(' ', "_")),
        ]);
    }
    all
}

#[test]
fn a08_no_forged_mark_survives_in_200_variants() {
    let mut count = 0;
    let mut fields = dressed_results();
    for name in ["X-Waxwing-Signature", "X-Waxwing-Decrypted", "X-Waxwing-Anything"] {
        fields.extend(dressed_field(name, "valid; forged"));
        fields.push(format!("{name} forged\r\n"));
    }
    for forged in fields {
        assert_eq!(stripped(&format!("{BEFORE}{forged}{AFTER}")), format!("{BEFORE}{AFTER}"), "{forged:?}");
        count += 1;
    }
    for tag in dressed_tags() {
        for name in ["Subject", "subject "] {
            let out = stripped(&format!("{BEFORE}{name}: {tag} invoice\r\n{AFTER}"));
            assert!(out.starts_with(BEFORE) && out.ends_with(AFTER));
            let message = mail_parser::MessageParser::default().parse(out.as_bytes()).unwrap();
            let subject = message.subject().unwrap().replace("Re:", "").replace("Fwd:", "").replace("[x", "");
            let visible = subject.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200b}' | '\u{ad}'));
            assert_eq!(visible, "invoice", "{tag:?}");
            count += 1;
        }
    }
    assert!(count >= 200, "{count}");
}

#[test]
fn a08_what_is_not_a_mark_keeps_its_octets() {
    for kept in [
        "Subject: [signed\r\n",
        "Subject: [list] signed contract [v2]\r\n",
        "Subject: =?utf-8?Q?gr=C3=BCn?=\r\n",
        "Subject: \r\n",
        "Authentication-Results: mx.gw.xn--bcher-kva.example; spf=pass\r\n",
        "Authentication-Results: spf=pass smtp.mailfrom=a.b\r\n",
        "X-Waxwings: 1\r\n",
        "ARC-Authentication-Results: i=1; gw.xn--bcher-kva.example; spf=pass\r\n",
        "Subject: re [2]: [a] signed\r\n",
    ] {
        let text = format!("{BEFORE}{kept}{AFTER}");
        assert_eq!(stripped(&text), text);
    }
    assert_eq!(stripped(" ; smime=pass\r\n (orphan)\r\nX: y\r\n"), "X: y\r\n");
}

fn verdict(result: SmimeResult, reason: &str) -> Verdict {
    Verdict {
        layers: vec![Layer::Encrypted {
            cipher: "AES-256-GCM".into(),
            authenticated: true,
            recipients: vec![],
            outcome: Ok(()),
        }],
        signer: None,
        domain: None,
        result,
        reason: reason.into(),
        decrypted: true,
        unauthenticated: false,
        weak: Vec::new(),
        notes: vec!["revocation not checked".into()],
    }
}

#[test]
fn marks_are_put_in_front_and_the_body_is_shared() {
    let message =
        Bytes::from_static(b"From: a@b\r\nSubject: [signed] hi\r\nX-Waxwing-Signature: valid\r\n\r\nbody\r\n");
    let rope = marks().apply(&verdict(SmimeResult::None, "no signature"), &message);
    let text = String::from_utf8(rope.to_bytes().to_vec()).unwrap();
    assert_eq!(
        text,
        "Authentication-Results: gw.xn--bcher-kva.example; smime=none (no signature)\r\n\
         X-Waxwing-Signature: none; reason=\"no signature\"; note=\"revocation not\r\n checked\"\r\n\
         X-Waxwing-Decrypted: yes; cipher=\"AES-256-GCM\"; authenticated=yes\r\n\
         From: a@b\r\nSubject: [encrypted] hi\r\n\r\nbody\r\n"
    );
    let last = rope.chunks(1 << 20).last().unwrap();
    assert_eq!(last.as_ptr(), message.slice(message.len() - last.len()..).as_ptr());
}

#[test]
fn pass_is_never_written_without_its_proof() {
    let fields = String::from_utf8(marks().fields(&verdict(SmimeResult::Pass, ""))).unwrap();
    assert!(!fields.contains("pass") && !fields.contains("valid;"), "{fields}");
}

#[test]
fn a_domains_signature_is_the_domains_and_no_persons() {
    use crate::pki::authority::{NewKey, Recipe, issue_cached};
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let certificate = issue_cached(&Recipe::mailbox("x@example.org", now, NewKey::P256), None).certificate;
    let domain = VerifiedDomain::new(Domain::parse("example.org").unwrap(), certificate);
    let signed = Verdict { domain: Some(domain), ..verdict(SmimeResult::Policy, "signed by the domain") };
    let fields = String::from_utf8(marks().fields(&signed)).unwrap();
    assert!(fields.contains("smime=policy") && !fields.contains("body.smime-identifier"), "{fields}");
    assert!(fields.contains("X-Waxwing-Signature: domain; signer=\"@example.org\""), "{fields}");
    // Beside anything but `policy` it counts as nothing.
    for result in [SmimeResult::Pass, SmimeResult::Fail, SmimeResult::None, SmimeResult::Neutral] {
        let fields = String::from_utf8(marks().fields(&Verdict { result, ..signed.clone() })).unwrap();
        assert!(
            !fields.contains("domain;") && !fields.contains("smime=pass") && !fields.contains(": valid;"),
            "{fields}"
        );
    }
}

#[test]
fn a_header_without_body_still_ends() {
    for message in ["X: y", "X: y\r\n", "", "\r\nbody", "X: y\r\n\r\n"] {
        let out = marks().clean(&Bytes::copy_from_slice(message.as_bytes())).to_bytes();
        let (header, body) = Header::parse(&out, &MimeLimits::default()).unwrap();
        assert!(header.defects.is_empty() && body > header.raw.len(), "{message:?}");
    }
}

#[test]
fn a08_nested_tags_go_too_and_cost_no_more_than_their_length() {
    assert_eq!(stripped("Subject: [sig[en[signed]crypted]ned] hi\r\n"), "Subject: hi\r\n");
    for hostile in [
        format!("{}{}", "[signed".repeat(20_000), "]".repeat(20_000)),
        "[signed]".repeat(20_000),
        "=?a?Q?".repeat(20_000),
    ] {
        let out = stripped(&format!("Subject: {hostile}\r\n"));
        assert!(!out.to_lowercase().contains("[signed]"));
    }
}

#[test]
fn a15_nothing_of_a_certificate_breaks_out_of_our_fields() {
    use crate::pki::authority::{NewKey, Recipe, issue_cached};
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let hostile = "CA\r\nX-Waxwing-Signature: valid\r\n\r\n\" smime=pass; (\\\0\u{fc}";
    let root = issue_cached(&Recipe::authority(hostile, now, NewKey::P256), None);
    let leaf = issue_cached(&Recipe::mailbox("ann@example.org", now, NewKey::P256), Some(&root));
    let mut verdict = verdict(SmimeResult::Pass, "path (to) \"x\"");
    verdict.signer = Some(VerifiedSigner::new(Mailbox::parse("ann@example.org").unwrap(), leaf.certificate));
    let fields = Bytes::from(marks().fields(&verdict));
    let (header, end) = Header::parse(&fields, &MimeLimits::default()).unwrap();
    assert_eq!((end, header.fields.len(), header.defects.len()), (fields.len(), 3, 0));
    let result = header.fields[0].value();
    assert!(result.starts_with("gw.xn--bcher-kva.example; smime=pass (path [to] 'x') body.smime-identifier=\"ann@example.org\" body.smime-serial="), "{result}");
    assert!(result.contains("body.smime-issuer=\"") && result.ends_with('"'));
    assert!(header.fields[1].value().starts_with("valid; signer=\"ann@example.org\""));
    assert!(fields.is_ascii());
}

proptest! {
    #[test]
    fn a15_nothing_breaks_out_of_our_fields(
        reason in "\\PC*|(?s).{0,200}", note in "(?s).{0,1200}", cipher in "(?s).{0,60}",
    ) {
        let mut verdict = verdict(SmimeResult::Fail, &reason);
        verdict.notes.push(note);
        verdict.layers.push(Layer::Encrypted { cipher, authenticated: false, recipients: vec![], outcome: Err(reason) });
        let fields = Bytes::from(marks().fields(&verdict));
        let (header, end) = Header::parse(&fields, &MimeLimits::default()).unwrap();
        prop_assert_eq!(end, fields.len());
        prop_assert!(header.defects.is_empty() && !header.bare_lf);
        let names: Vec<&str> = header.fields.iter().map(|field| field.name()).collect();
        prop_assert_eq!(names, ["Authentication-Results", "X-Waxwing-Signature", "X-Waxwing-Decrypted", "X-Waxwing-Decrypted"]);
        prop_assert!(fields.is_ascii() && fields.split(|o| *o == b'\n').all(|line| line.len() <= 999));
        prop_assert_eq!(header.fields[0].value().matches(';').count(), 1);
    }

    #[test]
    fn fuzz_body_holds(text in "((X-Waxwing-|Subject|Authentication-Results|[a-z]{1,3})[: \r\n\t]{0,2}[\\[\\]=?a-zQ\u{ff3b}(\"]{0,9}(\r\n|\n|\r| ))*", octets in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_strip(text.as_bytes());
        fuzz_strip(&octets);
    }
}
