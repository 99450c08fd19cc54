//! Waxwing: an S/MIME gateway. This file is the map of the house; `docs/overview.md` is the tour.
//!
//! Modules marked P are pure: octets in, values out; time, keys, network and randomness are arguments.
//! `--no-default-features` builds exactly those.
#![forbid(unsafe_code)]

/// P: mailboxes and domains as newtypes: A-labels, no CR, LF or NUL by construction.
pub mod address;
/// P: TOML text to a valid `Config`; an unknown key is an error with its line.
pub mod config;
/// P: which rule holds for a recipient, and what it means with the facts at hand.
pub mod policy;

/// SMTP and LMTP (RFC 5321, RFC 2033) as machines that eat octets and give events.
pub mod smtp {
    /// P: the client's transaction, pipelined.
    pub mod client;
    /// P: verbs, paths, parameters; `Reply` with its enhanced status code.
    pub mod command;
    /// P: DATA framing: dots, line ends, limits.
    pub mod data;
    /// P: what a load balancer says of its client before it (PROXY protocol).
    pub mod proxy;
    /// P: who is there: PLAIN, LOGIN, SCRAM-SHA-256.
    pub mod sasl;
    /// P: the server's session: octets in, events out, replies back.
    pub mod session;
    /// P: what a trusted proxy says of its client within SMTP.
    pub mod xclient;
    /// P: what a trusted peer says of the client that a mail came from, and what we say of ours.
    pub mod xforward;
}

/// MIME (RFC 2045, RFC 5322) over the octets received.
pub mod mime {
    /// P: canonical form, and a 7-bit-safe preparation for signing.
    pub mod canonical;
    /// P: a tree of raw spans over the received octets.
    pub mod entity;
    /// P: fields, parameters, mailboxes; the one header writer.
    pub mod header;
    /// P: mails in a file one after another.
    pub mod mbox;
    /// P: content as pieces, encoded while it is written.
    pub mod rope;
}

/// Cryptographic Message Syntax (RFC 5652, RFC 5083, RFC 3274).
pub mod cms {
    /// P: the strict table of AlgorithmIdentifiers, both ways.
    pub mod algorithm;
    /// P: a BER pull reader with depth and size limits; BER to DER.
    pub mod ber;
    /// P: CompressedData: decompress within bounds.
    pub mod compressed;
    /// P: EnvelopedData, AuthEnvelopedData and RecipientInfos: seal; open with a CEK.
    pub mod enveloped;
    /// P: errors of this module, each naming the rule that was broken.
    pub mod error;
    /// P: SignedData: prepare, (sign outside), finish; verify.
    pub mod signed;
}

/// S/MIME (RFC 8551): two nouns, two verbs.
pub mod smime {
    /// P: header fields inside the protection, and what stays outside (RFC 9788).
    pub mod header_protection;
    /// P: entity to what it is, what it needs, what came out.
    pub mod open;
    /// P: entity and plan to a protected entity.
    pub mod seal;
    #[cfg(test)]
    pub(crate) mod testing;
    /// P: the result of opening, and the marks that tell of it; forged marks stripped.
    pub mod verdict;
}

/// Who sent a mail, by the DNS: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989).
pub mod authentication {
    #[cfg(feature = "server")]
    /// Inbound: what the client, the signatures and the author's domain say, within a time.
    pub mod check;
    #[cfg(feature = "server")]
    /// Keys of DKIM: read, made, and told to the DNS.
    pub mod key;
    /// P: what was found, and the field that tells it (RFC 8601).
    pub mod results;
    #[cfg(feature = "server")]
    /// Outbound: our domains vouch for the mail of their authors.
    pub mod sign;
    /// P: DKIM-Signature fields that are worth a check.
    #[cfg(feature = "server")]
    mod signatures;
    #[cfg(feature = "server")]
    /// May this client send for that domain (RFC 7208)?
    mod spf;
}

/// X.509 for mail (RFC 5280, RFC 8550).
pub mod pki {
    /// P: a strict DER reader and a small DER writer.
    pub(crate) mod asn1;
    /// P: issues certificates from a recipe: the PKI of the tests and the demo.
    pub mod authority;
    /// P: what a certificate says for mail: addresses, usages, capabilities.
    pub mod certificate;
    /// P: LDIF (RFC 2849): entries of a directory's dump, with their certificates.
    pub mod ldif;
    /// P: certification paths; yields what it needs.
    pub mod path;
    /// P: PEM blocks of a file.
    pub(crate) mod pem;
    /// P: PKCS#12 (RFC 7292) import and export with bounded KDF work.
    pub mod pkcs12;
    /// P: a public key and what may be done with it: verify, transport a key, agree.
    pub mod public_key;
    /// P: revocation of the certificates of a path, by CRLs and OCSP responses at hand.
    pub mod revocation;
}

/// `KeyHolder`: operations with private keys, never their octets.
pub mod keys;

#[cfg(feature = "server")]
/// The certificate store: records, history, trust, the order of sources.
pub mod store;

/// Outside sources of certificates: what they find enters the store with its provenance.
pub mod discovery {
    #[cfg(feature = "server")]
    /// The DNS, with DNSSEC validated here.
    pub(crate) mod dnssec;
    #[cfg(feature = "server")]
    /// Certificates and capabilities out of signed mail (A10).
    pub mod harvest;
    /// P: LDAP (RFC 4511): requests and answers, filters.
    pub mod ldap;
    /// P: SMIMEA and TLSA records (RFC 8162, RFC 6698): where they stand, what they say of a certificate.
    pub mod smimea;
    #[cfg(feature = "server")]
    /// Directories and the DNS, asked when the store has nothing that may be used.
    pub mod sources;
}

#[cfg(feature = "server")]
/// Accepts mail, treats it, hands it on.
pub mod relay {
    /// The budget of bytes in flight for the whole process.
    pub mod budget;
    /// A value that is replaced as a whole while others use it.
    pub mod current;
    /// Hands over what is spooled, with retries, and tells the sender when it fails for good.
    pub mod deliver;
    /// Delivery by MX: what the DNS and a domain's policy say of where its mail goes, and how.
    pub mod direct;
    /// Looks once a day whose certificates run out.
    pub mod expiry;
    /// CRLs and OCSP responses over HTTP.
    pub mod fetch;
    /// Store, spool, listeners and deliverer put together.
    pub mod gateway;
    /// Connections to next hops, kept and pipelined.
    mod heavy;
    pub mod hop;
    /// Listeners: sockets, TLS, one session each.
    pub mod listen;
    /// One message: select, look up, resolve, seal or open, hand over.
    pub mod pipeline;
    /// How long tasks are polled at a time.
    mod polls;
    /// How much mail clients and users bring in a time.
    pub mod rates;
    /// The one table from an error to the words on the wire.
    pub mod refusal;
    /// Held outbound mail goes, by policy anew.
    pub mod release;
    /// Which next hop a recipient's mail goes to.
    pub mod route;
}

#[cfg(feature = "server")]
/// Accepted mail on disk until it is handed over.
pub mod spool;

#[cfg(feature = "server")]
/// What private keys were used for and what was changed, chained by hashes.
pub mod audit;

#[cfg(feature = "server")]
/// Numbers for those who watch, and the listener they ask at.
pub mod metrics;

#[cfg(feature = "server")]
/// What an administrator asks of a gateway at work, and of its spool.
pub mod admin {
    /// Asks a gateway at work over its control socket.
    pub mod client;
    /// The words on the control socket.
    pub mod protocol;
    /// Looks at the queue and changes it, for a gateway at work or for a command alone.
    pub mod queue;
    /// The control socket of a gateway at work.
    pub mod server;
}

#[cfg(feature = "server")]
/// The load lab: a generator and a sink in one, and an account of every mail.
pub mod load {
    /// Sends by the pace of a scenario.
    pub mod generator;
    /// What was intended, answered and delivered: every mail accounted for.
    pub mod ledger;
    /// The mails of a run: contents, people, sealed ones, and what is expected of each.
    pub mod mails;
    /// Latencies, rates, processor time and memory over time.
    pub mod measure;
    /// Random numbers from a seed.
    mod random;
    /// What people look at: table, JSON, a page, a comparison.
    pub mod report;
    /// One run: people and mails, sink, generator, drain, account.
    pub mod run;
    /// A TOML file to a valid scenario; those that are shipped.
    pub mod scenario;
    /// A mail server that keeps account and can be faulty.
    pub mod sink;
}

#[cfg(feature = "samotop")]
/// The gateway as a stage of a samotop server.
pub mod samotop;

#[cfg(feature = "server")]
/// The command line: one file a subcommand.
pub mod cli;

#[cfg(test)]
#[path = "../tests/support/outside.rs"]
mod outside;
