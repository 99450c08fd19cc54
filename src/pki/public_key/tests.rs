use super::*;
use crate::cms::algorithm::key_transport_der;
use crate::cms::ber::write;
use crate::cms::signed::tests::identity;
use crate::pki::authority::NewKey;

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, CmsError> {
    let number = |octets: &[u8]| write::element(tag::INTEGER, &[octets]);
    let key = write::sequence(&[&number(modulus), &number(exponent)]);
    PublicKey::from_spki(
        write::sequence(&[&key_transport_der(KeyTransport::RsaPkcs1), &write::bit_string(&key)]).into(),
    )
}

/// A modulus of this many bits.
fn modulus(bits: usize) -> Vec<u8> {
    let mut octets = vec![0xff; bits.div_ceil(8)];
    octets[0] = 0xff >> (octets.len() * 8 - bits);
    if octets[0] & 0x80 != 0 {
        octets.insert(0, 0);
    }
    octets
}

#[test]
fn a11_rsa_keys_out_of_bounds_are_refused() {
    const F4: &[u8] = &[1, 0, 1];
    for bits in [1024, 1025, 2047, 2048, 3072, 4096, 8192] {
        let key = rsa(&modulus(bits), F4).unwrap();
        assert_eq!(key.kind(), KeyKind::Rsa { bits });
        assert_eq!(key.is_weak(), bits < 2048);
        if key.is_weak() {
            assert!(matches!(key.transport(KeyTransport::RsaPkcs1, &[1; 16]), Err(CmsError::Algorithm(_))));
        }
    }
    for bits in [8, 512, 1023, 8193, 16_384, 65_536] {
        assert!(matches!(rsa(&modulus(bits), F4), Err(CmsError::Algorithm(_))), "{bits}");
    }
    for exponent in [&[3][..], F4, &[0, 0xff, 0xff, 0xff, 0xff]] {
        assert!(rsa(&modulus(2048), exponent).is_ok());
    }
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1], &[0, 3], &[0xff], &[0x7f; 256]] {
        assert!(rsa(&modulus(2048), exponent).is_err(), "{exponent:02x?}");
    }
    let mut even = modulus(2048);
    *even.last_mut().unwrap() = 0xfe;
    assert!(rsa(&even, F4).is_err());
    assert!(rsa(&[0xff; 256], F4).is_err());
    assert!(rsa(&[&[0, 0][..], &[0xff; 256]].concat(), F4).is_err());
}

#[test]
fn points_must_lie_on_their_named_curve() {
    let good = identity(NewKey::P256).certificate.public_key().clone();
    let name = |curve: &ObjectIdentifier| write::sequence(&[&write::oid(&EC_PUBLIC_KEY), &write::oid(curve)]);
    let read = |curve: &ObjectIdentifier, bits: &[u8]| {
        PublicKey::from_spki(write::sequence(&[&name(curve), &write::bit_string(bits)]).into())
    };
    assert_eq!(read(&SECP256R1, good.key_bits()).unwrap(), good);
    let mut compressed = good.key_bits()[..33].to_vec();
    compressed[0] = 2 | (good.key_bits()[64] & 1);
    assert_eq!(read(&SECP256R1, &compressed).unwrap().kind(), KeyKind::P256);
    let mut off = good.key_bits().to_vec();
    off[64] ^= 1;
    let mut hybrid = good.key_bits().to_vec();
    hybrid[0] = 6 | (hybrid[64] & 1);
    for bad in [&off[..], &hybrid, &[0], &[], &good.key_bits()[..64]] {
        assert!(read(&SECP256R1, bad).is_err());
    }
    assert!(read(&SECP384R1, good.key_bits()).is_err());
    // secp256k1, brainpoolP256r1; explicit parameters.
    for curve in ["1.3.132.0.10", "1.3.36.3.3.2.8.1.1.7"] {
        assert!(matches!(read(&ObjectIdentifier::new_unwrap(curve), good.key_bits()), Err(CmsError::Algorithm(_))));
    }
    let explicit = write::sequence(&[&write::oid(&EC_PUBLIC_KEY), &write::sequence(&[])]);
    assert!(PublicKey::from_spki(write::sequence(&[&explicit, &write::bit_string(good.key_bits())]).into()).is_err());
}

/// RFC 4055 section 1.2: a key named id-RSASSA-PSS makes PSS signatures and nothing else.
#[test]
fn a_pss_key_is_for_pss_alone() {
    let issued = identity(NewKey::Rsa2048);
    let algorithm = write::sequence(&[&write::oid(&RSASSA_PSS)]);
    let bits = issued.certificate.public_key().key_bits().to_vec();
    let key = PublicKey::from_spki(write::sequence(&[&algorithm, &write::bit_string(&bits)]).into()).unwrap();
    assert!(matches!(key.transport(KeyTransport::RsaPkcs1, &[1; 16]), Err(CmsError::Algorithm(_))));
    assert!(matches!(
        key.verify(SignatureScheme::RsaPkcs1(Digest::Sha256), b"", &[0; 256]),
        Err(CmsError::Algorithm(_))
    ));
    assert!(matches!(
        key.verify(SignatureScheme::RsaPss(Digest::Sha256, 32), b"", &[0; 256]),
        Err(CmsError::Unauthentic(_))
    ));
}

/// FIPS 203 section 7.2, RFC 9881 and RFC 9935 section 4: the set's length, no parameters, every coefficient under the modulus.
#[test]
fn post_quantum_keys_out_of_bounds_are_refused() {
    let read = |oid: &ObjectIdentifier, parameters: &[u8], bits: &[u8]| {
        let algorithm = write::sequence(&[&write::oid(oid), parameters]);
        PublicKey::from_spki(write::sequence(&[&algorithm, &write::bit_string(bits)]).into())
    };
    for set in MlKem::ALL {
        let pkcs8 = crate::pki::authority::cached_key(NewKey::MlKem(set), "bounds");
        let key = crate::keys::SoftwareKey::from_pkcs8(&pkcs8).unwrap();
        let good = key.public_key().key_bits().to_vec();
        assert_eq!(read(&set.oid(), &[], &good).unwrap().kind(), KeyKind::MlKem(set));
        assert!(read(&set.oid(), &[5, 0], &good).is_err());
        assert!(read(&set.oid(), &[], &good[1..]).is_err());
        assert!(read(&set.oid(), &[], &[good.as_slice(), &[0]].concat()).is_err());
        // 3329 and 4095 as the first, the second and the last coefficient.
        let last = 384 * set.rank() - 3;
        for (at, three) in [(0, [0x01, 0x0d, 0]), (0, [0, 0x10, 0xd0]), (last, [0, 0xf0, 0xff])] {
            let mut bad = good.clone();
            bad[at..at + 3].copy_from_slice(&three);
            assert!(matches!(read(&set.oid(), &[], &bad), Err(CmsError::Algorithm(_))), "{at} {three:02x?}");
        }
        // 3328 is the largest.
        let mut edge = good.clone();
        edge[..3].copy_from_slice(&[0x00, 0x0d, 0xd0]);
        assert!(read(&set.oid(), &[], &edge).is_ok());
    }
    for set in MlDsa::ALL {
        assert!(read(&set.oid(), &[], &vec![1; set.public_key_len()]).is_ok());
        assert!(read(&set.oid(), &[], &vec![1; set.public_key_len() - 1]).is_err());
    }
    for set in SlhDsa::ALL {
        assert!(read(&set.oid(), &[5, 0], &vec![1; set.public_key_len()]).is_err());
        assert!(read(&set.oid(), &[], &vec![1; set.public_key_len() + 16]).is_err());
    }
}

#[test]
fn fuzz_body_holds_on_seeds() {
    for kind in [NewKey::P256, NewKey::Rsa2048] {
        let spki = identity(kind).certificate.public_key().spki().clone();
        fuzz_public_key(&spki);
        for position in 0..spki.len() {
            let mut changed = spki.to_vec();
            changed[position] ^= 0x04;
            fuzz_public_key(&changed);
            fuzz_public_key(&spki[..position]);
        }
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_public_key(&data);
    }
}
