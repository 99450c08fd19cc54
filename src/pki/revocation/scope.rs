//! Which certificates a CRL speaks for: distribution points of the certificate against the issuing distribution point of the CRL
//! (RFC 5280 sections 4.2.1.13, 5.2.5, 6.3.3).

use crate::pki::asn1::{self, Asn1Error, Reader, tag};
use crate::pki::certificate::name::CanonicalName;
use crate::pki::certificate::{Certificate, same_name};

use super::crl::Crl;

/// ReasonFlags, the standard's bit 0 lowest; bit 0 is unused.
pub(super) type Reasons = u16;

/// All of RFC 5280's reasons but the unused bit 0.
pub(super) const ALL_REASONS: Reasons = 0b1_1111_1110;

/// At most so many distribution points, and names in one.
const MAX_POINTS: usize = 64;

/// IssuingDistributionPoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scope {
    names: Option<Vec<PointName>>,
    only_users: bool,
    only_authorities: bool,
    only_attributes: bool,
    reasons: Option<Reasons>,
    indirect: bool,
}

/// A GeneralName, to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PointName {
    Directory(CanonicalName),
    Other(Vec<u8>),
}

/// A DistributionPoint of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Point {
    names: Option<Vec<PointName>>,
    reasons: Option<Reasons>,
    issuers: Vec<PointName>,
    uris: Vec<String>,
}

impl Scope {
    /// Reads the extension's content; `issuer` is the CRL's.
    pub(super) fn read(reader: &mut Reader<'_>, issuer: &[u8]) -> Result<Self, Asn1Error> {
        let mut fields = reader.sequence("issuingDistributionPoint is a SEQUENCE")?;
        let mut scope = Self::default();
        if let Some(name) = fields.optional(tag::constructed(0))? {
            scope.names = Some(point_name(name.reader(), issuer, &mut Vec::new())?);
        }
        let mut flag = |n| -> Result<bool, Asn1Error> {
            Ok(fields.optional(tag::context(n))?.map(|flag| flag.boolean()).transpose()?.unwrap_or(false))
        };
        scope.only_users = flag(1)?;
        scope.only_authorities = flag(2)?;
        scope.reasons = match fields.optional(tag::context(3))? {
            Some(reasons) => Some(reasons.named_bits()?),
            None => None,
        };
        let mut flag = |n| -> Result<bool, Asn1Error> {
            Ok(fields.optional(tag::context(n))?.map(|flag| flag.boolean()).transpose()?.unwrap_or(false))
        };
        scope.indirect = flag(4)?;
        scope.only_attributes = flag(5)?;
        fields.done()?;
        reader.done()?;
        Ok(scope)
    }
}

impl Point {
    /// The distribution points that a certificate names, in its order.
    pub(super) fn named(certificate: &Certificate) -> Result<Vec<Self>, Asn1Error> {
        match certificate.extensions().distribution_points {
            Some(place) => read_points(certificate.at(place), certificate.issuer()),
            None => Ok(Vec::new()),
        }
    }

    /// Those, then the one that RFC 5280 6.3.3 supposes where they do not settle it: what its issuer publishes without naming a point.
    pub(super) fn with_issuers(mut points: Vec<Self>, certificate: &Certificate) -> Result<Vec<Self>, Asn1Error> {
        let own = PointName::Directory(CanonicalName::from_der(certificate.issuer())?);
        points.push(Self { names: Some(vec![own]), reasons: None, issuers: Vec::new(), uris: Vec::new() });
        Ok(points)
    }

    /// Where its CRL can be fetched.
    pub(super) fn uris(&self) -> &[String] {
        &self.uris
    }

    /// RFC 5280 6.3.3 (b): whether `crl` speaks for `certificate` at this point; the reasons it speaks of (d).
    pub(super) fn covered_by(&self, crl: &Crl, certificate: &Certificate) -> Option<Reasons> {
        let scope = crl.scope();
        let from_issuer = same_name(crl.issuer(), certificate.issuer());
        if self.issuers.is_empty() {
            from_issuer.then_some(())?;
        } else {
            let issuer = PointName::Directory(CanonicalName::from_der(crl.issuer()).ok()?);
            (self.issuers.contains(&issuer) && (scope.indirect || from_issuer)).then_some(())?;
        }
        if let Some(published) = &scope.names {
            let wanted = self.names.as_ref().unwrap_or(&self.issuers);
            published.iter().any(|name| wanted.contains(name)).then_some(())?;
        }
        let other_kind = if certificate.is_ca() { scope.only_users } else { scope.only_authorities };
        let fits = !other_kind && !scope.only_attributes;
        let reasons = scope.reasons.unwrap_or(ALL_REASONS) & self.reasons.unwrap_or(ALL_REASONS);
        fits.then_some(reasons & ALL_REASONS)
    }
}

/// The URIs of freshestCRL, where deltas are.
pub(super) fn freshest_uris(certificate: &Certificate) -> Vec<String> {
    let content = certificate.extensions().freshest_points.map(|place| certificate.at(place)).unwrap_or_default();
    let points = read_points(content, certificate.issuer()).unwrap_or_default();
    points.into_iter().flat_map(|point| point.uris).collect()
}

fn read_points(content: &[u8], issuer: &[u8]) -> Result<Vec<Point>, Asn1Error> {
    let mut list = Reader::new(content);
    let mut points = Vec::new();
    while !list.is_empty() && points.len() < MAX_POINTS {
        let mut fields = list.sequence("a DistributionPoint is a SEQUENCE")?;
        let name = fields.optional(tag::constructed(0))?;
        let reasons = match fields.optional(tag::context(1))? {
            Some(reasons) => Some(reasons.named_bits()?),
            None => None,
        };
        let mut uris = Vec::new();
        let (mut issuers, mut base) = (Vec::new(), issuer);
        if let Some(names) = fields.optional(tag::constructed(2))? {
            let mut reader = names.reader();
            while let Ok(name) = reader.any() {
                if name.tag == 0xa4 {
                    base = name.value;
                }
            }
            issuers = general_names(names.reader(), &mut Vec::new())?;
        }
        fields.done()?;
        let names = match name {
            Some(name) => Some(point_name(name.reader(), base, &mut uris)?),
            None => None,
        };
        points.push(Point { names, reasons, issuers, uris });
    }
    Ok(points)
}

/// DistributionPointName; a relative one continues `issuer`.
fn point_name(mut choice: Reader<'_>, issuer: &[u8], uris: &mut Vec<String>) -> Result<Vec<PointName>, Asn1Error> {
    let found = choice.any()?;
    choice.done()?;
    match found.tag {
        0xa0 => general_names(found.reader(), uris),
        0xa1 => {
            let rdns = Reader::new(issuer).expect(tag::SEQUENCE, "a Name is a SEQUENCE")?.value;
            let name = asn1::sequence(&[rdns, &asn1::write(tag::SET, &[found.value])]);
            Ok(vec![PointName::Directory(CanonicalName::from_der(&name)?)])
        }
        _ => Err(found.error("not a DistributionPointName")),
    }
}

fn general_names(mut list: Reader<'_>, uris: &mut Vec<String>) -> Result<Vec<PointName>, Asn1Error> {
    let mut names = Vec::new();
    while !list.is_empty() && names.len() < MAX_POINTS {
        let name = list.any()?;
        names.push(match name.tag {
            0xa4 => PointName::Directory(CanonicalName::from_der(name.value)?),
            _ => PointName::Other(name.full.to_vec()),
        });
        if name.tag == 0x86 {
            uris.extend(std::str::from_utf8(name.value).ok().map(str::to_owned));
        }
    }
    Ok(names)
}
