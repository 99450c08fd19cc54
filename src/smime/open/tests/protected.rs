//! Header fields under protection.

use super::*;

#[test]
fn a_protected_subject_takes_the_outer_ones_place() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let content =
        |parameter: &str, subject: &str| format!("{subject}Content-Type: text/plain; {parameter}\r\n\r\nhello\r\n");
    let delivered = |content: &str| {
        let opened = open(&pki, &[bob], envelope_of(bob, content.as_bytes()));
        let subjects: Vec<String> = entity(opened.message).header.all("Subject").map(|field| field.value()).collect();
        subjects.join("|")
    };
    for parameter in ["hp=\"cipher\"", "hp=\"clear\"", "protected-headers=\"v1\""] {
        assert_eq!(delivered(&content(parameter, "Subject: Secret plan\r\n")), "Secret plan");
        assert_eq!(delivered(&content(parameter, "Subject: One\r\nSubject: Two\r\n")), "Supper");
        assert_eq!(delivered(&content(parameter, "")), "Supper");
    }
    assert_eq!(delivered(&content("charset=utf-8", "Subject: Secret plan\r\n")), "Supper");
    // The same with a signature between the envelope and the content.
    let chain = [pki.intermediate.certificate.clone()];
    let inner = Bytes::from(content("hp=\"cipher\"", "Subject: Secret plan\r\n"));
    let object = sign(alice, &parameters(&alice.certificate, &chain, scheme_of(alice)), &inner, true);
    assert_eq!(delivered(&pkcs7_entity(&object)), "Secret plan");
}

#[test]
fn a09_to_and_cc_under_the_signature_are_compared_with_the_recipient() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let chain = [pki.intermediate.certificate.clone()];
    let (bob, dora): (Mailbox, Mailbox) = (Mailbox::parse(BOB).unwrap(), Mailbox::parse("dora@example.net").unwrap());
    let received = |content: &str| {
        let inner = Bytes::copy_from_slice(content.as_bytes());
        let object = sign(alice, &parameters(&alice.certificate, &chain, scheme_of(alice)), &inner, true);
        let opened = open(&pki, &[], pkcs7_message(&object));
        assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
        (opened.is_addressed_to(&bob), opened.is_addressed_to(&dora))
    };
    for protected in ["hp=\"clear\"", "hp=\"cipher\"", "protected-headers=\"v1\""] {
        let content = format!("To: Bob <{BOB}>\r\nContent-Type: text/plain; {protected}\r\n\r\nhello\r\n");
        assert_eq!(received(&content), (true, false), "{content}");
        assert_eq!(received(&content.replace("To: Bob", "Cc: Bob")), (true, false));
        assert_eq!(received(&content.replace("To: Bob <bob@example.net>\r\n", "")), (true, true));
    }
    let wrapped = format!("Content-Type: message/rfc822\r\n\r\nFrom: {ALICE}\r\nTo: {BOB}\r\n\r\nhello\r\n");
    assert_eq!(received(&wrapped), (true, false));
    // Not said to be protected: nothing to compare.
    assert_eq!(received(&format!("To: {BOB}\r\nContent-Type: text/plain\r\n\r\nhello\r\n")), (true, true));
}
