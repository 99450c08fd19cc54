//! Keys, certificates, trust and the time for the offline commands: from files, from the store, or both.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::address::Mailbox;
use crate::cli::{Context, Failure, StoreArgs};
use crate::keys::{KeyAnswer, KeyError, KeyHolder, KeyId, KeyOperation, SoftwareKey, SoftwareKeys, Submission};
use crate::pki::certificate::Certificate;
use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet};
use crate::pki::pkcs12;
use crate::policy::TrustState;
use crate::smime::open::OwnKey;
use crate::store::CertStore;

/// Where keys, certificates and trust come from.
#[derive(Debug, Clone, clap::Args)]
pub struct MaterialArgs {
    /// A private key with its certificate: PKCS#12, or PEM (then the certificate may come with --cert). Repeatable.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// The password of the --key files; better in the environment than on a command line that others can list.
    #[arg(long, value_name = "TEXT", env = "WAXWING_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Certificates, PEM or DER: recipients to encrypt to, owners of keys, intermediates. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub cert: Vec<PathBuf>,
    /// Trust anchors, PEM or DER. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub trust: Vec<PathBuf>,
    /// The time to judge at (RFC 3339); default: now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// What the commands work with.
pub struct Material {
    pub own: Vec<OwnKey>,
    keys: SoftwareKeys,
    pub certificates: Vec<Certificate>,
    pub trust: Arc<TrustSet>,
    pub at: Timestamp,
    pub store: Option<Box<dyn CertStore>>,
}

/// Reads a file, or standard input for `-`.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    let result = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut octets).map(|_| ())
    } else {
        std::fs::read(file).map(|read| octets = read)
    };
    result.map_err(|error| Failure::new(format!("{} cannot be read: {error}", file.display()), ""))?;
    Ok(octets)
}

impl MaterialArgs {
    /// Reads the files, and opens the store where it is named, or where no file is named and there is a configuration.
    pub fn load(&self, context: &Context) -> Result<Material, Failure> {
        let mut material = Material {
            own: Vec::new(),
            keys: SoftwareKeys::default(),
            certificates: Vec::new(),
            trust: Arc::default(),
            at: self.at.unwrap_or_else(Timestamp::now),
            store: None,
        };
        for file in &self.cert {
            material.certificates.extend(certificates(file)?);
        }
        let mut ids = Vec::new();
        for file in &self.key {
            ids.extend(material.read_keys(file, self.password.as_deref())?);
        }
        material.pair(&ids)?;
        let mut trust = TrustSet::default();
        for file in &self.trust {
            let anchors = certificates(file)?;
            trust
                .anchors
                .extend(anchors.into_iter().map(|certificate| TrustAnchor { certificate, scope: AnchorScope::Global }));
        }
        let named = self.store.store.is_some() || !self.store.kek.is_empty();
        let nothing = self.key.is_empty() && self.cert.is_empty() && self.trust.is_empty();
        if named || (nothing && context.config.exists()) {
            let store = self.store.open(context)?;
            let stored = store.trust()?;
            trust.anchors.extend(stored.anchors.iter().cloned());
            trust.intermediates.extend(stored.intermediates.iter().cloned());
            material.store = Some(Box::new(store));
        }
        trust.intermediates.extend(material.certificates.iter().cloned());
        material.trust = Arc::new(trust);
        Ok(material)
    }
}

impl Material {
    /// Takes the keys and certificates of a file.
    fn read_keys(&mut self, file: &Path, password: Option<&str>) -> Result<Vec<(KeyId, PathBuf)>, Failure> {
        let bundle = pkcs12::read_any(&read(file)?, password)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display()), "give the right --password"))?;
        if bundle.keys.is_empty() {
            return Err(Failure::new(format!("{} holds no private key", file.display()), "certificates go to --cert"));
        }
        self.certificates.extend(bundle.certificates);
        let mut ids = Vec::new();
        for pkcs8 in &bundle.keys {
            let key = SoftwareKey::from_pkcs8(pkcs8)
                .map_err(|error| Failure::new(format!("{}: {error}", file.display()), ""))?;
            ids.push((self.keys.insert(key), file.to_owned()));
        }
        Ok(ids)
    }

    /// Finds the certificates of the keys.
    fn pair(&mut self, ids: &[(KeyId, PathBuf)]) -> Result<(), Failure> {
        for (key, file) in ids {
            let owned = self.certificates.iter().filter(|one| KeyId::of_spki(one.public_key().spki()) == *key);
            let owned: Vec<OwnKey> =
                owned.map(|certificate| OwnKey { certificate: certificate.clone(), key: *key }).collect();
            if owned.is_empty() {
                let what = format!("the private key in {} has no certificate", file.display());
                return Err(Failure::new(what, "add the certificate with --cert FILE"));
            }
            self.own.extend(owned);
        }
        Ok(())
    }

    /// The keys of a further file, with their certificates.
    pub fn further(&mut self, file: &Path, password: Option<&str>) -> Result<Vec<OwnKey>, Failure> {
        let ids = self.read_keys(file, password)?;
        self.pair(&ids)?;
        let named = |own: &&OwnKey| ids.iter().any(|(key, _)| *key == own.key);
        let mut found: Vec<OwnKey> = self.own.iter().filter(named).cloned().collect();
        found.dedup_by(|one, other| one.certificate == other.certificate);
        Ok(found)
    }

    /// The keys that the store has for these mailboxes, with those of the files.
    pub fn own_keys(&mut self, mailboxes: &[Mailbox]) -> Result<Vec<OwnKey>, Failure> {
        if let Some(store) = &self.store {
            for mailbox in mailboxes {
                for record in &store.identity(mailbox)?.certificates {
                    let Some(key) = record.key else { continue };
                    if self.own.iter().any(|own| own.key == key && own.certificate == record.certificate) {
                        continue;
                    }
                    let loaded = SoftwareKey::from_pkcs8(&store.export_key(key)?)
                        .map_err(|error| Failure::new(format!("the stored key of {mailbox}: {error}"), ""))?;
                    self.keys.insert(loaded);
                    self.own.push(OwnKey { certificate: record.certificate.clone(), key });
                }
            }
        }
        Ok(self.own.clone())
    }

    /// Certificates that may stand for a mailbox: those of the files, and those of the store that are neither pending nor
    /// blocked, pinned ones first.
    pub fn candidates(&self, mailbox: &Mailbox) -> Result<Vec<Certificate>, Failure> {
        let mut found: Vec<Certificate> = self.certificates.clone();
        if let Some(store) = &self.store {
            let identity = store.identity(mailbox)?;
            for state in [TrustState::Pinned, TrustState::Trusted] {
                let records =
                    identity.certificates.iter().rev().filter(|record| !identity.disabled && record.trust == state);
                found.extend(records.map(|record| record.certificate.clone()));
            }
        }
        found.retain(|certificate| certificate.is_for(&mailbox.key()));
        Ok(found)
    }

    /// Does an operation with one of the keys.
    pub fn perform(&self, operation: KeyOperation) -> Result<KeyAnswer, KeyError> {
        match self.keys.submit(operation) {
            Submission::Ready(answer) => answer,
            Submission::Later(_) => Err(KeyError::Unavailable("keys in memory answer at once".into())),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, Failure> {
    Certificate::from_pem_or_der(&read(file)?).map_err(|error| Failure::new(format!("{}: {error}", file.display()), ""))
}
