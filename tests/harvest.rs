//! Signed mail brings certificates and capabilities (A10): what is stored of it, and to which key mail goes afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests; one is a table of cases"
)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use support::house::{House, Plan, mailbox, plain};
use waxwing::cms::algorithm::{ContentEncryption, Digest, KeyDerivation, KeyTransport, SignatureScheme};
use waxwing::cms::enveloped::RecipientScheme;
use waxwing::cms::signed::{self, CertificateId, SignParameters};
use waxwing::keys::{KeyAnswer, KeyHolder, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use waxwing::mime::entity::{Entity, MimeLimits};
use waxwing::pki::authority::{Issued, NewKey, Recipe, issue, issue_with_key};
use waxwing::pki::certificate::Certificate;
use waxwing::pki::path::AnchorScope;
use waxwing::policy::TrustState;
use waxwing::smime::open::envelope;
use waxwing::smime::seal::{Draft, EncryptPlan};
use waxwing::store::{CertStore, CertificateRecord, NewCertificate, Owner, Provenance};

const ANNA: &str = "anna@ours.example";
const REQUIRE: &str = "[default]\nsign = \"never\"\nencrypt = \"require\"\nprofile = \"modern\"\n";

async fn house(harvest: &str) -> House {
    let top = format!("[harvest]\nwrites_per_second = 100\n{harvest}\n");
    House::build(&Plan { policy: REQUIRE, top: &top, ..Plan::default() }).await
}

/// A signed mail, its parts to be changed.
#[derive(Clone)]
struct Letter<'l> {
    from: &'l str,
    to: &'l str,
    signer: &'l Issued,
    /// SMIMEEncryptionKeyPreference, by issuer and serial number; the certificate comes along.
    names: Option<&'l Certificate>,
    /// Certificates that come along.
    brings: Vec<Certificate>,
    reads: &'l [ContentEncryption],
    signed_at: Timestamp,
    body: &'l str,
}

impl<'l> Letter<'l> {
    fn new(from: &'l str, signer: &'l Issued) -> Self {
        Self {
            from,
            to: ANNA,
            signer,
            names: None,
            brings: Vec::new(),
            reads: &[],
            signed_at: Timestamp::now(),
            body: "hello",
        }
    }

    fn content(&self) -> String {
        format!("Content-Type: text/plain\r\n\r\n{}", self.body)
    }

    /// The SignedData over its content.
    fn object(&self) -> Vec<u8> {
        let mut keys = SoftwareKeys::default();
        let key = keys.insert(SoftwareKey::from_pkcs8(&self.signer.pkcs8).unwrap());
        let scheme = SignatureScheme::Ecdsa(Digest::Sha256);
        let parameters = SignParameters {
            signer: &self.signer.certificate,
            chain: &self.brings,
            scheme,
            digest: Digest::Sha256,
            signing_time: self.signed_at,
            capabilities: self.reads,
            encryption_certificate: self.names,
        };
        let digest = signed::digest(Digest::Sha256, self.content().as_bytes());
        let prepared = signed::prepare(&parameters, &digest, None).unwrap();
        let Submission::Ready(answer) = keys.submit(KeyOperation::Sign { key, scheme, message: prepared.to_sign() })
        else {
            panic!("software keys answer at once")
        };
        let KeyAnswer::Signature(octets) = answer.unwrap() else { panic!("no signature") };
        prepared.finish(&octets).unwrap().to_vec()
    }

    fn write(&self) -> String {
        self.with(&self.object())
    }

    /// The same with another's signature beside its own, as anybody can put it there.
    fn write_beside(&self, other: &Letter<'_>) -> String {
        let (own, others) = (signed_data(&self.object()), signed_data(&other.object()));
        let both = |at: usize| [content_of(&own[at]), content_of(&others[at])].concat();
        let data = der(0x30, &[&own[0], &own[1], &own[2], &der(0xa0, &[&both(3)]), &der(0x31, &[&both(4)])]);
        let signed_data = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
        self.with(&der(0x30, &[&signed_data, &der(0xa0, &[&data])]))
    }

    fn with(&self, object: &[u8]) -> String {
        let content = self.content();
        let object = STANDARD.encode(object);
        let lines: Vec<&str> = object.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!(
            "From: {}\r\nTo: {}\r\nSubject: x\r\nMessage-ID: <{:x}@mail.example>\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=\"sig\"\r\n\r\n\
             --sig\r\n{content}\r\n--sig\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             {}\r\n--sig--\r\n",
            self.from,
            self.to,
            self.signed_at.as_nanosecond(),
            lines.join("\r\n"),
        )
    }
}

/// Tag and content, the length between them.
fn der(tag: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let content = pieces.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &length, &content].concat()
}

/// The content of one element.
fn content_of(element: &[u8]) -> &[u8] {
    match element[1] {
        short @ 0..0x80 => &element[2..2 + usize::from(short)],
        long => {
            let digits = usize::from(long & 0x7f);
            let length = element[2..2 + digits].iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet));
            &element[2 + digits..2 + digits + length]
        }
    }
}

fn elements(mut octets: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !octets.is_empty() {
        let content = content_of(octets);
        let end = content.as_ptr() as usize - octets.as_ptr() as usize + content.len();
        found.push(octets[..end].to_vec());
        octets = &octets[end..];
    }
    found
}

/// The fields of a SignedData: version, digests, content, certificates, signers.
fn signed_data(content_info: &[u8]) -> Vec<Vec<u8>> {
    let explicit = elements(content_of(content_info)).remove(1);
    elements(content_of(content_of(&explicit)))
}

/// Sends it in, and waits until the harvest has looked at all that was offered. Gives the verdict's word.
async fn came(house: &House, from: &str, message: &str) -> String {
    house.server.clear();
    assert_eq!(house.send_in(from, &[ANNA], message.as_bytes()).await.code, 250);
    let text = house.server.wait(1).await.remove(0).text();
    looked_at(house).await;
    let word = text.split("smime=").nth(1).unwrap_or_default();
    word.chars().take_while(char::is_ascii_alphabetic).collect()
}

async fn looked_at(house: &House) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            let counts = house.gateway.harvested();
            if counts.handled == counts.offered {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not looked at: {:?}", house.gateway.harvested()));
}

fn records(house: &House, address: &str) -> Vec<CertificateRecord> {
    house.store.identity(&mailbox(address)).unwrap().certificates.clone()
}

fn state(house: &House, address: &str, certificate: &Certificate) -> Option<TrustState> {
    records(house, address).iter().find(|one| one.certificate == *certificate).map(|one| one.trust)
}

fn import(house: &House, address: &str, issued: &Issued, trust: TrustState) {
    let provenance = Provenance { source: "import".into(), detail: "test".into(), at: Timestamp::now() };
    let new = NewCertificate { certificate: issued.certificate.clone(), provenance, trust, key: None };
    house.store.add_certificates(&Owner::parse(address).unwrap(), vec![new]).unwrap();
}

/// Mail that goes out to these: its code, and of each output the names of whom it is encrypted to, and its cipher.
async fn goes(house: &House, to: &[&str]) -> (u16, Vec<(Vec<CertificateId>, ContentEncryption)>) {
    house.world.clear();
    let text = plain(ANNA, &to.join(", "), "answer", "an eagle");
    let said = house.send_out(ANNA, to, &text).await;
    house.settled().await;
    let outputs = house.world.mails().into_iter().map(|mail| {
        assert!(!mail.text().contains("eagle"), "in clear: {}", mail.text());
        let entity = Entity::parse(Bytes::from(mail.message), &MimeLimits::default()).unwrap();
        let envelope = envelope(&entity, &MimeLimits::default(), Default::default()).unwrap();
        (envelope.recipients.iter().filter_map(|info| info.id.clone()).collect(), envelope.content)
    });
    (said.code, outputs.collect())
}

struct Pki {
    other: Issued,
    private: Issued,
    now: Timestamp,
}

impl Pki {
    /// Beside the house's CA another public one, and a private one that may vouch for another domain.
    fn new(house: &House) -> Self {
        let now = Timestamp::now();
        let authority = |name| issue(&Recipe::authority(name, now, NewKey::P256), None);
        let (other, private) = (authority("Other Public CA"), authority("Private CA"));
        house.store.add_trust(other.certificate.clone(), Some(AnchorScope::Global)).unwrap();
        let scope = AnchorScope::Domains(vec![waxwing::address::Domain::parse("elsewhere.example").unwrap()]);
        house.store.add_trust(private.certificate.clone(), Some(scope)).unwrap();
        Self { other, private, now }
    }

    fn recipe(&self, address: &str) -> Recipe {
        Recipe::mailbox(address, self.now, NewKey::P256)
    }
}

/// What has to hold after a case: whose key mail goes to (nobody's: it is refused).
struct Case<'c> {
    name: &'static str,
    address: &'c str,
    mail: String,
    verdict: &'static str,
    /// Mail goes to this one.
    to: Option<&'c Certificate>,
    /// What the mail brought, and its state.
    brought: (&'c Certificate, Option<TrustState>),
}

/// Every way in which a certificate comes, under the most trusting mode and under the careful one. The figure: no mail to the attacker's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_in_seventeen_ways_a_certificate_comes_and_no_mail_goes_to_the_attackers_key() {
    for trusting in [true, false] {
        let house = house(if trusting { "mode = \"trust\"" } else { "mode = \"candidate\"" }).await;
        let pki = Pki::new(&house);
        let later = pki.now + SignedDuration::from_secs(60);
        let renewed =
            |address: &str| Recipe { not_before: later - SignedDuration::from_hours(1), ..pki.recipe(address) };
        let addresses: Vec<String> = (0..17).map(|number| format!("v{number}@partner.example")).collect();
        let address = |number: usize| addresses[number].as_str();
        // The owner's key, and the attacker's: another one for each, with a certificate of the same CA, or as the case says.
        let owners: Vec<Issued> = addresses.iter().map(|one| issue(&pki.recipe(one), Some(&house.ca))).collect();
        let attackers: Vec<Issued> = addresses
            .iter()
            .enumerate()
            .map(|(number, one)| match number {
                5 => issue(&renewed(one), Some(&pki.other)),
                6 => issue(&renewed(one), Some(&pki.private)),
                7 => issue(&renewed(one), None),
                8 => issue(&renewed("mallory@evil.example"), Some(&house.ca)),
                9 => issue(&Recipe { email_protection: Some(false), ..renewed(one) }, Some(&house.ca)),
                10 => {
                    let ago = |days: i64| pki.now - SignedDuration::from_hours(24 * days);
                    issue(&Recipe { not_before: ago(20), not_after: ago(10), ..renewed(one) }, Some(&house.ca))
                }
                _ => issue(&renewed(one), Some(&house.ca)),
            })
            .collect();
        let (owner, attacker) = (|number: usize| &owners[number], |number: usize| &attackers[number]);
        for number in 2..17 {
            import(&house, address(number), owner(number), TrustState::Trusted);
        }
        let by = |number: usize, signer| Letter::new(address(number), signer);
        let same_key = issue_with_key(&renewed(address(3)), owner(3).pkcs8.clone(), Some(&house.ca));
        let next = issue(&renewed(address(13)), Some(&house.ca));
        let third = issue(&pki.recipe("carol@partner.example"), Some(&house.ca));
        import(&house, address(14), attacker(14), TrustState::Pending);
        house
            .store
            .set_trust(&Owner::parse(address(14)).unwrap(), attacker(14).certificate.fingerprint(), TrustState::Blocked)
            .unwrap();
        let rejected_key = issue_with_key(&renewed(address(14)), attacker(14).pkcs8.clone(), Some(&house.ca));
        // Trusted by its certificate's octets, not by a name: the attacker's own CA gives the same issuer name and serial number to nobody.
        let trusted = Some(TrustState::Trusted);
        let pending = Some(TrustState::Pending);
        let first = if trusting { trusted } else { pending };
        let tampered = by(11, attacker(11)).write().replace("hello", "hullo");
        let cases = [
            Case {
                name: "an unknown sender, first sight",
                address: address(1),
                mail: by(1, owner(1)).write(),
                verdict: "pass",
                to: trusting.then_some(&owner(1).certificate),
                brought: (&owner(1).certificate, first),
            },
            Case {
                name: "the same certificate again",
                address: address(2),
                mail: by(2, owner(2)).write(),
                verdict: "pass",
                to: Some(&owner(2).certificate),
                brought: (&owner(2).certificate, trusted),
            },
            Case {
                name: "the same key, renewed by the same CA",
                address: address(3),
                mail: by(3, &same_key).write(),
                verdict: "pass",
                to: Some(&same_key.certificate),
                brought: (&same_key.certificate, trusted),
            },
            Case {
                name: "another key, the same CA",
                address: address(4),
                mail: by(4, attacker(4)).write(),
                verdict: "pass",
                to: Some(&owner(4).certificate),
                brought: (&attacker(4).certificate, pending),
            },
            Case {
                name: "another key, another public CA",
                address: address(5),
                mail: by(5, attacker(5)).write(),
                verdict: "pass",
                to: Some(&owner(5).certificate),
                brought: (&attacker(5).certificate, pending),
            },
            Case {
                name: "another key, a private CA for another domain",
                address: address(6),
                mail: by(6, attacker(6)).write(),
                verdict: "policy",
                to: Some(&owner(6).certificate),
                brought: (&attacker(6).certificate, None),
            },
            Case {
                name: "self-signed",
                address: address(7),
                mail: by(7, attacker(7)).write(),
                verdict: "policy",
                to: Some(&owner(7).certificate),
                brought: (&attacker(7).certificate, None),
            },
            Case {
                name: "SAN is not From",
                address: address(8),
                mail: by(8, attacker(8)).write(),
                verdict: "fail",
                to: Some(&owner(8).certificate),
                brought: (&attacker(8).certificate, None),
            },
            Case {
                name: "EKU for servers only",
                address: address(9),
                mail: by(9, attacker(9)).write(),
                verdict: "policy",
                to: Some(&owner(9).certificate),
                brought: (&attacker(9).certificate, None),
            },
            Case {
                name: "expired",
                address: address(10),
                mail: by(10, attacker(10)).write(),
                verdict: "policy",
                to: Some(&owner(10).certificate),
                brought: (&attacker(10).certificate, None),
            },
            Case {
                name: "the certificate good, the signature not",
                address: address(11),
                mail: tampered,
                verdict: "fail",
                to: Some(&owner(11).certificate),
                brought: (&attacker(11).certificate, None),
            },
            Case {
                name: "carried along with the owner's signature, which does not cover it",
                address: address(12),
                mail: Letter {
                    brings: vec![attacker(12).certificate.clone(), third.certificate.clone()],
                    ..by(12, owner(12))
                }
                .write(),
                verdict: "pass",
                to: Some(&owner(12).certificate),
                brought: (&attacker(12).certificate, None),
            },
            Case {
                name: "another key, named under the signature of the old one",
                address: address(13),
                mail: Letter { names: Some(&next.certificate), ..by(13, owner(13)) }.write(),
                verdict: "pass",
                to: Some(&next.certificate),
                brought: (&next.certificate, trusted),
            },
            Case {
                name: "what was rejected comes again",
                address: address(14),
                mail: by(14, attacker(14)).write(),
                verdict: "pass",
                to: Some(&owner(14).certificate),
                brought: (&attacker(14).certificate, Some(TrustState::Blocked)),
            },
            Case {
                name: "the rejected key under another certificate",
                address: address(14),
                mail: by(14, &rejected_key).write(),
                verdict: "pass",
                to: Some(&owner(14).certificate),
                brought: (&rejected_key.certificate, None),
            },
            Case {
                name: "another key that names itself, and brings the owner's, to be encrypted to",
                address: address(15),
                mail: Letter {
                    names: Some(&attacker(15).certificate),
                    brings: vec![owner(15).certificate.clone()],
                    ..by(15, attacker(15))
                }
                .write(),
                verdict: "pass",
                to: Some(&owner(15).certificate),
                brought: (&attacker(15).certificate, pending),
            },
        ];
        let cases = cases.into_iter().chain([Case {
            name: "a second signature beside the owner's",
            address: address(16),
            mail: by(16, owner(16))
                .write_beside(&Letter { names: Some(&attacker(16).certificate), ..by(16, attacker(16)) }),
            verdict: "pass",
            to: Some(&owner(16).certificate),
            brought: (&attacker(16).certificate, pending),
        }]);
        let cases: Vec<Case<'_>> = cases.collect();
        let mut to_the_attacker = 0;
        for case in &cases {
            let name = case.name;
            for _ in 0..2 {
                assert_eq!(came(&house, case.address, &case.mail).await, case.verdict, "{name}");
            }
            assert_eq!(state(&house, case.address, case.brought.0), case.brought.1, "{name}, trusting: {trusting}");
            let (code, outputs) = goes(&house, &[case.address]).await;
            assert_eq!((code == 250, outputs.len()), (case.to.is_some(), usize::from(case.to.is_some())), "{name}");
            for (ids, _) in &outputs {
                to_the_attacker +=
                    ids.iter().filter(|id| attackers.iter().any(|one| id.names(&one.certificate))).count();
                assert!(ids.len() == 1 && case.to.is_some_and(|to| ids[0].names(to)), "{name}: {ids:?}");
            }
        }
        assert_eq!(to_the_attacker, 0);
        assert!(records(&house, "carol@partner.example").is_empty(), "a third person's was carried along");
        assert!(records(&house, "mallory@evil.example").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_nothing_is_taken_where_harvest_is_off_but_what_is_known_is_read_better() {
    let house = house("[[harvest.sender]]\nmatch = [\"@trusted.example\"]\nmode = \"trust\"").await;
    let pki = Pki::new(&house);
    let (bert, carl) = ("bert@partner.example", "carl@trusted.example");
    let one = issue(&pki.recipe(bert), Some(&house.ca));
    let two = issue(&pki.recipe(carl), Some(&house.ca));
    let aes = [ContentEncryption::Aes256Cbc];
    assert_eq!(came(&house, bert, &Letter { reads: &aes, ..Letter::new(bert, &one) }.write()).await, "pass");
    assert!(records(&house, bert).is_empty());
    assert_eq!(came(&house, carl, &Letter::new(carl, &two).write()).await, "pass");
    assert_eq!(state(&house, carl, &two.certificate), Some(TrustState::Trusted));
    import(&house, bert, &one, TrustState::Trusted);
    let mail = Letter { reads: &aes, ..Letter::new(bert, &one) }.write();
    assert_eq!(came(&house, bert, &mail).await, "pass");
    let record = &records(&house, bert)[0];
    assert_eq!(record.capabilities.as_ref().map(|known| known.content.clone()), Some(aes.to_vec()));
    let learned = record.learned.as_ref().unwrap();
    assert_eq!(learned.source, "mail");
    assert!(mail.contains(&learned.detail), "its Message-ID: {}", learned.detail);
    // Our own are imported, never harvested.
    let dora = "dora@ours.example";
    let own = issue(&pki.recipe(dora), Some(&house.ca));
    came(&house, dora, &Letter::new(dora, &own).write()).await;
    assert!(records(&house, dora).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_choose_the_cipher_and_several_recipients_share_the_best_common_one() {
    use ContentEncryption::{Aes128Cbc, Aes256Cbc, Aes256Gcm};
    let house = house("mode = \"trust\"").await;
    let pki = Pki::new(&house);
    let (bert, carl, dora) = ("bert@partner.example", "carl@partner.example", "dora@partner.example");
    let people: Vec<Issued> = [bert, carl, dora].iter().map(|one| issue(&pki.recipe(one), Some(&house.ca))).collect();
    let at = |seconds: i64| Timestamp::now() - SignedDuration::from_secs(seconds);
    let says =
        |from, signer, reads, seconds| Letter { reads, signed_at: at(seconds), ..Letter::new(from, signer) }.write();
    came(&house, bert, &says(bert, &people[0], &[Aes128Cbc, Aes256Cbc], 100)).await;
    came(&house, carl, &says(carl, &people[1], &[Aes256Gcm, Aes256Cbc], 100)).await;
    came(&house, dora, &says(dora, &people[2], &[], 100)).await;
    let cipher = |to: &'static [&'static str]| {
        let house = &house;
        async move {
            let (code, outputs) = goes(house, to).await;
            assert_eq!((code, outputs.len()), (250, 1), "{outputs:?}");
            assert_eq!(outputs[0].0.len(), to.len());
            outputs[0].1
        }
    };
    assert_eq!(cipher(&["bert@partner.example"]).await, Aes256Cbc, "the profile's order, within what he reads");
    assert_eq!(cipher(&["carl@partner.example"]).await, Aes256Gcm);
    assert_eq!(cipher(&["dora@partner.example"]).await, Aes256Gcm, "nothing is known");
    assert_eq!(cipher(&["dora@partner.example", "bert@partner.example", "carl@partner.example"]).await, Aes256Cbc);
    // An older word does not undo a newer one; a newer one does.
    came(&house, bert, &says(bert, &people[0], &[Aes256Gcm], 200)).await;
    assert_eq!(cipher(&["bert@partner.example"]).await, Aes256Cbc);
    came(&house, bert, &says(bert, &people[0], &[Aes256Gcm], 50)).await;
    assert_eq!(cipher(&["bert@partner.example"]).await, Aes256Gcm);
    // From tomorrow's mail nothing is learned.
    came(&house, bert, &says(bert, &people[0], &[Aes128Cbc], -200_000)).await;
    assert_eq!(cipher(&["bert@partner.example"]).await, Aes256Gcm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_one_to_sign_comes_beside_one_to_encrypt_to_and_proves_the_next_one() {
    let house = house("mode = \"trust\"").await;
    let pki = Pki::new(&house);
    let bert = "bert@partner.example";
    let with = |usage: &'static str| Recipe { key_usage: vec![usage], ..pki.recipe(bert) };
    // Under an intermediate of which we know nothing: it comes along, and is needed to find a path on the way out.
    let middle = issue(&Recipe::authority("Mail CA", pki.now, NewKey::P256), Some(&house.ca));
    let signs = issue(&with("digitalSignature"), Some(&middle));
    let reads = issue(&with("keyAgreement"), Some(&middle));
    let bring = |letter: Letter<'_>| Letter { brings: vec![middle.certificate.clone()], ..letter }.write();
    // Alone it is not kept: nothing could be encrypted to it.
    assert_eq!(came(&house, bert, &bring(Letter::new(bert, &signs))).await, "pass");
    assert!(records(&house, bert).is_empty());
    let names = |certificate| Letter { names: Some(certificate), ..Letter::new(bert, &signs) };
    assert_eq!(came(&house, bert, &bring(names(&reads.certificate))).await, "pass");
    let trusted = Some(TrustState::Trusted);
    assert_eq!((state(&house, bert, &signs.certificate), state(&house, bert, &reads.certificate)), (trusted, trusted));
    let (code, outputs) = goes(&house, &[bert]).await;
    assert!(code == 250 && outputs[0].0[0].names(&reads.certificate), "{code} {outputs:?}");
    // The next one to encrypt to, named by the one to sign: proven, and preferred though it is not newer.
    let next = issue(&with("keyAgreement"), Some(&middle));
    came(&house, bert, &bring(names(&next.certificate))).await;
    assert_eq!(state(&house, bert, &next.certificate), trusted);
    assert!(goes(&house, &[bert]).await.1[0].0[0].names(&next.certificate));
    // Two of that name in one mail: which of them was meant nobody signed.
    let more = issue(&with("keyAgreement"), Some(&middle));
    let mallory = issue(&pki.recipe("mallory@evil.example"), Some(&middle));
    came(&house, bert, &bring(names(&mallory.certificate))).await;
    assert!(records(&house, "mallory@evil.example").is_empty() && records(&house, bert).len() == 3, "SAN is not From");
    assert_eq!(state(&house, bert, &more.certificate), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_what_is_signed_inside_an_envelope_is_harvested_when_it_is_opened() {
    let house = house("mode = \"trust\"").await;
    let pki = Pki::new(&house);
    let bert = "bert@partner.example";
    let signer = issue(&pki.recipe(bert), Some(&house.ca));
    let anna = house.user(ANNA);
    let inner = Entity::parse(Bytes::from(Letter::new(bert, &signer).write()), &MimeLimits::default()).unwrap();
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    let plan =
        EncryptPlan { recipients: vec![(anna, scheme)], content: ContentEncryption::Aes256Gcm, derive_cek: false };
    let sealed = Draft::new(&inner).unwrap().encrypt(&plan, true).unwrap().rope().to_bytes();
    assert_eq!(house.send_in(bert, &[ANNA], &sealed).await.code, 250);
    house.settled().await;
    assert!(house.server.wait(1).await[0].text().contains("smime=pass"));
    looked_at(&house).await;
    assert_eq!(state(&house, bert, &signer.certificate), Some(TrustState::Trusted));
}

/// What is not good enough for one of its recipients is nothing to learn from, however good it is for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_nothing_is_learned_of_mail_that_is_quarantined_for_one_of_its_recipients() {
    let (bert, dora) = ("bert@partner.example", "dora@ours.example");
    // Nothing tells whether a certificate is revoked: it matters to her alone.
    let policy = format!(
        "[[rule]]\nmatch = {{ recipient = [\"{dora}\"] }}\nrevocation = \"require\"\nquarantine = [\"untrusted-signer\"]\n{REQUIRE}"
    );
    let top = "[harvest]\nwrites_per_second = 100\nmode = \"trust\"\n";
    let house = House::build(&Plan { policy: &policy, top, ..Plan::default() }).await;
    let pki = Pki::new(&house);
    let (anna, hers) = (house.user(ANNA), house.user(dora));
    let scheme = RecipientScheme { rsa: KeyTransport::RsaPkcs1, kdf: KeyDerivation::X963(Digest::Sha256) };
    let recipients = vec![(anna, scheme), (hers, scheme)];
    let plan = EncryptPlan { recipients, content: ContentEncryption::Aes256Gcm, derive_cek: false };
    let send = async |to: &[&str]| {
        let signer = issue(&pki.recipe(bert), Some(&house.ca));
        let letter = Entity::parse(Bytes::from(Letter::new(bert, &signer).write()), &MimeLimits::default()).unwrap();
        let sealed = Draft::new(&letter).unwrap().encrypt(&plan, true).unwrap().rope().to_bytes();
        house.server.clear();
        assert_eq!(house.send_in(bert, to, &sealed).await.code, 250);
        house.settled().await;
        let came = house.server.wait(1).await.remove(0);
        assert!(came.to == [ANNA] && came.text().contains("smime=pass"), "{}", came.text());
        looked_at(&house).await;
        signer.certificate
    };
    for to in [[ANNA, dora], [dora, ANNA]] {
        let certificate = send(&to).await;
        assert_eq!(state(&house, bert, &certificate), None, "{to:?}");
        assert_eq!(house.gateway.spool().entries().iter().filter(|one| one.held.is_some()).count(), 1, "kept from her");
        for entry in house.gateway.spool().entries() {
            house.gateway.spool().delete(entry.id).await.unwrap();
        }
    }
    let certificate = send(&[ANNA]).await;
    assert_eq!(state(&house, bert, &certificate), Some(TrustState::Trusted), "for her alone it is good enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_outsiders_do_not_let_the_store_grow_without_bound() {
    let house = house("mode = \"candidate\"\nper_mailbox = 2\npending = 4\ncertificates = 6").await;
    let pki = Pki::new(&house);
    // One with a domain of his own, and as many mailboxes as he likes; and one other who came first.
    let bert = "bert@partner.example";
    let genuine = issue(&pki.recipe(bert), Some(&house.ca));
    came(&house, bert, &Letter::new(bert, &genuine).write()).await;
    for number in 0..8 {
        let address = format!("m{number}@evil.example");
        let one = issue(&pki.recipe(&address), Some(&house.ca));
        came(&house, &address, &Letter::new(&address, &one).write()).await;
    }
    let counts = house.gateway.harvested();
    assert_eq!((counts.pending, counts.pushed_out, counts.dropped), (9, 5, 0), "{counts:?}");
    let owners: Vec<String> = house.store.owners().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(owners, [bert, "m5@evil.example", "m6@evil.example", "m7@evil.example"]);
    // Of one mailbox: the oldest pending one makes place.
    let others: Vec<Issued> = (0..3).map(|_| issue(&pki.recipe(bert), Some(&house.ca))).collect();
    for one in &others {
        came(&house, bert, &Letter::new(bert, one).write()).await;
    }
    let kept: Vec<_> = records(&house, bert).into_iter().map(|one| one.certificate).collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.contains(&others[1].certificate) && kept.contains(&others[2].certificate));
    assert!(house.store.verify().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_sign_says_what_the_mailbox_can_read() {
    let house = House::with_policy("[default]\nsign = \"require\"\nencrypt = \"never\"\n").await;
    let pki = Pki::new(&house);
    let split = |usage: &'static str| Recipe {
        key_usage: vec![usage],
        key: NewKey::P256,
        ..Recipe::mailbox(ANNA, pki.now, NewKey::P256)
    };
    house.add(ANNA, split("digitalSignature"), true, TrustState::Trusted);
    let reads = house.add(ANNA, split("keyAgreement"), true, TrustState::Trusted);
    let announced = || async {
        house.world.clear();
        assert_eq!(
            house.send_out(ANNA, &["bert@partner.example"], &plain(ANNA, "bert@partner.example", "a", "b")).await.code,
            250
        );
        let mail = house.world.wait(1).await.remove(0);
        let entity = Entity::parse(Bytes::from(mail.message), &MimeLimits::default()).unwrap();
        let trust = house.store.trust().unwrap();
        let context = waxwing::smime::open::OpenContext::new(Vec::new(), trust, Timestamp::now());
        let mut opener = waxwing::smime::open::Opener::new(entity, context, || waxwing::keys::Cek::new(vec![0; 32]));
        let waxwing::smime::open::Step::Done(mut opened) = opener.step(None) else { panic!("no key is asked for") };
        opened.announced.remove(0)
    };
    let said = announced().await;
    assert!(said.preference.as_ref().unwrap().names(&reads) && said.company.contains(&reads));
    assert_eq!(said.capabilities.unwrap().content[0], ContentEncryption::Aes256Gcm);
    // Said by hand: what opens this mailbox's mail is not this gateway.
    let by = Provenance { source: "hand".into(), detail: "test".into(), at: Timestamp::now() };
    let known =
        waxwing::cms::algorithm::Capabilities { content: vec![ContentEncryption::Aes256Cbc], transport: Vec::new() };
    let fingerprint = reads.fingerprint();
    let edit = waxwing::store::Edit { fingerprint, capabilities: Some(Some((known, by))), ..Default::default() };
    let revision = || waxwing::store::Revision { edit: vec![edit.clone()], ..Default::default() };
    house.store.revise(&Owner::parse(ANNA).unwrap(), &mut |_| revision()).unwrap();
    assert_eq!(announced().await.capabilities.unwrap().content, [ContentEncryption::Aes256Cbc]);
}
