//! Layers in layers: triple wrapping (RFC 2634), compression (RFC 3274), several signers, shared secrets, weak algorithms.

use miniz_oxide::deflate::compress_to_vec_zlib;

use super::*;
use crate::cms::compressed::tests::around;
use crate::cms::enveloped::SharedSecret;
use crate::smime::seal::CoSigner;
use crate::smime::verdict::SignerReport;

/// The mail with its entity compressed; what stays outside stays.
fn compressed(message: &Bytes) -> Bytes {
    let whole = entity(message.clone());
    let is_content = |field: &&crate::mime::header::Field| crate::smime::seal::is_content_field(field.name());
    let mut outer = Vec::new();
    let mut inner = Vec::new();
    for field in &whole.header.fields {
        if is_content(&field) { inner.extend_from_slice(&field.raw) } else { outer.extend_from_slice(&field.raw) }
    }
    inner.extend_from_slice(b"\r\n");
    inner.extend_from_slice(&whole.body);
    let object = around(&compress_to_vec_zlib(&inner, 6));
    outer.extend_from_slice(pkcs7_entity(&object).as_bytes());
    outer.into()
}

fn kinds(opened: &Opened) -> String {
    let letter = |layer: &Layer| match layer {
        Layer::Encrypted { outcome: Ok(()), .. } => 'E',
        Layer::Encrypted { .. } => 'e',
        Layer::Signed { .. } => 'S',
        Layer::Compressed { outcome: Ok(()) } => 'C',
        Layer::Compressed { .. } => 'c',
    };
    opened.verdict.layers.iter().map(letter).collect()
}

/// RFC 2634 section 1.1: signed, encrypted, signed again, in both forms of the outer signature.
#[test]
fn triple_wrapping_is_undone() {
    let pki = people(NewKey::P256);
    let (alice, bob, mallory) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap(), pki.leaf(MALLORY).unwrap());
    for inner in [Form::Clear, Form::Opaque] {
        for outer in [Form::Clear, Form::Opaque] {
            for cipher in [ContentEncryption::Aes256Gcm, ContentEncryption::Aes128Cbc] {
                let once = signed(&pki, alice, inner, mail());
                let twice = encrypted(&[bob], cipher, once);
                let thrice = signed(&pki, alice, outer, twice.clone());
                let opened = open(&pki, &[bob], thrice.clone());
                assert_eq!(kinds(&opened), "SES");
                assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
                assert!(!opened.verdict.unauthenticated);
                assert!(opened.content.ends_with(b"Bring bread.\r\n"));
                // Without the key the outer signature says nothing of what is inside.
                let shut = open(&pki, &[], thrice);
                assert_eq!((kinds(&shut).as_str(), shut.verdict.result), ("Se", SmimeResult::Neutral));
                // A stranger's outer signature makes no author, and takes none away.
                let resigned = open(&pki, &[bob], signed(&pki, mallory, outer, twice));
                assert_eq!((kinds(&resigned).as_str(), resigned.verdict.result), ("SES", SmimeResult::Pass));
            }
        }
    }
    // The other way round: encrypted, signed, encrypted.
    let inner = encrypted(&[bob], ContentEncryption::Aes256Gcm, mail());
    let outer = encrypted(&[bob], ContentEncryption::Aes256Gcm, signed(&pki, alice, Form::Clear, inner));
    let opened = open(&pki, &[bob], outer);
    assert_eq!(
        (kinds(&opened).as_str(), opened.verdict.result),
        ("ESe", SmimeResult::Neutral),
        "one operation a key (A3)"
    );
}

#[test]
fn what_is_compressed_is_read_in_every_order() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let gcm = |message: Bytes| encrypted(&[bob], ContentEncryption::Aes256Gcm, message);
    let cbc = |message: Bytes| encrypted(&[bob], ContentEncryption::Aes128Cbc, message);
    let sign = |message: Bytes| signed(&pki, alice, Form::Opaque, message);
    let text: &[u8] = b"At eight, then.\r\n.\r\nBring bread.\r\n";
    for (message, layers, result, unauthenticated) in [
        (compressed(&mail()), "C", SmimeResult::None, false),
        (compressed(&compressed(&mail())), "CC", SmimeResult::None, false),
        (sign(compressed(&mail())), "SC", SmimeResult::Pass, false),
        (compressed(&sign(mail())), "CS", SmimeResult::Pass, false),
        (gcm(compressed(&mail())), "EC", SmimeResult::None, false),
        (gcm(compressed(&sign(mail()))), "ECS", SmimeResult::Pass, false),
        (gcm(sign(compressed(&mail()))), "ESC", SmimeResult::Pass, false),
        (cbc(compressed(&mail())), "EC", SmimeResult::None, true),
        (cbc(compressed(&sign(mail()))), "ECS", SmimeResult::Pass, false),
        (compressed(&gcm(sign(mail()))), "CES", SmimeResult::Pass, false),
    ] {
        let opened = open(&pki, &[bob], message.clone());
        assert_eq!(kinds(&opened), layers);
        assert_eq!(opened.verdict.result, result, "{layers}: {}", opened.verdict.reason);
        assert_eq!(opened.verdict.unauthenticated, unauthenticated, "{layers}");
        assert!(opened.content.ends_with(text), "{layers}");
        // What was decrypted and is not signed around is delivered as it was before it was compressed; without a decryption nothing changes.
        match layers {
            "EC" => assert!(opened.message.ends_with(text) && opened.message.starts_with(b"From: Alice"), "{layers}"),
            "C" | "CC" | "SC" | "CS" => assert_eq!(opened.message, message),
            _ => {}
        }
    }
}

/// A7: what is compressed under a signature names no other author than the message.
#[test]
fn a07_compressed_content_that_names_another_author_is_not_valid() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let inside = b"From: mallory@example.com\r\nContent-Type: text/plain\r\n\r\nPay Mallory.\r\n";
    let object = around(&compress_to_vec_zlib(inside, 6));
    let message = signed(&pki, alice, Form::Opaque, pkcs7_message(&object));
    let opened = open(&pki, &[], message);
    assert_eq!((kinds(&opened).as_str(), opened.verdict.result), ("SC", SmimeResult::Fail));
    assert!(opened.verdict.signer.is_none() && opened.announced.is_empty());
}

/// The same of a domain's signature: it does not speak for whoever is named in what it has compressed.
#[test]
fn a07_what_a_domain_signed_compressed_names_no_other_author() {
    let pki = people(NewKey::P256);
    let recipe = Recipe { mailboxes: vec!["@example.org".into()], ..Recipe::mailbox("gateway", now(), NewKey::P256) };
    let gateway = issue_cached(&recipe, Some(&pki.intermediate));
    let received = |from: &str| {
        let inside = format!("{from}Content-Type: text/plain\r\n\r\nPay Mallory.\r\n");
        let object = around(&compress_to_vec_zlib(inside.as_bytes(), 6));
        open(&pki, &[], signed(&pki, &gateway, Form::Opaque, pkcs7_message(&object)))
    };
    for honest in ["", "From: alice@example.org\r\n"] {
        let opened = received(honest);
        assert_eq!((kinds(&opened).as_str(), opened.verdict.result), ("SC", SmimeResult::Policy));
        assert_eq!(opened.verdict.domain.as_ref().unwrap().domain().as_str(), "example.org");
    }
    let opened = received("From: mallory@example.com\r\n");
    assert_eq!(
        (kinds(&opened).as_str(), opened.verdict.result),
        ("SC", SmimeResult::Fail),
        "{}",
        opened.verdict.reason
    );
    assert!(opened.verdict.domain.is_none() && opened.verdict.signer.is_none());
}

/// Signed twice: the inner layer names another author, and the outer one, which shows none, does not make it good.
#[test]
fn a07_a_second_signature_around_another_author_is_not_valid() {
    let pki = people(NewKey::P256);
    let alice = pki.leaf(ALICE).unwrap();
    let chain = [pki.intermediate.certificate.clone()];
    let by_alice = parameters(&alice.certificate, &chain, scheme_of(alice));
    let twice = |from: &str, opaque: bool| {
        let text = format!("{from}Content-Type: text/plain; protected-headers=\"v1\"\r\n\r\nPay Mallory.\r\n");
        let inner = match opaque {
            true => pkcs7_entity(&sign(alice, &by_alice, &text.clone().into(), true)),
            false => {
                let signature = signature_part(&sign(alice, &by_alice, &text.clone().into(), false));
                multipart("", &[text, signature])
            }
        };
        open(&pki, &[], pkcs7_message(&sign(alice, &by_alice, &inner.into(), true)))
    };
    for opaque in [true, false] {
        let honest = twice("From: alice@example.org\r\n", opaque);
        assert_eq!(
            (kinds(&honest).as_str(), honest.verdict.result),
            ("SS", SmimeResult::Pass),
            "{}",
            honest.verdict.reason
        );
        let opened = twice("From: mallory@example.com\r\n", opaque);
        assert_eq!(
            (kinds(&opened).as_str(), opened.verdict.result),
            ("SS", SmimeResult::Fail),
            "{}",
            opened.verdict.reason
        );
        assert!(opened.verdict.signer.is_none() && opened.announced.is_empty());
    }
}

/// What was decrypted may be as much larger as the message received allows, not its header alone.
#[test]
fn a12_what_is_compressed_in_an_envelope_is_measured_on_the_message_received() {
    let pki = people(NewKey::P256);
    let bob = pki.leaf(BOB).unwrap();
    let lines: String = (0..6_000_u32).map(|at| format!("{:08x} a line\r\n", at.wrapping_mul(2_654_435_761))).collect();
    let message = format!("From: alice@example.org\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{lines}");
    let sealed = encrypted(&[bob], ContentEncryption::Aes256Gcm, compressed(&message.into()));
    let opened = open(&pki, &[bob], sealed);
    assert_eq!(kinds(&opened), "EC", "{}", opened.verdict.reason);
    assert!(opened.message.ends_with(lines.as_bytes()));
}

#[test]
fn a12_a_compressed_layer_keeps_to_its_bounds() {
    let pki = people(NewKey::P256);
    let mut content = b"Content-Type: text/plain\r\n\r\n".to_vec();
    content.extend(std::iter::repeat_n(b'a', 10 << 20));
    let bomb = around(&compress_to_vec_zlib(&content, 10));
    let opened = open(&pki, &[], pkcs7_message(&bomb));
    assert_eq!((kinds(&opened).as_str(), opened.verdict.result), ("c", SmimeResult::PermError));
    assert!(opened.verdict.reason.contains("20 octets"), "{}", opened.verdict.reason);
    // Layer in layer, each within 20:1: the message as received bounds them all.
    let mut object = compress_to_vec_zlib(&content, 10);
    for _ in 0..2 {
        object = compress_to_vec_zlib(pkcs7_entity(&around(&object)).as_bytes(), 10);
    }
    let opened = open(&pki, &[], pkcs7_message(&around(&object)));
    assert_eq!(opened.verdict.result, SmimeResult::PermError);
    assert!(opened.content.len() <= 20 * opened.message.len());
    // The configured size counts too.
    let small = OpenContext { decompressed: 100, ..context(&pki, &[]) };
    let opened = open_with(small, &holder(&[]), compressed(&mail()));
    assert_eq!(opened.verdict.result, SmimeResult::None, "{}", opened.verdict.reason);
    let smaller = OpenContext { decompressed: 20, ..context(&pki, &[]) };
    let opened = open_with(smaller, &holder(&[]), compressed(&mail()));
    assert_eq!(opened.verdict.result, SmimeResult::PermError);
}

/// A7: all signers have to be good; one of them has to be the author.
#[test]
fn a07_of_several_signers_each_has_to_be_good() {
    let pki = people(NewKey::P256);
    let (alice, mallory) = (pki.leaf(ALICE).unwrap(), pki.leaf(MALLORY).unwrap());
    let beside = |other: &Issued| CoSigner {
        key: key_id(other),
        certificate: other.certificate.clone(),
        chain: vec![pki.intermediate.certificate.clone()],
        scheme: scheme_of(other),
    };
    let sign = |first: &Issued, others: Vec<CoSigner>, form| {
        let signing = Draft::new(&entity(mail())).unwrap().sign_with(sign_plan(&pki, first, form), others).unwrap();
        let keys = holder(&[alice, mallory]);
        let answers = signing.operations().into_iter().map(|operation| perform(&keys, operation).unwrap()).collect();
        signing.finish_all(answers, true).unwrap().signed().unwrap().rope().to_bytes()
    };
    for form in [Form::Clear, Form::Opaque] {
        for (first, second) in [(alice, mallory), (mallory, alice)] {
            let message = sign(first, vec![beside(second)], form);
            let opened = open(&pki, &[], message.clone());
            let Layer::Signed { signers, .. } = &opened.verdict.layers[0] else { panic!() };
            assert_eq!(signers.len(), 2);
            assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
            assert_eq!(opened.verdict.signer.as_ref().unwrap().mailbox().to_string(), ALICE);
            // One octet of either signature changed: nothing is valid any more.
            let whole = entity(message.clone());
            let object = match form {
                Form::Opaque => whole.decoded_body().unwrap(),
                Form::Clear => whole.parts(&MimeLimits::default()).unwrap().remove(1).decoded_body().unwrap(),
            };
            let data = SignedData::parse(&object).unwrap();
            for index in 0..2 {
                let signature = data.signers[index].signature_octets();
                let at = memchr::memmem::find(&object, signature).unwrap() + signature.len() - 1;
                let mut bad = object.to_vec();
                bad[at] ^= 1;
                let bad = match form {
                    Form::Opaque => Bytes::from(pkcs7_message(&bad)),
                    Form::Clear => {
                        let head = b"filename=smime.p7s\r\n\r\n";
                        let start = memchr::memmem::find(&message, head).unwrap() + head.len();
                        let end = memchr::memmem::rfind(&message, b"\r\n--").unwrap();
                        [&message[..start], base64(&bad).trim_end().as_bytes(), &message[end..]].concat().into()
                    }
                };
                let opened = open(&pki, &[], bad);
                assert_eq!(opened.verdict.result, SmimeResult::Fail, "{}", opened.verdict.reason);
            }
        }
    }
    // Two strangers make no author.
    let opened = open(&pki, &[], sign(mallory, vec![beside(mallory)], Form::Opaque));
    assert_eq!(opened.verdict.result, SmimeResult::Fail);
}

/// A11: the checks are one message's, however many signers it has and however its layers share them.
#[test]
fn a11_signers_and_layers_share_the_checks_of_one_message() {
    let pki = people(NewKey::P256);
    let (alice, bob) = (pki.leaf(ALICE).unwrap(), pki.leaf(BOB).unwrap());
    let limited = |signatures: usize, message: &Bytes| {
        let mut context = context(&pki, &[bob]);
        context.path.signatures = signatures;
        open_with(context, &holder(&[bob]), message.clone())
    };
    // A signature and two certificates.
    let once = signed(&pki, alice, Form::Opaque, mail());
    let opened = limited(3, &once);
    assert_eq!(opened.verdict.result, SmimeResult::Pass, "{}", opened.verdict.reason);
    let opened = limited(2, &once);
    assert_eq!(opened.verdict.result, SmimeResult::Policy, "{}", opened.verdict.reason);
    assert!(opened.verdict.reason.contains("signature checks"), "{}", opened.verdict.reason);
    // The second signer finds what the first has left; so does the second layer.
    let beside = CoSigner {
        key: key_id(alice),
        certificate: alice.certificate.clone(),
        chain: vec![pki.intermediate.certificate.clone()],
        scheme: scheme_of(alice),
    };
    let signing = Draft::new(&entity(mail())).unwrap();
    let signing = signing.sign_with(sign_plan(&pki, alice, Form::Opaque), vec![beside]).unwrap();
    let keys = holder(&[alice]);
    let answers = signing.operations().into_iter().map(|operation| perform(&keys, operation).unwrap()).collect();
    let twice = signing.finish_all(answers, true).unwrap().signed().unwrap().rope().to_bytes();
    let inner = signed_draft(&pki, alice, Form::Opaque, mail());
    let between = inner.encrypt(&encrypt_plan(&[bob], ContentEncryption::Aes256Gcm), true).unwrap();
    let nested = signed(&pki, alice, Form::Opaque, between.rope().to_bytes());
    for message in [twice, nested] {
        let spent = |opened: &Opened| {
            let signers = opened.verdict.layers.iter().filter_map(|layer| match layer {
                Layer::Signed { signers, .. } => Some(signers),
                _ => None,
            });
            let why = |why: &Result<(), String>| why.as_ref().is_err_and(|why| why.contains("signature checks"));
            let path = |one: &SignerReport| one.path.as_ref().is_err_and(|why| why.contains("signature checks"));
            signers.flatten().filter(|one| why(&one.signature) || path(one)).count()
        };
        assert_eq!(
            (spent(&limited(6, &message)), spent(&limited(5, &message)), spent(&limited(3, &message))),
            (0, 1, 1)
        );
    }
}

/// A shared key opens without a private key; the gateway, which has none, leaves the mail shut.
#[test]
fn a_shared_secret_opens_an_envelope() {
    if !crate::outside::peers(&["openssl"]) {
        return;
    }
    let pki = people(NewKey::P256);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("content"), signed(&pki, pki.leaf(ALICE).unwrap(), Form::Clear, mail())).unwrap();
    let how: [&[&str]; 2] = [
        &["-secretkey", "000102030405060708090a0b0c0d0e0f", "-secretkeyid", "01", "-aes-128-gcm"],
        &["-pwri_password", "sesame", "-aes-256-cbc"],
    ];
    for how in how {
        let mut command = std::process::Command::new("openssl");
        command.args(["cms", "-encrypt", "-binary", "-outform", "DER", "-in", "content", "-out", "sealed"]);
        assert!(command.args(how).current_dir(dir.path()).status().unwrap().success());
        let message = pkcs7_message(&std::fs::read(dir.path().join("sealed")).unwrap());
        let secrets = vec![
            SharedSecret::Password("other".to_owned().into()),
            SharedSecret::Password("sesame".to_owned().into()),
            SharedSecret::Kek { identifier: None, key: (0..16).collect::<Vec<u8>>().into() },
        ];
        let opened = open_with(OpenContext { secrets, ..context(&pki, &[]) }, &holder(&[]), message.clone());
        assert_eq!((kinds(&opened).as_str(), opened.verdict.result), ("ES", SmimeResult::Pass));
        assert_eq!(opened.operations, 0, "no private key was asked");
        let shut = open(&pki, &[], message.clone());
        assert_eq!((kinds(&shut).as_str(), shut.message), ("e", Bytes::from(message.clone())));
        let secrets = vec![SharedSecret::Password("other".to_owned().into())];
        let shut = open_with(OpenContext { secrets, ..context(&pki, &[]) }, &holder(&[]), message);
        assert_eq!(kinds(&shut), "e");
    }
}

/// A certificate whose key is for PSS alone (id-RSASSA-PSS, RFC 4055): what OpenSSL signs with it is verified here, and the other way round.
#[test]
fn a_key_for_pss_alone_signs_and_is_verified_both_ways() {
    if !crate::outside::peers(&["openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let output =
            std::process::Command::new("openssl").args(line.split(' ')).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let write = |name: &str, octets: &[u8]| std::fs::write(dir.path().join(name), octets).unwrap();
    let bound =
        "-pkeyopt rsa_pss_keygen_md:sha384 -pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48";
    write(
        "extensions",
        b"subjectAltName=email:alice@example.org\nkeyUsage=critical,digitalSignature,keyEncipherment\n",
    );
    write("content", b"Content-Type: text/plain\r\n\r\nsigned with PSS\r\n");
    run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Root -days 3650");
    for parameters in ["-pkeyopt rsa_keygen_bits:2048", &format!("-pkeyopt rsa_keygen_bits:2048 {bound}")] {
        run(&format!("genpkey -algorithm RSA-PSS {parameters} -out key.pem"));
        run("req -new -key key.pem -subj /CN=Alice -out request -sigopt rsa_padding_mode:pss");
        run("x509 -req -in request -CA ca.pem -CAkey ca.key -extfile extensions -days 3650 -out alice.pem");
        run("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der");
        run(
            "cms -sign -binary -nodetach -md sha384 -signer alice.pem -inkey key.pem -keyopt rsa_padding_mode:pss -keyopt rsa_pss_saltlen:48 -in content -outform DER -out signed",
        );
        let certificate = |name: &str| Certificate::from_pem_or_der(&read(name)).unwrap().remove(0);
        let (root, alice) = (certificate("ca.pem"), certificate("alice.pem"));
        let anchor = crate::pki::path::TrustAnchor { certificate: root, scope: crate::pki::path::AnchorScope::Global };
        let trust = TrustSet { anchors: vec![anchor], ..TrustSet::default() };
        let context = || OpenContext::new(Vec::new(), Arc::new(trust.clone()), Timestamp::now());
        let theirs = open_with(context(), &SoftwareKeys::default(), pkcs7_message(&read("signed")));
        assert_eq!(theirs.verdict.result, SmimeResult::Pass, "{}", theirs.verdict.reason);
        let mut other = read("signed");
        *other.last_mut().unwrap() ^= 1;
        let other = open_with(context(), &SoftwareKeys::default(), pkcs7_message(&other));
        assert_eq!(other.verdict.result, SmimeResult::Fail);
        // However its keyUsage reads: nothing is encrypted to it.
        assert!(alice.fits(crate::pki::certificate::Purpose::Encryption).is_err());
        let mut keys = SoftwareKeys::default();
        let key = keys.insert(crate::keys::SoftwareKey::from_pkcs8(&read("key.der")).unwrap());
        // The profile's wish for PKCS#1 does not count: the key has only PSS.
        let scheme =
            crate::policy::Profile::builtin("compatible").unwrap().signature_scheme(alice.public_key()).unwrap();
        let plan = crate::smime::seal::SignPlan {
            key,
            certificate: alice,
            chain: Vec::new(),
            encryption_certificate: None,
            scheme,
            digest: scheme.digest(),
            form: Form::Opaque,
            signing_time: Timestamp::now(),
            capabilities: Vec::new(),
            second: None,
        };
        let signing = Draft::new(&entity(mail())).unwrap().sign(plan).unwrap();
        let answer = perform(&keys, signing.operation()).unwrap();
        let message = signing.finish(answer, true).unwrap().signed().unwrap().rope().to_bytes();
        let ours = open_with(context(), &SoftwareKeys::default(), message.clone());
        assert_eq!(ours.verdict.result, SmimeResult::Pass, "{}", ours.verdict.reason);
        write("ours", &message);
        run("cms -verify -in ours -CAfile ca.pem -out verified");
        assert!(read("verified").ends_with(b"Bring bread.\r\n"));
    }
}

/// What the legacy switches let in is marked in the verdict, in our fields and on each signer.
#[test]
fn what_is_weak_is_read_by_the_switch_and_marked() {
    let Some(dir) = crate::outside::corpora() else { return };
    let message = std::fs::read(dir.join("rfc4134/files/4.2.bin")).unwrap();
    let pki = people(NewKey::P256);
    let strict = open(&pki, &[], pkcs7_message(&message));
    assert_eq!(strict.verdict.result, SmimeResult::Policy, "{}", strict.verdict.reason);
    assert!(strict.verdict.weak.is_empty());
    // Each switch for itself: the key is too short, whatever is allowed of the digest, and the other way round.
    for legacy in [Legacy { weak_keys: false, ..Legacy::ALL }, Legacy { sha1_signatures: false, ..Legacy::ALL }] {
        let half = open_with(context(&pki, &[]).with_legacy(legacy), &holder(&[]), pkcs7_message(&message));
        assert_eq!(half.verdict.result, SmimeResult::Policy, "{}", half.verdict.reason);
    }
    let old = open_with(context(&pki, &[]).with_legacy(Legacy::ALL), &holder(&[]), pkcs7_message(&message));
    assert!(old.verdict.weak.iter().any(|weak| weak.contains("SHA-1")), "{:?}", old.verdict.weak);
    assert!(old.verdict.weak.iter().any(|weak| weak.contains("RSA-1024")), "{:?}", old.verdict.weak);
    assert!(old.verdict.reason.contains("weak: "), "{}", old.verdict.reason);
    let marks = crate::smime::verdict::Marks {
        authserv_id: crate::address::Domain::parse("gw.example.net").unwrap(),
        subject_tags: false,
    };
    let fields = String::from_utf8(marks.fields(&old.verdict)).unwrap().replace("\r\n ", " ");
    assert!(fields.contains("weak=") && fields.contains("SHA-1"), "{fields}");
    // 3DES, with a key of Bob's.
    if !crate::outside::peers(&["openssl"]) {
        return;
    }
    let pki = people(NewKey::Rsa2048);
    let bob = pki.leaf(BOB).unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("content"), mail()).unwrap();
    std::fs::write(files.path().join("bob"), crate::pki::pem::armor("CERTIFICATE", bob.certificate.der())).unwrap();
    let mut command = std::process::Command::new("openssl");
    command.args(["cms", "-encrypt", "-binary", "-outform", "DER", "-in", "content", "-out", "sealed", "-des3", "bob"]);
    assert!(command.current_dir(files.path()).status().unwrap().success());
    let message = pkcs7_message(&std::fs::read(files.path().join("sealed")).unwrap());
    let strict = open(&pki, &[bob], message.clone());
    assert!(!strict.verdict.decrypted && strict.operations == 0);
    let old = open_with(context(&pki, &[bob]).with_legacy(Legacy::ALL), &holder(&[bob]), message);
    assert!(old.verdict.decrypted);
    assert_eq!(old.verdict.weak, ["encrypted with 3DES-CBC"]);
}

/// Bouncy Castle's samples: a countersignature is shown beside its signer, and a compressed object opens.
#[test]
fn foreign_countersignatures_and_compressed_data_are_read() {
    let Some(dir) = crate::outside::corpora() else { return };
    let pki = people(NewKey::P256);
    let file = |name: &str| std::fs::read(dir.join("bc-cms-literals").join(name)).unwrap();
    let opened = open(&pki, &[], pkcs7_message(&file("NewSignedDataTest.xtraCounterSig.der")));
    let Layer::Signed { signers, .. } = &opened.verdict.layers[0] else { panic!() };
    assert!(signers.iter().any(|signer| signer.countersigned.iter().any(|by| by.contains("not counted"))));
    assert_ne!(opened.verdict.result, SmimeResult::Pass);
    let object = Bytes::from(file("NewCompressedDataStreamTest.compData.der"));
    let content = crate::cms::compressed::CompressedData::parse(&object).unwrap().open(1 << 20).unwrap();
    assert_eq!(content, file("NewCompressedDataStreamTest.uncompData.der"));
}
