use super::*;
use crate::cms::ber::write;
use miniz_oxide::deflate::compress_to_vec_zlib;

const LIMIT: usize = 50 << 20;

/// A CompressedData around these octets.
pub(crate) fn around(zlib: &[u8]) -> Bytes {
    object("1.2.840.113549.1.9.16.3.8", 0, &write::oid(&ID_DATA), zlib)
}

fn object(algorithm: &str, version: u32, content_type: &[u8], zlib: &[u8]) -> Bytes {
    let explicit = write::element(tag::context(0), &[&write::octet_string(zlib)]);
    let data = write::sequence(&[
        &write::integer(version),
        &write::sequence(&[&write::oid(&ObjectIdentifier::new_unwrap(algorithm))]),
        &write::sequence(&[content_type, &explicit]),
    ]);
    write::sequence(&[&write::oid(&ID_COMPRESSED_DATA), &write::element(tag::context(0), &[&data])]).into()
}

fn open(object: &Bytes) -> Result<Bytes, CmsError> {
    CompressedData::parse(object)?.open(LIMIT)
}

/// Octets that hardly shrink, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_was_compressed_comes_out() {
    for length in [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
        let content = noise(length);
        for level in [0, 6, 10] {
            assert_eq!(open(&around(&compress_to_vec_zlib(&content, level))).unwrap(), content, "{length} {level}");
        }
    }
}

#[test]
fn what_is_no_compressed_data_is_refused() {
    let zlib = compress_to_vec_zlib(&noise(1000), 6);
    assert!(open(&around(&zlib)).is_ok());
    for cut in [0, 1, 2, zlib.len() / 2, zlib.len() - 4, zlib.len() - 1] {
        assert!(open(&around(&zlib[..cut])).is_err(), "cut at {cut}");
    }
    assert!(open(&around(&[&zlib[..], b"x"].concat())).is_err(), "octets after the stream");
    for position in 0..zlib.len() {
        let mut damaged = zlib.clone();
        damaged[position] ^= 1;
        // Bits that pad the last octet mean nothing; all others are caught by the checksum.
        assert!(
            open(&around(&damaged)).is_ok_and(|content| content == noise(1000)) || open(&around(&damaged)).is_err()
        );
    }
    let id_data = write::oid(&ID_DATA);
    let zlib_oid = "1.2.840.113549.1.9.16.3.8";
    assert!(matches!(open(&object("1.2.3.4", 0, &id_data, &zlib)), Err(CmsError::Algorithm(_))));
    assert!(matches!(open(&object(zlib_oid, 1, &id_data, &zlib)), Err(CmsError::Rule { .. })));
    let signed = write::oid(&ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2"));
    assert!(matches!(open(&object(zlib_oid, 0, &signed, &zlib)), Err(CmsError::Rule { .. })));
}

#[test]
fn a12_more_than_twenty_to_one_or_than_a_message_is_refused() {
    // 10 MB of zeroes in 10 kB.
    let bomb = compress_to_vec_zlib(&vec![0u8; 10 << 20], 10);
    assert!((9_000..11_000).contains(&bomb.len()), "{}", bomb.len());
    assert!(matches!(open(&around(&bomb)), Err(CmsError::Limit(why)) if why.contains("20 octets")));
    let fits = noise(2 * CHUNK);
    let object = around(&compress_to_vec_zlib(&fits, 6));
    let data = CompressedData::parse(&object).unwrap();
    assert_eq!(data.open(fits.len()).unwrap(), fits);
    assert!(matches!(data.open(fits.len() - 1), Err(CmsError::Limit(_))));
    // 16:1 and 31:1.
    let mixed = |zeroes: usize| compress_to_vec_zlib(&[noise(10_000), vec![0; zeroes]].concat(), 6);
    assert!(open(&around(&mixed(150_000))).is_ok());
    assert!(open(&around(&mixed(300_000))).is_err());
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let good = around(&compress_to_vec_zlib(&noise(300), 6));
    for position in 0..good.len() {
        let mut bad = good.to_vec();
        bad[position] = bad[position].wrapping_add(0x81);
        fuzz_compressed_data(&bad);
        fuzz_compressed_data(&good[..position]);
    }
    fuzz_compressed_data(&around(&compress_to_vec_zlib(&vec![0; 1 << 22], 10)));
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_compressed_data(&data);
        fuzz_compressed_data(&around(&data));
    }
}
