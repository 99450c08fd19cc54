//! Whole messages, with their MIME, of OpenSSL's and of ours.

use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyTransport, SignatureScheme};
use waxwing::pki::authority::NewKey;
use waxwing::smime::seal::{Draft, Form};
use waxwing::smime::verdict::SmimeResult;

use crate::outside::peers as present;
use crate::place::{
    ALICE, BOB, CONTENT, Place, as_message, crlf, encrypt, entity, mail, open, sign, tampered, tampered_object,
};

fn signature_schemes(kind: NewKey) -> Vec<SignatureScheme> {
    match kind {
        NewKey::P256 => vec![SignatureScheme::Ecdsa(Digest::Sha256)],
        _ => vec![SignatureScheme::RsaPkcs1(Digest::Sha256), SignatureScheme::RsaPss(Digest::Sha256, 32)],
    }
}

#[test]
fn openssl_verifies_what_we_sign() {
    if !present(&["openssl"]) {
        return;
    }
    for kind in [NewKey::Rsa2048, NewKey::P256] {
        let place = Place::new(kind);
        for scheme in signature_schemes(kind) {
            for form in [Form::Clear, Form::Opaque] {
                let message = sign(&place, scheme, form).signed().unwrap().rope().to_bytes();
                place.write("mail", &message);
                let verify = ["cms", "-verify", "-in", "mail", "-CAfile", "root.crt", "-out", "out"];
                place.must("openssl", &verify);
                assert_eq!(crlf(&place.read("out")), CONTENT.as_bytes(), "{scheme:?} {form:?}");
                if form == Form::Clear {
                    place.write("mail", &tampered(&message));
                    assert!(!place.run("openssl", &verify).status.success());
                    assert_eq!(open(&place, tampered(&message)).verdict.result, SmimeResult::Fail);
                }
            }
        }
    }
}

#[test]
fn openssl_decrypts_what_we_encrypt() {
    if !present(&["openssl"]) {
        return;
    }
    let oaep = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);
    for (kind, transports) in [(NewKey::Rsa2048, vec![KeyTransport::RsaPkcs1, oaep]), (NewKey::P256, vec![oaep])] {
        let place = Place::new(kind);
        for content in [
            ContentEncryption::Aes128Cbc,
            ContentEncryption::Aes256Cbc,
            ContentEncryption::Aes128Gcm,
            ContentEncryption::Aes256Gcm,
        ] {
            for transport in &transports {
                let message = encrypt(&place, &Draft::new(&mail()).unwrap(), content, *transport);
                place.write("mail", &message);
                place.must(
                    "openssl",
                    &["cms", "-decrypt", "-in", "mail", "-recip", "bob.crt", "-inkey", "bob.key", "-out", "out"],
                );
                assert_eq!(crlf(&place.read("out")), CONTENT.as_bytes(), "{content:?} {transport:?}");
                let object = entity(message).decoded_body().unwrap();
                let broken = as_message(&tampered_object(&object));
                place.write("mail", broken.as_bytes());
                let theirs = place.run(
                    "openssl",
                    &["cms", "-decrypt", "-in", "mail", "-recip", "bob.crt", "-inkey", "bob.key", "-out", "out"],
                );
                if content.is_authenticated() {
                    assert!(!theirs.status.success(), "{content:?}");
                    assert!(!open(&place, broken).verdict.decrypted, "{content:?}");
                } else {
                    let opened = open(&place, broken);
                    assert!(!opened.verdict.decrypted || opened.verdict.unauthenticated, "{content:?}");
                }
            }
        }
    }
}

#[test]
fn we_open_what_openssl_makes() {
    if !present(&["openssl"]) {
        return;
    }
    for kind in [NewKey::Rsa2048, NewKey::P256] {
        let place = Place::new(kind);
        let signer = ["-signer", "alice.crt", "-inkey", "alice.key", "-certfile", "middle.crt"];
        let from_to = ["-from", ALICE, "-to", BOB, "-subject", "Supper"];
        let opaque =
            [&["cms", "-sign", "-in", "content", "-binary", "-nodetach", "-out", "out"][..], &signer, &from_to]
                .concat();
        let clear = [&["cms", "-sign", "-in", "content", "-out", "out"][..], &signer, &from_to].concat();
        let streamed = [&opaque[..], &["-stream"]].concat();
        let mut forms = vec![opaque, clear, streamed];
        if kind == NewKey::Rsa2048 {
            let pss = ["-keyopt", "rsa_padding_mode:pss"];
            forms.push([&forms[1][..], &pss].concat());
        }
        for args in forms {
            place.must("openssl", &args);
            let message = crlf(&place.read("out"));
            let opened = open(&place, message.clone());
            assert_eq!(opened.verdict.result, SmimeResult::Pass, "{args:?}: {}", opened.verdict.reason);
            if message.windows(11).any(|one| one == b"Bring bread") {
                assert_eq!(open(&place, tampered(&message)).verdict.result, SmimeResult::Fail);
            }
        }
        let mut ciphers = vec![
            vec!["-aes128"],
            vec!["-aes256"],
            vec!["-aes-128-gcm"],
            vec!["-aes-256-gcm"],
            vec!["-aes256", "-stream"],
        ];
        if kind == NewKey::Rsa2048 {
            ciphers.push(vec!["-aes256", "-keyid"]);
        }
        for cipher in ciphers {
            let mut args = vec!["cms", "-encrypt", "-in", "content", "-binary", "-out", "out"];
            args.extend(from_to);
            args.extend(cipher);
            args.extend(["-recip", "bob.crt"]);
            if args.contains(&"-aes-256-gcm") && kind == NewKey::Rsa2048 {
                args.extend(["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]);
            }
            place.must("openssl", &args);
            let opened = open(&place, crlf(&place.read("out")));
            assert!(opened.verdict.decrypted, "{args:?}: {} {:?}", opened.verdict.reason, opened.verdict.layers);
            assert_eq!(&opened.content[..], CONTENT.as_bytes(), "{args:?}");
        }
    }
}
