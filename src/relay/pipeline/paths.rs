//! Signers whose certification path was found before: nine mails of ten come from somebody who wrote already.

use aws_lc_rs::digest;
use jiff::Timestamp;
use quick_cache::sync::Cache;

use crate::pki::certificate::Purpose;
use crate::pki::path::{PathLimits, PathMemory, PathQuestion, ValidPath};

/// Paths kept at most: some 8 KiB each.
const SIGNERS: usize = 4096;
/// Certificates of one message up to which it is looked up: each is hashed.
const CERTIFICATES: usize = 8;

/// What a path depends on, beside the time: leaf and company, anchors and intermediates, purpose, whose domain.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    certificates: [u8; 32],
    trust: u64,
    purpose: Purpose,
    domain: Box<str>,
}

struct Kept {
    path: ValidPath,
    /// The clock may be set back: a path is not known to have been valid before it was found.
    from: Timestamp,
}

/// Only paths that are valid are kept, so that nobody fills it but those whom an anchor vouches for. Revocation is no part of it.
pub(super) struct SignerPaths(Cache<Key, std::sync::Arc<Kept>>, PathLimits);

impl SignerPaths {
    pub(super) fn new(limits: PathLimits) -> Self {
        Self(Cache::new(SIGNERS), limits)
    }
}

impl std::fmt::Debug for SignerPaths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignerPaths({})", self.0.len())
    }
}

fn key(question: &PathQuestion<'_>) -> Option<Key> {
    if question.extra.len() > CERTIFICATES {
        return None;
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for one in std::iter::once(question.leaf).chain(question.extra) {
        // DER tells its own length: no two lists of certificates read alike.
        context.update(one.der());
    }
    let certificates = context.finish().as_ref().try_into().ok()?;
    let domain = question.domain.as_str().into();
    Some(Key { certificates, trust: question.trust.generation, purpose: question.purpose, domain })
}

impl PathMemory for SignerPaths {
    fn limits(&self) -> &PathLimits {
        &self.1
    }

    fn recall(&self, question: &PathQuestion<'_>) -> Option<ValidPath> {
        let kept = self.0.get(&key(question)?)?;
        (kept.from..=kept.path.not_after()).contains(&question.at).then(|| kept.path.clone())
    }

    fn keep(&self, question: &PathQuestion<'_>, path: &ValidPath) {
        if let (Some(key), Some(path)) = (key(question), path.detached()) {
            self.0.insert(key, std::sync::Arc::new(Kept { path, from: question.at }));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::address::Domain;
    use crate::pki::authority::{NewKey, Recipe, issue};
    use crate::pki::path::{AnchorScope, TrustAnchor, TrustSet, validate};

    #[test]
    fn a_path_is_recalled_for_the_same_question_alone() {
        let now = Timestamp::now();
        let root = issue(&Recipe::authority("Root", now, NewKey::P256), None);
        let leaf = issue(&Recipe::mailbox("a@b.example", now, NewKey::P256), Some(&root)).certificate;
        let other = issue(&Recipe::mailbox("c@b.example", now, NewKey::P256), Some(&root)).certificate;
        let anchors = vec![TrustAnchor { certificate: root.certificate.clone(), scope: AnchorScope::Global }];
        let trust = TrustSet { anchors, intermediates: Vec::new(), generation: 1 };
        let (domain, elsewhere) = (Domain::parse("b.example").unwrap(), Domain::parse("d.example").unwrap());
        let extra = [leaf.clone()];
        let question = PathQuestion {
            leaf: &leaf,
            extra: &extra,
            trust: &trust,
            purpose: Purpose::Signature,
            domain: &domain,
            at: now,
        };
        let path =
            validate(&leaf, &extra, &trust, question.purpose, Some(&domain), now, &PathLimits::default()).unwrap();
        let paths = SignerPaths::new(PathLimits::default());
        assert!(paths.recall(&question).is_none());
        paths.keep(&question, &path);
        let recalled = paths.recall(&question).unwrap();
        assert_eq!((recalled.leaf().der(), recalled.chain().len()), (leaf.der(), path.chain().len()));
        assert_ne!(recalled.leaf().der().as_ptr(), leaf.der().as_ptr(), "it keeps no message in memory");
        let changed = TrustSet { generation: 2, ..trust.clone() };
        let company = [leaf.clone(), other.clone()];
        for different in [
            PathQuestion { leaf: &other, ..question },
            PathQuestion { extra: &company, ..question },
            PathQuestion { trust: &changed, ..question },
            PathQuestion { purpose: Purpose::Encryption, ..question },
            PathQuestion { domain: &elsewhere, ..question },
            PathQuestion { at: now - 1.second(), ..question },
            PathQuestion { at: path.not_after() + 1.second(), ..question },
        ] {
            assert!(paths.recall(&different).is_none(), "{different:?}");
        }
        assert!(paths.recall(&PathQuestion { at: path.not_after(), ..question }).is_some());
    }
}
