//! Errors of CMS: each names the rule that was broken.

/// Why a CMS object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmsError {
    /// BER or DER that cannot be read, with the offset.
    #[error("malformed {what} at octet {offset}: {why}")]
    Malformed { what: &'static str, offset: usize, why: &'static str },
    /// A limit (A13).
    #[error("{0}")]
    Limit(&'static str),
    /// An algorithm that is not in the table, or whose parameters are not exactly as the table says (A5).
    #[error("algorithm refused: {0}")]
    Algorithm(String),
    /// A rule of an RFC was broken; names it.
    #[error("{rule}: {why}")]
    Rule { rule: &'static str, why: &'static str },
    /// The signature or the tag does not fit.
    #[error("{0} does not verify")]
    Unauthentic(&'static str),
    /// A primitive failed (never says why: A3).
    #[error("cryptographic operation failed")]
    Crypto,
}
