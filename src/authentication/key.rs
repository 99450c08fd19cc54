//! Keys of DKIM: PEM files of RSA and Ed25519 keys, and the records of their public halves (RFC 6376 section 3.6.1, RFC 8463 section 4).

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::keys::SoftwareKey;
use crate::pki::pkcs12::read_any;
use crate::pki::public_key::KeyKind;

/// Octets of a record's text in one piece (RFC 1035 section 3.3).
const PIECE: usize = 255;
/// Before the 32 octets of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const ED25519_SPKI: usize = 12;
/// Octets of a key file that are read.
const FILE_MAX: u64 = 64 * 1024;

/// What a new key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    /// What every verifier knows.
    Rsa2048,
    /// Stronger; its record is longer than one piece of text.
    Rsa4096,
    /// RFC 8463: short, and not yet known to every verifier; beside an RSA key.
    Ed25519,
}

/// A private key, and what its record says.
pub struct Key {
    pkcs8: Zeroizing<Vec<u8>>,
    algorithm: &'static str,
    /// What `p=` holds.
    public: Vec<u8>,
}

impl Key {
    /// Reads a PEM or DER file: PKCS#8, or PKCS#1 as other programs make it.
    ///
    /// # Errors
    /// What was found, and what is expected.
    pub fn read(file: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let mut octets = Zeroizing::new(Vec::new());
        let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
        opened.take(FILE_MAX).read_to_end(&mut octets).map_err(|error| error.to_string())?;
        let bundle = read_any(&octets, None).map_err(|error| error.to_string())?;
        match bundle.keys.as_slice() {
            [one] => Self::from_pkcs8(one),
            several => Err(format!("{} private keys in it; one is expected", several.len())),
        }
    }

    /// A key in DER.
    ///
    /// # Errors
    /// It is no RSA key of 2048 to 8192 bits, nor an Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let key = SoftwareKey::from_pkcs8(pkcs8).map_err(|error| error.to_string())?;
        let (algorithm, public) = match key.public_key().kind() {
            KeyKind::Rsa { .. } => ("rsa", key.spki().to_vec()),
            KeyKind::Ed25519 => ("ed25519", key.spki().get(ED25519_SPKI..).unwrap_or_default().to_vec()),
            other => return Err(format!("a key of kind {}; RSA or Ed25519 is expected", other.name())),
        };
        Ok(Self { pkcs8: Zeroizing::new(pkcs8.to_vec()), algorithm, public })
    }

    /// Makes one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate(kind: NewKey) -> Result<Self, String> {
        let rsa = |size| {
            let key = RsaKeyPair::generate(size).map_err(|_| "no RSA key can be made")?;
            let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| "the RSA key cannot be written")?;
            Ok::<_, &str>(Zeroizing::new(der.as_ref().to_vec()))
        };
        let pkcs8 = match kind {
            NewKey::Rsa2048 => rsa(KeySize::Rsa2048)?,
            NewKey::Rsa4096 => rsa(KeySize::Rsa4096)?,
            NewKey::Ed25519 => {
                let key = Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1().map(|der| der.as_ref().to_vec()));
                Zeroizing::new(key.map_err(|_| "no Ed25519 key can be made")?)
            }
        };
        Self::from_pkcs8(&pkcs8)
    }

    /// Writes it to a new file that only its owner may read.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write_new(&self, file: &Path) -> std::io::Result<()> {
        let mut text = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
        let base64 = Zeroizing::new(STANDARD.encode(&*self.pkcs8));
        for line in base64.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str("-----END PRIVATE KEY-----\n");
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all())
    }

    /// `rsa` or `ed25519`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The text of its record.
    pub fn record(&self) -> String {
        format!("v=DKIM1; k={}; p={}", self.algorithm, STANDARD.encode(&self.public))
    }

    /// The same as a line of a zone file.
    pub fn zone_line(&self, domain: &str, selector: &str) -> String {
        let record = self.record();
        let pieces = record.as_bytes().chunks(PIECE).map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)));
        format!("{selector}._domainkey.{domain}. IN TXT ( {} )", pieces.collect::<Vec<_>>().join(" "))
    }

    /// The key as the signer takes it.
    ///
    /// # Errors
    /// The library does not take it.
    pub(super) fn for_signing(&self) -> Result<DkimKey, String> {
        let taken = match self.algorithm {
            "rsa" => {
                let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&**self.pkcs8));
                RsaKey::from_key_der(der).map(DkimKey::Rsa)
            }
            _ => Ed25519Key::from_pkcs8_maybe_unchecked_der(&self.pkcs8).map(DkimKey::Ed25519),
        };
        taken.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8463 appendix A.1 and A.2: the key, and its record.
    #[test]
    fn rfc_8463_the_record_of_its_key_is_the_one_it_prints() {
        let seed = STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        // PrivateKeyInfo of RFC 8410 section 7.
        let start = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let key = Key::from_pkcs8(&[&start[..], &seed].concat()).unwrap();
        assert_eq!(key.record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(
            key.zone_line("football.example.com", "brisbane"),
            "brisbane._domainkey.football.example.com. IN TXT ( \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\" )"
        );
        assert!(key.for_signing().is_ok());
    }

    #[test]
    fn a_key_that_was_made_is_read_again_and_kept_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        for (number, kind) in [NewKey::Rsa2048, NewKey::Ed25519].into_iter().enumerate() {
            let file = folder.path().join(number.to_string());
            let key = Key::generate(kind).unwrap();
            key.write_new(&file).unwrap();
            assert!(key.write_new(&file).is_err(), "an existing file is left as it is");
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let again = Key::read(&file).unwrap();
            assert_eq!(again.record(), key.record());
            assert!(again.for_signing().is_ok());
            let line = key.zone_line("a.example", "s");
            assert!(line.split('"').all(|piece| piece.len() <= PIECE), "{line}");
        }
        std::fs::write(folder.path().join("none"), "nothing").unwrap();
        assert!(Key::read(&folder.path().join("none")).is_err());
        assert!(Key::read(&folder.path().join("missing")).is_err());
    }
}
