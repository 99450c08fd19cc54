use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::pki::authority::{Issued, NewKey, Recipe, cached_key, issue_cached, issue_with_key};

mod foreign;

fn issued(mailbox: &str, key: NewKey) -> Issued {
    issue_cached(&Recipe::mailbox(mailbox, "2026-11-22T12:00:00Z".parse().unwrap(), key), None)
}

/// Two generations of one mailbox, and a certificate that belongs to nobody.
fn bundle() -> Bundle {
    let (old, new, other) = (
        issued("alice@example.org", NewKey::Rsa2048),
        issued("alice@example.org", NewKey::P256),
        issued("ca@example.org", NewKey::P256),
    );
    Bundle {
        keys: vec![old.pkcs8, new.pkcs8],
        certificates: vec![old.certificate, new.certificate, other.certificate],
        skipped: Vec::new(),
    }
}

#[test]
fn every_generation_comes_back() {
    let sent = bundle();
    let file = export(&sent, "pässwörd", "Alice").unwrap();
    for octets in [file.clone(), pem::armor("PKCS12", &file).into_bytes()] {
        let read = import(&octets, "pässwörd").unwrap();
        assert_eq!((&read.keys, &read.certificates), (&sent.keys, &sent.certificates));
        assert_eq!((read.certificates_of(0), read.certificates_of(1)), (vec![0], vec![1]));
    }
    assert_eq!(import(&file, "password").err(), Some(Pkcs12Error::Password));
    assert_eq!(import(&file, "").err(), Some(Pkcs12Error::Password));
    assert_eq!(read_any(&file, None).err(), Some(Pkcs12Error::PasswordNeeded));
    let mut torn = file.clone();
    *torn.last_mut().unwrap() ^= 1;
    assert!(import(&torn, "pässwörd").is_err());
    assert!(import(&file[..file.len() - 1], "pässwörd").is_err());
}

#[test]
fn a_key_without_its_certificate_is_kept() {
    let mut sent = bundle();
    sent.certificates.remove(1);
    let read = import(&export(&sent, "", "").unwrap(), "").unwrap();
    assert_eq!(read.keys.len(), 2);
    assert_eq!((read.certificates_of(0), read.certificates_of(1)), (vec![0], vec![]));
}

#[test]
fn too_many_iterations_are_refused_before_they_are_done() {
    let file = export(&bundle(), "x", "").unwrap();
    let asked = number(ITERATIONS);
    let place = file.windows(asked.len()).rposition(|window| window == asked).unwrap();
    let mut greedy = file.clone();
    greedy[place + 2] = 0x7f; // 100,000 -> 8.3 million; the rest of the file needs none of it
    assert_eq!(import(&greedy, "x").err(), Some(Pkcs12Error::Password));
    let mac = Reader::new(&file).any().unwrap();
    let without = |count: &[u8]| {
        let mut parts = mac.reader();
        let (version, safes, mac) = (parts.any().unwrap(), parts.any().unwrap(), parts.any().unwrap());
        let mut fields = mac.reader();
        let (info, salt) = (fields.any().unwrap(), fields.any().unwrap());
        sequence(&[version.full, safes.full, &sequence(&[info.full, salt.full, count])])
    };
    assert_eq!(
        import(&without(&number(2_000_000_000)), "x").err(),
        Some(Pkcs12Error::Iterations(2_000_000_000, MAX_ITERATIONS))
    );
    assert!(matches!(import(&without(&number(u64::MAX)), "x"), Err(Pkcs12Error::Iterations(..))));
    assert!(matches!(import(&without(&number(0)), "x"), Err(Pkcs12Error::Malformed(_))));
}

#[test]
fn reads_keys_of_every_form() {
    let key = cached_key(NewKey::P256, "forms");
    let recipe = Recipe::mailbox("forms@example.org", "2026-11-22T12:00:00Z".parse().unwrap(), NewKey::P256);
    let certificate = issue_with_key(&recipe, key.clone(), None).certificate;
    let text = format!(
        "{}{}{}",
        pem::armor("PRIVATE KEY", &key),
        pem::armor("CERTIFICATE", certificate.der()),
        pem::armor("X509 CRL", b"0")
    );
    let read = read_any(text.as_bytes(), None).unwrap();
    assert_eq!((&read.keys, &read.certificates), (&vec![key.clone()], &vec![certificate.clone()]));
    assert_eq!((read.certificates_of(0), read.skipped.len()), (vec![0], 1));
    assert_eq!(read_any(&key, None).unwrap().keys, [key]);
    assert_eq!(read_any(certificate.der(), None).unwrap().certificates, [certificate]);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert!(matches!(read_any(old.as_bytes(), Some("x")), Err(Pkcs12Error::Unsupported(_))));
    for nonsense in [&b""[..], b"hello", b"0\x00", b"\x30\x03\x02\x01\x03"] {
        assert!(read_any(nonsense, None).is_err());
    }
}

fn openssl(args: &[&str], input: &PathBuf) -> Option<Vec<u8>> {
    let output = Command::new("openssl").args(args).arg("-in").arg(input).output().ok()?;
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn openssl_reads_what_is_written_and_the_other_way_round() {
    if !crate::outside::peers(&["openssl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, pem_file) = (folder.path().join("a.p12"), folder.path().join("a.pem"));
    let sent = bundle();
    std::fs::write(&file, export(&sent, "secret", "Alice").unwrap()).unwrap();
    let text = openssl(&["pkcs12", "-nodes", "-passin", "pass:secret"], &file).unwrap();
    let read = read_any(&text, None).unwrap();
    assert_eq!((&read.keys.len(), &read.certificates), (&2, &sent.certificates));
    assert_eq!((read.certificates_of(0), read.certificates_of(1)), (vec![0], vec![1]));
    std::fs::write(&pem_file, &text).unwrap();
    for extra in [
        &[][..],
        &["-certpbe", "AES-256-CBC", "-keypbe", "AES-256-CBC", "-macalg", "sha512"],
        &["-legacy"],
        &["-nomac"],
    ] {
        let args = [&["pkcs12", "-export", "-passout", "pass:secret"], extra].concat();
        let made = openssl(&args, &pem_file).unwrap();
        let read = import(&made, "secret").unwrap();
        assert_eq!((read.keys.len(), read.certificates.len()), (1, 3), "{extra:?}");
        assert_eq!(import(&made, "Secret").err(), Some(Pkcs12Error::Password), "{extra:?}");
    }
    for (args, count) in [
        (&["rsa", "-traditional"][..], 1),
        (&["pkcs8", "-topk8", "-passout", "pass:secret"], 1),
        (&["pkcs8", "-topk8", "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA224", "-passout", "pass:secret"], 1),
        (&["pkcs8", "-topk8", "-v2", "des3", "-outform", "DER", "-passout", "pass:secret"], 1),
        (&["pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-outform", "DER", "-passout", "pass:secret"], 1),
    ] {
        let made = openssl(args, &pem_file).unwrap();
        let read = read_any(&made, Some("secret")).unwrap();
        assert_eq!(read.keys.len(), count, "{args:?}");
        assert!(SoftwareKey::from_pkcs8(&read.keys[0]).is_ok(), "{args:?}");
    }
}

#[test]
fn nss_and_gpgsm_read_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let all = bundle();
    std::fs::write(place("all.p12"), export(&all, "secret", "Alice").unwrap()).unwrap();
    let one = Bundle {
        keys: vec![all.keys[0].clone()],
        certificates: vec![all.certificates[0].clone()],
        ..Bundle::default()
    };
    std::fs::write(place("one.p12"), export(&one, "secret", "Alice").unwrap()).unwrap();
    let run = |command: &str| {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    if crate::outside::peers(&["pk12util", "certutil"]) {
        let (good, said) = run(
            "mkdir nss && certutil -N -d sql:nss --empty-password && pk12util -d sql:nss -i all.p12 -W secret && certutil -K -d sql:nss",
        );
        assert!(good && said.contains("rsa ") && said.contains("ec "), "{said}");
    }
    // GnuPG 2.2 knows PBES2 with HMAC-SHA-1 and AES-128 alone.
    if run("gpgsm --version | grep -Eq '^gpgsm .* 2\\.([4-9]|[1-9][0-9])'").0 {
        let (_, said) = run(
            "mkdir -m 700 gnupg && export GNUPGHOME=$PWD/gnupg && echo secret | gpgsm --batch --pinentry-mode loopback --passphrase-fd 0 --import one.p12; \
             gpgconf --kill gpg-agent",
        );
        assert!(said.contains("secret keys imported: 1"), "{said}");
    }
}

#[test]
fn fuzz_body_holds_on_seeds_and_noise() {
    use proptest::prelude::*;
    let pki = issued("alice@example.org", NewKey::P256);
    let plain = sequence(&[&number(0), &content_info(id::DATA, &[])]);
    fuzz_pkcs12(&plain);
    let key_bag = sequence(&[&write(tag::OID, &[id::BAGS, &[1]]), &write(tag::constructed(0), &[&pki.pkcs8])]);
    let safes = sequence(&[&content_info(id::DATA, &write(tag::OCTET_STRING, &[&sequence(&[&key_bag])]))]);
    let seed = sequence(&[&number(3), &content_info(id::DATA, &write(tag::OCTET_STRING, &[&safes]))]);
    assert_eq!(import(&seed, "").unwrap().keys, [pki.pkcs8]);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    runner
        .run(
            &(any::<prop::sample::Index>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..64)),
            |(at, octet, noise)| {
                let mut data = seed.clone();
                let at = at.index(data.len());
                data[at] = octet;
                fuzz_pkcs12(&data);
                fuzz_pkcs12(&noise);
                Ok(())
            },
        )
        .unwrap();
}
