//! DKIM signatures of our domains over mail as it leaves: after sealing, over the octets that go to the next hop. A large mail is hashed
//! while it is written out, 64 KiB at a time.

use mail_auth::common::crypto::DkimKey;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::{DkimSigner, Done};

use super::key::Key;
use crate::address::Domain;
use crate::config::Dkim;
use crate::mime::header::Header;
use crate::mime::rope::Rope;

/// Octets that are written out at a time.
const CHUNK: usize = 64 * 1024;

/// What is signed, present or not (RFC 6376 section 5.4.1); From once more than it may stand there, so that none can be put in front.
const FIELDS: [&str; 13] = [
    "From",
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// A key of a domain.
struct Signer {
    domain: Domain,
    signer: DkimSigner<DkimKey, Done>,
}

/// The keys of all our domains.
#[derive(Default)]
pub struct Signers {
    all: Vec<Signer>,
}

impl Signers {
    /// Reads the keys.
    ///
    /// # Errors
    /// The file that is at fault, and what is wrong with it.
    pub fn load(settings: &[Dkim]) -> Result<Self, String> {
        let load = |one: &Dkim| {
            let key = Key::read(&one.key).and_then(|key| key.for_signing());
            let key = key.map_err(|why| format!("dkim key {} of {}: {why}", one.key.display(), one.domain))?;
            let signer = DkimSigner::from_key(key).domain(one.domain.as_str()).selector(&*one.selector).headers(FIELDS);
            Ok(Signer { domain: one.domain.clone(), signer })
        };
        Ok(Self { all: settings.iter().map(load).collect::<Result<_, String>>()? })
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those of the domain that vouches for authors of this one: itself, or the nearest above it (RFC 9989 section 4.10.2: relaxed alignment).
    fn of(&self, author: &Domain) -> impl Iterator<Item = &Signer> {
        let domain = vouching(self.all.iter().map(|one| &one.domain), author).cloned();
        self.all.iter().filter(move |one| Some(&one.domain) == domain.as_ref())
    }

    /// DKIM-Signature fields to be put in front of a mail by this author: one for each key of his domain. Empty: none has a key.
    ///
    /// # Errors
    /// The library's word; a defect.
    pub fn sign(&self, author: &Domain, mail: &Rope) -> Result<Vec<u8>, String> {
        let mut streams: Vec<_> = self.of(author).map(|one| one.signer.sign_streaming()).collect();
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        for chunk in mail.chunks(CHUNK) {
            streams.iter_mut().for_each(|stream| stream.write(&chunk));
        }
        let mut fields = Vec::with_capacity(1_024);
        for stream in streams {
            stream.finish().map_err(|error| error.to_string())?.write_header(&mut fields);
        }
        Ok(fields)
    }
}

/// The nearest of these domains that is the author's or above it.
pub fn vouching<'d>(domains: impl Iterator<Item = &'d Domain>, author: &Domain) -> Option<&'d Domain> {
    let above = |domain: &&Domain| {
        let rest = author.as_str().strip_suffix(domain.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    domains.filter(above).max_by_key(|domain| domain.as_str().len())
}

/// Whether a signature of the author's domain, or of one above it, stands there already: somebody signs before us.
pub fn is_signed_for(header: &Header, author: &Domain) -> bool {
    header.all("DKIM-Signature").take(100).any(|field| {
        let value = field.value();
        let mut tags = value.split(';').filter_map(|tag| tag.split_once('='));
        let domain = tags.find(|(name, _)| name.trim() == "d").and_then(|(_, value)| Domain::parse(value.trim()).ok());
        domain.is_some_and(|domain| vouching([&domain].into_iter(), author).is_some())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::key::NewKey;
    use super::*;
    use crate::mime::entity::MimeLimits;

    const MAIL: &str = "From: Anna <anna@sub.a.example>\r\nTo: b@b.example\r\nSubject: x\r\n\r\nbody\r\n";

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    /// Signers for `(domain, selector)`, and the folder of their keys.
    fn signers(keys: &[(&str, &str, NewKey)]) -> (Signers, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let settings = keys.iter().map(|(name, selector, kind)| {
            let key = folder.path().join(format!("{name}.{selector}"));
            Key::generate(*kind).unwrap().write_new(&key).unwrap();
            Dkim { domain: domain(name), selector: (*selector).to_owned(), key }
        });
        (Signers::load(&settings.collect::<Vec<_>>()).unwrap(), folder)
    }

    fn written(signers: &Signers, author: &str, mail: &Rope) -> String {
        let fields = signers.sign(&domain(author), mail).unwrap();
        // Without folds.
        String::from_utf8(fields).unwrap().replace("\r\n\t", "")
    }

    #[test]
    fn the_nearest_domain_signs_with_each_of_its_keys() {
        let kind = NewKey::Ed25519;
        let (signers, _folder) =
            signers(&[("a.example", "one", kind), ("a.example", "two", kind), ("sub.a.example", "three", kind)]);
        let mail = Rope::from(Bytes::from(MAIL));
        let selectors = |author: &str| -> Vec<String> {
            let text = written(&signers, author, &mail);
            text.split("; s=").skip(1).filter_map(|rest| rest.split(';').next()).map(str::to_owned).collect()
        };
        assert_eq!(selectors("a.example"), ["one", "two"]);
        assert_eq!(selectors("sub.a.example"), ["three"]);
        assert_eq!(selectors("deep.sub.a.example"), ["three"]);
        assert_eq!(selectors("other.a.example"), ["one", "two"]);
        assert!(selectors("nota.example").is_empty() && selectors("example").is_empty());
    }

    #[test]
    fn from_is_signed_once_more_than_it_stands_there_and_what_is_missing_is_signed_as_missing() {
        let (signers, _folder) = signers(&[("a.example", "s", NewKey::Rsa2048)]);
        let text = written(&signers, "a.example", &Rope::from(Bytes::from(MAIL)));
        assert!(text.starts_with("DKIM-Signature: v=1; a=rsa-sha256; s=s; d=a.example; c=relaxed/relaxed;"), "{text}");
        let names = text.split("h=").nth(1).unwrap().split(';').next().unwrap().to_ascii_lowercase();
        let names: Vec<&str> = names.split(':').map(str::trim).collect();
        assert_eq!(names.iter().filter(|name| **name == "from").count(), 2, "{names:?}");
        assert_eq!(names.len(), FIELDS.len());
    }

    #[test]
    fn how_a_mail_lies_in_memory_changes_nothing() {
        let (signers, _folder) = signers(&[("a.example", "s", NewKey::Ed25519)]);
        let body: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
        let mut rope = Rope::from(Bytes::from_static(b"From: a@a.example\r\nSubj"));
        rope.push_raw(Bytes::from_static(b"ect: x\r\n\r"));
        rope.push_raw(Bytes::from_static(b"\n"));
        rope.push_base64(body);
        let hash = |rope: &Rope| {
            let text = written(&signers, "a.example", rope);
            text.split("bh=").nth(1).unwrap().split(';').next().unwrap().to_owned()
        };
        assert_eq!(hash(&rope), hash(&Rope::from(rope.to_bytes())));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn seams_between_pieces_change_nothing(lines in proptest::collection::vec("[ \ta-c]{0,6}", 0..12), cuts in proptest::collection::vec(0usize..200, 0..8)) {
            let (signers, _folder) = signers(&[("a.example", "s", NewKey::Ed25519)]);
            let text = Bytes::from(format!("{MAIL}{}", lines.join("\r\n")));
            let mut rest = text.clone();
            let mut rope = Rope::new();
            for cut in cuts {
                rope.push_raw(rest.split_to(cut % (rest.len() + 1)));
            }
            rope.push_raw(rest);
            let hash = |rope: &Rope| {
                let fields = written(&signers, "a.example", rope);
                fields.split("bh=").nth(1).unwrap().split(';').next().unwrap().to_owned()
            };
            proptest::prop_assert_eq!(hash(&rope), hash(&Rope::from(text)));
        }
    }

    #[test]
    fn a_signer_before_us_is_noticed() {
        let header =
            |fields: &str| Header::parse(&Bytes::from(format!("{fields}\r\n")), &MimeLimits::default()).unwrap().0;
        let author = domain("sub.a.example");
        for (field, expected) in [
            ("DKIM-Signature: v=1; a=x;\r\n d=A.example; s=s\r\n", true),
            ("DKIM-Signature: d=sub.a.example\r\n", true),
            ("DKIM-Signature: d=b.example; x=d=a.example\r\n", false),
            ("DKIM-Signature: v=1\r\n", false),
            ("Subject: d=a.example\r\n", false),
        ] {
            assert_eq!(is_signed_for(&header(field), &author), expected, "{field}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("k");
        let settings = [Dkim { domain: domain("a.example"), selector: "s".to_owned(), key: key.clone() }];
        let why = |settings: &[Dkim]| Signers::load(settings).err().unwrap();
        assert!(why(&settings).contains(&key.display().to_string()));
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(why(&settings).contains("a.example"));
    }
}
