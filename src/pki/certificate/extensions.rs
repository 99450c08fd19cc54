//! The extensions of a certificate (RFC 5280 section 4.2), as far as mail needs them; what is long stays where it is.

use crate::pki::asn1::{Asn1Error, Reader, Span, Tlv, oid_text, tag};

/// keyUsage bits (RFC 5280 4.2.1.3), the standard's bit 0 lowest.
pub(crate) mod usage {
    pub(crate) const DIGITAL_SIGNATURE: u16 = 1;
    pub(crate) const NON_REPUDIATION: u16 = 1 << 1;
    pub(crate) const KEY_ENCIPHERMENT: u16 = 1 << 2;
    pub(crate) const KEY_AGREEMENT: u16 = 1 << 4;
    pub(crate) const KEY_CERT_SIGN: u16 = 1 << 5;
    pub(crate) const CRL_SIGN: u16 = 1 << 6;
}

/// Extended key usages that matter to mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtendedUsage {
    pub(crate) email_protection: bool,
    pub(crate) any: bool,
    pub(crate) ocsp_signing: bool,
}

/// What the extensions say.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) ca: bool,
    pub(crate) path_length: Option<u64>,
    pub(crate) key_usage: Option<u16>,
    pub(crate) extended_usage: Option<ExtendedUsage>,
    pub(crate) subject_key: Option<Span>,
    pub(crate) authority_key: Option<Span>,
    pub(crate) alternative_names: Option<Span>,
    pub(crate) name_constraints: Option<Span>,
    pub(crate) policies: Option<Span>,
    pub(crate) policy_mappings: Option<Span>,
    pub(crate) require_explicit_policy: Option<u64>,
    pub(crate) inhibit_policy_mapping: Option<u64>,
    pub(crate) inhibit_any_policy: Option<u64>,
    pub(crate) distribution_points: Option<Span>,
    pub(crate) freshest_points: Option<Span>,
    pub(crate) authority_access: Option<Span>,
    /// smimeCapabilities (RFC 4262), as it stands: one that cannot be read costs nobody his certificate.
    pub(crate) smime_capabilities: Option<Span>,
    /// id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1).
    pub(crate) ocsp_no_check: bool,
    /// The OID of a critical extension that is not processed here.
    pub(crate) unknown_critical: Option<Box<str>>,
}

impl Extensions {
    /// Reads `SEQUENCE OF Extension`.
    pub(crate) fn read(mut list: Reader<'_>) -> Result<Self, Asn1Error> {
        let mut extensions = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !list.is_empty() {
            let mut fields = list.sequence("an Extension is a SEQUENCE")?;
            let oid = fields.expect(tag::OID, "an Extension has an OID")?;
            let critical = match fields.optional(tag::BOOLEAN)? {
                Some(critical) => critical.boolean()?,
                None => false,
            };
            let value = fields.expect(tag::OCTET_STRING, "an Extension has an OCTET STRING")?;
            fields.done()?;
            // RFC 5280 4.2: not more than one instance of a particular extension.
            if seen.contains(&oid.value) {
                return Err(oid.error("an extension is there twice"));
            }
            if seen.len() >= 64 {
                return Err(oid.error("more than 64 extensions"));
            }
            seen.push(oid.value);
            let known = extensions.take(oid.value, value)?;
            if critical && !known && extensions.unknown_critical.is_none() {
                extensions.unknown_critical = Some(oid_text(oid.value).into());
            }
        }
        Ok(extensions)
    }

    /// Reads one extension; false where it is not processed here.
    fn take(&mut self, oid: &[u8], value: Tlv<'_>) -> Result<bool, Asn1Error> {
        let mut reader = value.reader();
        match oid {
            [0x55, 0x1d, 14] => {
                self.subject_key =
                    Some(reader.expect(tag::OCTET_STRING, "subjectKeyIdentifier is an OCTET STRING")?.value_span()?);
            }
            [0x55, 0x1d, 15] => {
                self.key_usage = Some(reader.expect(tag::BIT_STRING, "keyUsage is a BIT STRING")?.named_bits()?);
            }
            [0x55, 0x1d, 17] => self.alternative_names = Some(span(&mut reader, "subjectAltName is a SEQUENCE")?),
            [0x55, 0x1d, 19] => self.basic_constraints(&mut reader)?,
            [0x55, 0x1d, 30] => self.name_constraints = Some(span(&mut reader, "nameConstraints is a SEQUENCE")?),
            [0x55, 0x1d, 32] => self.policies = Some(span(&mut reader, "certificatePolicies is a SEQUENCE")?),
            [0x55, 0x1d, 33] => self.policy_mappings = Some(span(&mut reader, "policyMappings is a SEQUENCE")?),
            [0x55, 0x1d, 35] => self.authority_key(&mut reader)?,
            [0x55, 0x1d, 36] => self.policy_constraints(&mut reader)?,
            [0x55, 0x1d, 37] => self.extended_usage(&mut reader)?,
            [0x55, 0x1d, 54] => {
                self.inhibit_any_policy =
                    Some(reader.expect(tag::INTEGER, "inhibitAnyPolicy is an INTEGER")?.unsigned()?);
            }
            [0x55, 0x1d, 31] => {
                self.distribution_points = Some(span(&mut reader, "cRLDistributionPoints is a SEQUENCE")?);
            }
            [0x55, 0x1d, 46] => self.freshest_points = Some(span(&mut reader, "freshestCRL is a SEQUENCE")?),
            [0x2b, 6, 1, 5, 5, 7, 1, 1] => {
                self.authority_access = Some(span(&mut reader, "authorityInfoAccess is a SEQUENCE")?);
            }
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 15] => {
                self.smime_capabilities = Some(value.value_span()?);
                return Ok(true);
            }
            [0x2b, 6, 1, 5, 5, 7, 48, 1, 5] => {
                self.ocsp_no_check = true;
                return Ok(true);
            }
            _ => return Ok(false),
        }
        reader.done()?;
        Ok(true)
    }

    fn basic_constraints(&mut self, reader: &mut Reader<'_>) -> Result<(), Asn1Error> {
        let mut fields = reader.sequence("basicConstraints is a SEQUENCE")?;
        if let Some(ca) = fields.optional(tag::BOOLEAN)? {
            self.ca = ca.value != [0];
        }
        if let Some(length) = fields.optional(tag::INTEGER)? {
            self.path_length = Some(length.unsigned()?);
        }
        fields.done()
    }

    fn authority_key(&mut self, reader: &mut Reader<'_>) -> Result<(), Asn1Error> {
        let mut fields = reader.sequence("authorityKeyIdentifier is a SEQUENCE")?;
        self.authority_key = match fields.optional(tag::context(0))? {
            Some(key) => Some(key.value_span()?),
            None => None,
        };
        Ok(())
    }

    fn policy_constraints(&mut self, reader: &mut Reader<'_>) -> Result<(), Asn1Error> {
        let mut fields = reader.sequence("policyConstraints is a SEQUENCE")?;
        if let Some(skip) = fields.optional(tag::context(0))? {
            self.require_explicit_policy = Some(skip.unsigned()?);
        }
        if let Some(skip) = fields.optional(tag::context(1))? {
            self.inhibit_policy_mapping = Some(skip.unsigned()?);
        }
        fields.done()
    }

    fn extended_usage(&mut self, reader: &mut Reader<'_>) -> Result<(), Asn1Error> {
        let mut list = reader.sequence("extKeyUsage is a SEQUENCE")?;
        let mut found = ExtendedUsage::default();
        while !list.is_empty() {
            match list.expect(tag::OID, "extKeyUsage is a list of OIDs")?.value {
                [0x2b, 6, 1, 5, 5, 7, 3, 4] => found.email_protection = true,
                [0x55, 0x1d, 37, 0] => found.any = true,
                [0x2b, 6, 1, 5, 5, 7, 3, 9] => found.ocsp_signing = true,
                _ => {}
            }
        }
        self.extended_usage = Some(found);
        Ok(())
    }
}

fn span(reader: &mut Reader<'_>, why: &'static str) -> Result<Span, Asn1Error> {
    reader.expect(tag::SEQUENCE, why)?.value_span()
}

/// One entry of a GeneralNames, as far as mail needs it (RFC 5280 4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GeneralName<'a> {
    Rfc822(&'a [u8]),
    SmtpUtf8(&'a str),
    Dns(&'a [u8]),
    /// A Name, DER.
    Directory(&'a [u8]),
    Uri(&'a [u8]),
    /// Address, or address and mask in a constraint.
    Ip(&'a [u8]),
    /// Another form, by its tag.
    Other(u8),
}

impl<'a> GeneralName<'a> {
    /// The next entry.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Asn1Error> {
        let tlv = reader.any()?;
        Ok(match tlv.tag {
            0xa0 => smtp_utf8(tlv.reader())?.map_or(Self::Other(0xa0), Self::SmtpUtf8),
            0x81 => Self::Rfc822(tlv.value),
            0x82 => Self::Dns(tlv.value),
            0xa4 => {
                let mut inner = tlv.reader();
                let name = inner.expect(tag::SEQUENCE, "directoryName is a Name")?;
                inner.done()?;
                Self::Directory(name.full)
            }
            0x86 => Self::Uri(tlv.value),
            0x87 => Self::Ip(tlv.value),
            other if other & 0xc0 == 0x80 => Self::Other(other),
            _ => return Err(tlv.error("not a GeneralName")),
        })
    }
}

/// SmtpUTF8Mailbox (RFC 9598 section 3).
fn smtp_utf8(mut fields: Reader<'_>) -> Result<Option<&str>, Asn1Error> {
    const SMTP_UTF8_MAILBOX: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 8, 9];
    if fields.expect(tag::OID, "otherName has a type")?.value != SMTP_UTF8_MAILBOX {
        return Ok(None);
    }
    let mut value = fields.expect(tag::constructed(0), "otherName has a value")?.reader();
    let text = value.expect(tag::UTF8_STRING, "SmtpUTF8Mailbox is a UTF8String")?;
    std::str::from_utf8(text.value).map(Some).map_err(|_| text.error("SmtpUTF8Mailbox is not UTF-8"))
}
