//! Waxwing, as one of the peers.

use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyTransport, SignatureScheme};
use waxwing::smime::seal::{Draft, Form};
use waxwing::smime::verdict::SmimeResult;

use crate::case::{Case, Job, Made, Peer, World};
use crate::place::{as_clear_signed, as_message, encrypt, entity, mail, open, sign, taken_apart};

pub struct Waxwing;

const OAEP: KeyTransport = KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256);

impl Peer for Waxwing {
    fn letter(&self) -> char {
        'W'
    }

    fn make(&self, world: &World, case: Case) -> Vec<Made> {
        let place = world.place(case);
        let detached = |scheme| {
            let message = sign(place, scheme, Form::Clear).signed().unwrap().rope().to_bytes();
            vec![Made { how: "", object: taken_apart(&message).1.to_vec() }]
        };
        let sealed = |how: &'static str, content, rsa| {
            let message = encrypt(place, &Draft::new(&mail()).unwrap(), content, rsa);
            Made { how, object: entity(message).decoded_body().unwrap().to_vec() }
        };
        match case {
            Case::DetachedRsa => detached(SignatureScheme::RsaPkcs1(Digest::Sha256)),
            Case::DetachedPss => detached(SignatureScheme::RsaPss(Digest::Sha256, 32)),
            Case::DetachedEcdsa => detached(SignatureScheme::Ecdsa(Digest::Sha256)),
            Case::DetachedEd25519 => detached(SignatureScheme::Ed25519),
            Case::Opaque => {
                let draft = sign(place, SignatureScheme::RsaPkcs1(Digest::Sha256), Form::Opaque);
                let message = draft.signed().unwrap().rope().to_bytes();
                vec![Made { how: "", object: entity(message).decoded_body().unwrap().to_vec() }]
            }
            Case::RsaCbc => vec![
                sealed("AES-256", ContentEncryption::Aes256Cbc, KeyTransport::RsaPkcs1),
                sealed("AES-128", ContentEncryption::Aes128Cbc, KeyTransport::RsaPkcs1),
            ],
            Case::OaepCbc | Case::EcdhCbc => vec![sealed("", ContentEncryption::Aes256Cbc, OAEP)],
            Case::Gcm => vec![
                sealed("AES-256", ContentEncryption::Aes256Gcm, OAEP),
                sealed("AES-128", ContentEncryption::Aes128Gcm, KeyTransport::RsaPkcs1),
            ],
            // Never written: other salts than the digest's length, BER, compression.
            Case::DetachedPssMax | Case::RsaCbcStreamed | Case::Compressed => Vec::new(),
        }
    }

    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>> {
        let read = |job: &Job| {
            let place = world.place(job.case);
            let message = match job.case.is_detached() {
                true => as_clear_signed(&job.content, &job.object),
                false => as_message(&job.object).into_bytes(),
            };
            let opened = open(place, message);
            let good = match job.case {
                case if case.is_signed() => opened.verdict.result == SmimeResult::Pass,
                Case::Compressed => opened.content.starts_with(b"Content-Type: text/plain"),
                _ => opened.verdict.decrypted,
            };
            good.then(|| opened.content.to_vec())
                .ok_or_else(|| format!("{} {:?}", opened.verdict.reason, opened.verdict.layers))
        };
        jobs.iter().map(read).collect()
    }
}
