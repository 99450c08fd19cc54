//! SMIMECapabilities (RFC 8551 section 2.5.2), in signed attributes or in a certificate (RFC 4262).

use super::AlgorithmIdentifier;
use super::content::{CIPHERS, ContentEncryption, RC2_CBC, cipher_oid};
use super::key::{RSA_ENCRYPTION, RSAES_OAEP};
use super::transport::{KeyTransport, key_transport};
use crate::cms::ber::{Reader, tag, write};
use crate::cms::error::CmsError;

/// Writes SMIMECapabilities (RFC 8551 section 2.5.2), best first.
pub fn capabilities_der(capabilities: &[ContentEncryption]) -> Vec<u8> {
    let each: Vec<Vec<u8>> = capabilities
        .iter()
        .filter_map(|cipher| match cipher {
            ContentEncryption::Rc2Cbc128 | ContentEncryption::Rc2Cbc64 | ContentEncryption::Rc2Cbc40 => None,
            other => cipher_oid(*other),
        })
        .map(|oid| write::sequence(&[&write::oid(&oid)]))
        .collect();
    let pieces: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
    write::sequence(&pieces)
}

/// Entries of a list that are looked at; what comes after them is not known.
const ENTRIES: usize = 64;

/// What somebody says that he can read, as far as it is known here; each list in his order, best first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Content encryptions.
    pub content: Vec<ContentEncryption>,
    /// Ways to transport a content-encryption key to an RSA key; empty: nothing is said of them.
    pub transport: Vec<KeyTransport>,
}

impl Capabilities {
    /// Reads the DER of a SMIMECapabilities; at most 64 entries are looked at. `None` where it names no cipher that is known here:
    /// then it says nothing to choose by (a list may hold nothing but signature algorithms).
    pub fn read(der: &[u8]) -> Result<Option<Self>, CmsError> {
        let mut outer = Reader::der(der);
        let mut list = outer.expect(tag::SEQUENCE, "SMIMECapabilities")?.reader();
        outer.end("SMIMECapabilities")?;
        let mut known = Self::default();
        for _ in 0..ENTRIES {
            if list.is_empty() {
                break;
            }
            known.take(list.expect(tag::SEQUENCE, "SMIMECapability")?.raw)?;
        }
        Ok((!known.content.is_empty()).then_some(known))
    }

    fn take(&mut self, der: &[u8]) -> Result<(), CmsError> {
        let capability = AlgorithmIdentifier::from_der(der)?;
        if capability.oid == RSA_ENCRYPTION || capability.oid == RSAES_OAEP {
            // RFC 3560 section 4 gives the parameters; for rsaEncryption some leave them out.
            let how = match (key_transport(der), capability.oid == RSA_ENCRYPTION) {
                (Ok(how), _) => Some(how),
                (Err(_), true) => Some(KeyTransport::RsaPkcs1),
                (Err(_), false) => None,
            };
            self.transport.extend(how.filter(|how| !self.transport.contains(how)));
        } else if let Some(cipher) = cipher(&capability).filter(|cipher| !self.content.contains(cipher)) {
            self.content.push(cipher);
        }
        Ok(())
    }

    /// Names of the ciphers and key transports, for people.
    pub fn names(&self) -> Vec<String> {
        let content = self.content.iter().map(|cipher| cipher.name().to_owned());
        let transport = self.transport.iter().map(|how| match how {
            KeyTransport::RsaPkcs1 => "RSA PKCS#1 v1.5".to_owned(),
            KeyTransport::RsaOaep(digest, _) => format!("RSA-OAEP with {}", digest.name()),
        });
        content.chain(transport).collect()
    }
}

/// The cipher that an entry names; `None` where it names none that is known here.
fn cipher(capability: &AlgorithmIdentifier<'_>) -> Option<ContentEncryption> {
    if capability.oid == RC2_CBC {
        return match capability.parameters {
            Some([tag::INTEGER, 2, 0, 0x80]) => Some(ContentEncryption::Rc2Cbc128),
            Some([tag::INTEGER, 1, 0x40]) => Some(ContentEncryption::Rc2Cbc64),
            Some([tag::INTEGER, 1, 0x28]) => Some(ContentEncryption::Rc2Cbc40),
            _ => None,
        };
    }
    CIPHERS.into_iter().find_map(|(oid, cipher)| (oid == capability.oid).then_some(cipher))
}

/// Fuzz body: what is read is bounded, names each thing once, and what it names is written and read again alike.
#[doc(hidden)]
pub fn fuzz_capabilities(data: &[u8]) {
    use ContentEncryption::{Rc2Cbc40, Rc2Cbc64, Rc2Cbc128};
    let Ok(Some(read)) = Capabilities::read(data) else { return };
    assert!(!read.content.is_empty() && read.content.len() + read.transport.len() <= ENTRIES);
    for (at, cipher) in read.content.iter().enumerate() {
        assert!(!read.content.iter().skip(at + 1).any(|other| other == cipher));
    }
    let mut writable = read.content.clone();
    writable.retain(|cipher| !matches!(cipher, Rc2Cbc40 | Rc2Cbc64 | Rc2Cbc128));
    let again = Capabilities::read(&capabilities_der(&writable));
    assert_eq!(again.map(|again| again.map(|again| again.content).unwrap_or_default()), Ok(writable));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cms::algorithm::{Digest, key_transport_der};

    fn list(entries: &[&[u8]]) -> Vec<u8> {
        write::sequence(entries)
    }

    #[test]
    fn ciphers_and_key_transports_are_read_in_their_order() {
        let aes = capabilities_der(&[ContentEncryption::Aes256Cbc, ContentEncryption::Aes128Cbc]);
        let (oaep, pkcs1) = (
            key_transport_der(KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256)),
            key_transport_der(KeyTransport::RsaPkcs1),
        );
        // Without its parameters, as some write it; and twice.
        let bare = write::sequence(&[&write::oid(&RSA_ENCRYPTION)]);
        let read = Capabilities::read(&list(&[&aes[2..], &oaep, &bare, &pkcs1])).unwrap().unwrap();
        assert_eq!(read.content, [ContentEncryption::Aes256Cbc, ContentEncryption::Aes128Cbc]);
        let transport = [KeyTransport::RsaOaep(Digest::Sha256, Digest::Sha256), KeyTransport::RsaPkcs1];
        assert_eq!(read.transport, transport);
        assert_eq!(read.names(), ["AES-256-CBC", "AES-128-CBC", "RSA-OAEP with SHA-256", "RSA PKCS#1 v1.5"]);
        // RFC 3560 section 4: OAEP with SHA-1 has an empty sequence as its parameters.
        let sha1 = write::sequence(&[&write::oid(&RSAES_OAEP), &write::sequence(&[])]);
        let read = Capabilities::read(&list(&[&aes[2..], &sha1])).unwrap().unwrap();
        assert_eq!(read.transport, [KeyTransport::RsaOaep(Digest::Sha1, Digest::Sha1)]);
    }

    #[test]
    fn lists_as_mail_programs_write_them_keep_their_order() {
        use ContentEncryption::{Aes128Cbc, Aes256Gcm, Rc2Cbc40, Rc2Cbc128, TripleDesCbc};
        let written = [Aes256Gcm, Aes128Cbc, TripleDesCbc];
        assert_eq!(Capabilities::read(&capabilities_der(&written)).unwrap().unwrap().content, written);
        // Outlook's and NSS's lists name RC2 with its bits, and digests.
        let entry = |dotted: &str, parameters: &[u8]| {
            write::sequence(&[&write::oid(&const_oid::ObjectIdentifier::new_unwrap(dotted)), parameters])
        };
        let (rc2, aes) = ("1.2.840.113549.3.2", "2.16.840.1.101.3.4.1.2");
        let mixed = list(&[
            &entry("2.16.840.1.101.3.4.2.1", &[]),
            &entry(rc2, &write::integer(128)),
            &entry(aes, &[]),
            &entry(aes, &[]),
            &entry(rc2, &write::integer(40)),
            &entry(rc2, &write::integer(41)),
        ]);
        assert_eq!(Capabilities::read(&mixed).unwrap().unwrap().content, [Rc2Cbc128, Aes128Cbc, Rc2Cbc40]);
    }

    #[test]
    fn a_list_without_a_cipher_says_nothing() {
        let pkcs1 = key_transport_der(KeyTransport::RsaPkcs1);
        assert_eq!(Capabilities::read(&list(&[&pkcs1])), Ok(None));
        assert_eq!(Capabilities::read(&list(&[])), Ok(None));
        assert!(Capabilities::read(&[0x30, 0x80, 0, 0]).is_err());
        assert!(Capabilities::read(&[list(&[&pkcs1]), vec![0]].concat()).is_err(), "a tail");
    }

    #[test]
    fn what_comes_after_64_entries_is_not_looked_at() {
        let unknown = write::sequence(&[&write::oid(&const_oid::ObjectIdentifier::new_unwrap("1.2.3"))]);
        let aes = capabilities_der(&[ContentEncryption::Aes256Cbc]);
        let of = |others: usize| {
            let mut entries: Vec<&[u8]> = vec![&unknown; others];
            entries.push(&aes[2..]);
            Capabilities::read(&list(&entries)).unwrap()
        };
        assert!(of(63).is_some() && of(64).is_none() && of(10_000).is_none());
    }

    proptest! {
        #[test]
        fn any_octets_are_refused_or_read(data in prop::collection::vec(any::<u8>(), 0..200), flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
            fuzz_capabilities(&data);
            let mut near = capabilities_der(&[ContentEncryption::Aes256Gcm, ContentEncryption::TripleDesCbc]);
            for (place, octet) in flips {
                let length = near.len();
                near[usize::from(place) % length] = octet;
            }
            fuzz_capabilities(&near);
        }
    }
}
