//! OpenSSL's `cms`.

use crate::case::{Case, Job, Made, Peer, World};

pub struct OpenSsl;

impl Peer for OpenSsl {
    fn letter(&self) -> char {
        'O'
    }

    fn make(&self, world: &World, case: Case) -> Vec<Made> {
        let place = world.place(case);
        let sign = ["cms", "-sign", "-binary", "-md", "sha256", "-signer", "alice.crt", "-inkey", "alice.key"];
        let encrypt = ["cms", "-encrypt", "-binary"];
        let pss = |salt| ["-keyopt", "rsa_padding_mode:pss", "-keyopt", salt];
        let ways: Vec<(&'static str, Vec<&str>)> = match case {
            Case::DetachedRsa | Case::DetachedEcdsa => vec![("", sign.to_vec())],
            Case::DetachedPss => vec![("", [&sign[..], &pss("rsa_pss_saltlen:32")].concat())],
            Case::DetachedPssMax => vec![("", [&sign[..], &pss("rsa_pss_saltlen:max")].concat())],
            Case::Opaque => vec![("", [&sign[..], &["-nodetach", "-stream"]].concat())],
            Case::RsaCbc => vec![
                ("AES-256", [&encrypt[..], &["-aes256"]].concat()),
                ("AES-192", [&encrypt[..], &["-aes192"]].concat()),
                ("AES-128", [&encrypt[..], &["-aes128"]].concat()),
                ("key identifier", [&encrypt[..], &["-aes256", "-keyid"]].concat()),
            ],
            Case::RsaCbcStreamed => vec![("", [&encrypt[..], &["-aes256", "-stream"]].concat())],
            Case::OaepCbc => vec![("", [&encrypt[..], &["-aes256"]].concat())],
            Case::EcdhCbc => vec![("", [&encrypt[..], &["-aes256", "-keyopt", "ecdh_kdf_md:sha256"]].concat())],
            Case::Gcm => vec![
                ("AES-256", [&encrypt[..], &["-aes-256-gcm"]].concat()),
                ("AES-128", [&encrypt[..], &["-aes-128-gcm"]].concat()),
            ],
            Case::DetachedEd25519 | Case::Compressed => return Vec::new(),
        };
        let made = ways.into_iter().map(|(how, mut args)| {
            if case.is_signed() {
                args.extend(["-certfile", "middle.crt"]);
            } else {
                let at = args.iter().position(|one| *one == "-keyopt").unwrap_or(args.len());
                args.splice(at..at, ["-recip", "bob.crt"]);
            }
            if case == Case::OaepCbc {
                args.extend(["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]);
            }
            args.extend(["-in", "content", "-outform", "DER", "-out", "out"]);
            place.must("openssl", &args);
            Made { how, object: place.read("out") }
        });
        made.collect()
    }

    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>> {
        let read = |job: &Job| {
            let place = world.place(job.case);
            place.write("object", &job.object);
            place.write("detached", &job.content);
            let mut args = vec!["cms", "-binary", "-inform", "DER", "-in", "object", "-out", "out"];
            match job.case {
                case if case.is_signed() => args.extend(["-verify", "-CAfile", "root.crt"]),
                Case::Compressed => args.push("-uncompress"),
                _ => args.extend(["-decrypt", "-recip", "bob.crt", "-inkey", "bob.key"]),
            }
            if job.case.is_detached() {
                args.extend(["-content", "detached"]);
            }
            place.attempt_file("openssl", &args)
        };
        jobs.iter().map(read).collect()
    }
}
