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

/// A signature of the author's domain: neither the author's nor wrong, and not of a domain that is another one.
#[test]
fn a_domain_signature_is_the_domains_and_never_the_authors() {
    let pki = people(NewKey::P256);
    let domain = |address: &str| {
        issue_cached(
            &Recipe { mailboxes: vec![address.into()], ..Recipe::mailbox("gateway", now(), NewKey::P256) },
            Some(&pki.intermediate),
        )
    };
    let chain = [pki.intermediate.certificate.clone()];
    let signed = |signer: &Issued, inner: &str| {
        let inner = Bytes::copy_from_slice(inner.as_bytes());
        let object = sign(signer, &parameters(&signer.certificate, &chain, scheme_of(signer)), &inner, true);
        open(&pki, &[], pkcs7_message(&object))
    };
    const PLAIN: &str = "Content-Type: text/plain\r\n\r\nhello\r\n";
    for address in ["@example.org", "domain-signing-authority@example.org"] {
        let opened = signed(&domain(address), PLAIN);
        let verdict = &opened.verdict;
        assert_eq!((verdict.result, verdict.signer.is_none()), (SmimeResult::Policy, true), "{}", verdict.reason);
        assert_eq!(verdict.domain.as_ref().unwrap().domain().as_str(), "example.org");
        assert!(verdict.reason.starts_with("signed by the domain example.org"), "{}", verdict.reason);
        assert!(opened.announced.is_empty(), "nothing is learned of a person");
        // A From inside that is another one: nobody's.
        let opened = signed(&domain(address), &format!("From: {MALLORY}\r\n{PLAIN}"));
        assert_eq!((opened.verdict.result, opened.verdict.domain.is_none()), (SmimeResult::Fail, true));
    }
    for address in
        ["@example.com", "@sub.example.org", "domain-confidentiality-authority@example.org", "postmaster@example.org"]
    {
        let opened = signed(&domain(address), PLAIN);
        assert_eq!((opened.verdict.result, opened.verdict.domain.is_none()), (SmimeResult::Fail, true), "{address}");
    }
    // Under no anchor: not the domain's either.
    let stranger = issue_cached(
        &Recipe { mailboxes: vec!["@example.org".into()], ..Recipe::mailbox("stranger", now(), NewKey::P256) },
        None,
    );
    let opened = signed(&stranger, PLAIN);
    assert_eq!(
        (opened.verdict.result, opened.verdict.domain.is_none()),
        (SmimeResult::Policy, true),
        "{}",
        opened.verdict.reason
    );
    assert!(!opened.verdict.reason.contains("signed by the domain"), "{}", opened.verdict.reason);
}

/// CBC whose content a domain signed: what the signature covers is delivered, and not called unauthenticated (A2).
#[test]
fn a_domain_signature_proves_the_content_of_cbc() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let recipe = Recipe { mailboxes: vec!["@example.org".into()], ..Recipe::mailbox("gateway", now(), NewKey::P256) };
    let gateway = issue_cached(&recipe, Some(&pki.intermediate));
    let draft = signed_draft(&pki, &gateway, Form::Clear, mail());
    let plan = encrypt_plan(&[bob], ContentEncryption::Aes256Cbc);
    let opened = open(&pki, &[bob], draft.encrypt(&plan, true).unwrap().rope().to_bytes());
    assert!(opened.verdict.domain.is_some() && !opened.verdict.unauthenticated, "{:?}", opened.verdict.notes);
    assert!(String::from_utf8_lossy(&opened.message).contains("Bring bread."));
}
