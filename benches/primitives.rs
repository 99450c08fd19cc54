//! What the bare primitives cost, one at a time: name and seconds a line, the median of many calls. `scripts/bench` adds them up.
//!
//! `cargo bench --bench primitives`; under `cargo test` each runs once.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey as PeerKey, agree};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::rsa::{KeySize, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, iv, rand};

fn median(measured: bool, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = Vec::new();
    let began = Instant::now();
    while times.is_empty() || measured && began.elapsed() < Duration::from_millis(150) {
        let at = Instant::now();
        work();
        times.push(at.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).unwrap().as_secs_f64()
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let show = |name: &str, work: &mut dyn FnMut()| println!("{name} {:.9}", median(measured, work));
    let random = rand::SystemRandom::new();

    let signer = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let mut signature = vec![0; signer.public_modulus_len()];
    signer.sign(&RSA_PKCS1_SHA256, &random, b"signed attributes", &mut signature).unwrap();
    let verifier = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, signer.public_key().as_ref().to_vec());
    let verifier = verifier.parse().unwrap();
    let mut room = signature.clone();
    show("rsa-sign", &mut || signer.sign(&RSA_PKCS1_SHA256, &random, b"signed attributes", &mut room).unwrap());
    show("rsa-verify", &mut || verifier.verify_sig(b"signed attributes", &signature).unwrap());

    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(private.public_key()).unwrap();
    let private = Pkcs1PrivateDecryptingKey::new(private).unwrap();
    let (mut room, mut plain) = (vec![0; public.ciphertext_size()], vec![0; private.min_output_size()]);
    let encrypted = public.encrypt(&[1; 32], &mut room).unwrap().to_vec();
    show("rsa-encrypt", &mut || assert_eq!(black_box(public.encrypt(&[1; 32], &mut room).unwrap()).len(), 256));
    show("rsa-decrypt", &mut || assert_eq!(black_box(private.decrypt(&encrypted, &mut plain).unwrap()).len(), 32));

    elliptic(&random, &show);
    symmetric(&show);
}

/// P-256: ECDSA, and what an ephemeral-static ECDH of a sender takes.
fn elliptic(random: &rand::SystemRandom, show: &dyn Fn(&str, &mut dyn FnMut())) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let signature = pair.sign(random, b"signed attributes").unwrap();
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref().to_vec());
    let verifier = verifier.parse().unwrap();
    show("p256-sign", &mut || assert!(pair.sign(random, b"signed attributes").is_ok()));
    show("p256-verify", &mut || verifier.verify_sig(b"signed attributes", signature.as_ref()).unwrap());
    let (ours, theirs) = (PrivateKey::generate(&ECDH_P256).unwrap(), PrivateKey::generate(&ECDH_P256).unwrap());
    let peer = PeerKey::new(&ECDH_P256, theirs.compute_public_key().unwrap().as_ref().to_vec());
    show("p256-generate", &mut || {
        assert!(PrivateKey::generate(&ECDH_P256).and_then(|key| key.compute_public_key()).is_ok());
    });
    show("p256-agree", &mut || {
        agree(&ours, &peer, (), |secret| {
            black_box(secret);
            Ok(())
        })
        .unwrap()
    });
}

/// What runs over the octets: of a small mail, and of a MiB.
fn symmetric(show: &dyn Fn(&str, &mut dyn FnMut())) {
    let octets = vec![b'x'; 8192];
    let small = octets.get(..4096).unwrap();
    show("sha256-4k", &mut || assert_eq!(black_box(digest::digest(&digest::SHA256, small)).as_ref().len(), 32));
    let key = || UnboundCipherKey::new(&AES_256, &[7; 32]).unwrap();
    let large = vec![b'x'; 1 << 20];
    show("sha256-1m", &mut || assert_eq!(black_box(digest::digest(&digest::SHA256, &large)).as_ref().len(), 32));
    for (name, mut buffer) in [("8k", octets.clone()), ("1m", large.clone())] {
        let length = buffer.len();
        show(&format!("aes256cbc-encrypt-{name}"), &mut || {
            let context = EncryptionContext::Iv128(iv::FixedLength::from([0; 16]));
            let key = EncryptingKey::cbc(key()).unwrap();
            assert!(black_box(key.less_safe_encrypt(&mut buffer, context)).is_ok());
        });
        show(&format!("aes256cbc-decrypt-{name}"), &mut || {
            let context = DecryptionContext::Iv128(iv::FixedLength::from([0; 16]));
            let key = DecryptingKey::cbc(key()).unwrap();
            assert_eq!(black_box(key.decrypt(&mut buffer, context).unwrap()).len(), length);
        });
    }
}
