use super::*;
use crate::cms::algorithm::Legacy;
use crate::cms::enveloped::{EnvelopedData, fuzz_enveloped_data};
use crate::cms::signed::{SignedData, fuzz_signed_data};

fn only(input: &[u8]) -> Result<Element<'_>, CmsError> {
    let mut reader = Reader::ber(input);
    let element = reader.element()?;
    reader.end("test")?;
    Ok(element)
}

#[test]
fn lengths_are_read_in_every_form() {
    let long = [&[0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
    assert_eq!(only(&long).unwrap().content, [7; 256]);
    assert_eq!(only(&[0x04, 0x81, 0x01, 9]).unwrap().content, [9]);
    assert_eq!(only(&[0x04, 0x84, 0, 0, 0, 1, 9]).unwrap().content, [9]);
    assert_eq!(only(&[0x30, 0x80, 0x04, 0x01, 9, 0, 0]).unwrap().content, [0x04, 0x01, 9]);
    assert_eq!(only(&[0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0]).unwrap().content, [0x30, 0x80, 0, 0]);
    for not_der in [&[0x04, 0x81, 0x01, 9][..], &[0x30, 0x80, 0, 0], &[0x04, 0x82, 0, 1, 9]] {
        assert!(Reader::der(not_der).element().is_err(), "{not_der:02x?}");
    }
}

#[test]
fn what_is_no_ber_is_refused() {
    for bad in [
        &[][..],
        &[0x30],
        &[0x30, 0x01],
        &[0x04, 0x80, 0, 0],             // indefinite and primitive
        &[0x30, 0x80],                   // no end-of-contents
        &[0x30, 0x80, 0x04, 0x01, 9, 0], // half of one
        &[0x30, 0x80, 0, 1, 9],          // one with a length
        &[0x30, 0x80, 0, 0x81, 0],
        &[0x00, 0x00],
        &[0x30, 0xff, 0x00],
        &[0x1f, 0x80, 0x01, 0x00],
        &[0x1f, 0x05, 0x00],
        &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x00],
        &[0x1f],
    ] {
        assert!(only(bad).is_err(), "{bad:02x?}");
    }
}

#[test]
fn high_tag_numbers_are_read_and_written_again() {
    let element = only(&[0xbf, 0x81, 0x23, 0x80, 0x04, 0, 0, 0]).unwrap();
    assert_eq!((element.number, element.content), (0xa3, &[0x04, 0][..]));
    assert_eq!(to_der(&[0xbf, 0x81, 0x23, 0x80, 0x04, 0, 0, 0]).unwrap().as_ref(), [0xbf, 0x81, 0x23, 0x02, 0x04, 0]);
    assert_eq!(to_der(&[0xbf, 0x1f, 0x80, 0, 0]).unwrap().as_ref(), [0xbf, 0x1f, 0]);
}

#[test]
fn strings_in_pieces_are_joined_and_whole_ones_are_not_copied() {
    let input = Bytes::from_static(&[
        0x24, 0x80, 0x04, 2, 1, 2, 0x24, 0x04, 0x04, 0, 0x04, 0, 0x24, 0x80, 0x04, 1, 3, 0, 0, 0, 0,
    ]);
    assert_eq!(only(&input).unwrap().octet_bytes(&input, "test").unwrap(), [1, 2, 3][..]);
    let one = Bytes::from_static(&[0x24, 0x80, 0x04, 2, 1, 2, 0, 0]);
    let octets = only(&one).unwrap().octet_bytes(&one, "test").unwrap();
    assert_eq!(octets.as_ptr(), one[4..].as_ptr());
    assert!(only(&[0x24, 0x03, 0x02, 0x01, 5]).unwrap().octets("test").is_err());
    assert_eq!(
        to_der(&[0x30, 0x80, 0x24, 0x80, 0x04, 1, 1, 0x04, 1, 2, 0, 0, 0, 0]).unwrap().as_ref(),
        [0x30, 4, 0x04, 2, 1, 2]
    );
}

#[test]
fn der_is_borrowed() {
    let der = [0x30, 0x05, 0x31, 0x03, 0x02, 0x01, 0x05];
    assert!(matches!(to_der(&der), Ok(Cow::Borrowed(_))));
}

#[test]
fn integers_are_small_positive_and_shortest() {
    let read = |content: &[u8]| only(&write::element(tag::INTEGER, &[content])).unwrap().small_integer("test");
    for (content, expected) in
        [(&[0][..], 0), (&[0x7f], 127), (&[0, 0x80], 128), (&[0, 0xff, 0xff, 0xff, 0xff], u32::MAX)]
    {
        assert_eq!(read(content), Ok(expected));
        assert_eq!(write::integer(expected), write::element(tag::INTEGER, &[content]));
    }
    for bad in [&[][..], &[0x80], &[0, 1], &[1, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0]] {
        assert!(read(bad).is_err(), "{bad:02x?}");
    }
}

/// Every length that says more than there is fails at once, before anything is allocated for it.
#[test]
fn a13_lengths_beyond_what_remains_fail() {
    for bomb in [
        &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff][..],
        &[0x04, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x04, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x04, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x04, 0xfe, 0xff, 0xff],
        &[0x30, 0x80, 0x04, 0x84, 0xff, 0xff, 0xff, 0xff, 0, 0],
        &[0x04, 0x02, 0x00],
    ] {
        assert!(only(bomb).is_err(), "{bomb:02x?}");
        assert!(to_der(bomb).is_err());
        fuzz_ber(bomb);
    }
}

/// A million levels, open or closed, of indefinite and of definite length: refused by the limit, without recursion.
#[test]
fn a13_a_million_levels_are_refused() {
    const LEVELS: usize = 1_000_000;
    let open = [0x30, 0x80].repeat(LEVELS);
    let closed = [open.clone(), vec![0; 2 * LEVELS]].concat();
    let strings = [[0x24, 0x80].repeat(LEVELS), vec![0; 2 * LEVELS]].concat();
    let mut reversed = Vec::new();
    for _ in 0..LEVELS {
        let mut header = Vec::new();
        write::header(tag::SEQUENCE, reversed.len(), &mut header);
        reversed.extend(header.into_iter().rev());
    }
    let definite: Vec<u8> = reversed.into_iter().rev().collect();
    let signed = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    let enveloped = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
    for bomb in [open, closed, strings, definite] {
        assert!(to_der(&bomb).is_err());
        fuzz_ber(&bomb);
        for oid in [signed, enveloped] {
            let whole = [&[0x30, 0x80][..], &oid, &[0xa0, 0x80], &bomb].concat();
            fuzz_signed_data(&whole);
            fuzz_enveloped_data(&whole);
            let whole = Bytes::from(write::sequence(&[&oid, &write::element(0xa0, &[&bomb])]));
            assert!(SignedData::parse(&whole).is_err());
            assert!(EnvelopedData::parse(&whole, Legacy::default()).is_err());
        }
    }
}

/// Very many small elements: counted, not followed for ever.
#[test]
fn a13_too_many_elements_are_refused() {
    let many = [&[0x30, 0x80][..], &[0x05, 0].repeat(MAX_ELEMENTS + 1), &[0, 0]].concat();
    assert_eq!(only(&many).unwrap_err(), CmsError::Limit("too many ASN.1 elements"));
    let big = [&[0x30, 0x80][..], &[0x05, 0].repeat(MAX_NORMALISED / 2), &[0, 0]].concat();
    assert!(matches!(to_der(&big), Err(CmsError::Limit(_))));
}

#[test]
fn fuzz_body_holds_on_seeds() {
    let seed =
        [0x30, 0x80, 0x24, 0x80, 0x04, 1, 1, 0x04, 1, 2, 0, 0, 0x31, 0x03, 0x02, 0x01, 0x05, 0xbf, 0x81, 0x23, 0, 0, 0];
    fuzz_ber(&seed);
    for position in 0..seed.len() {
        for octet in 0..=255 {
            let mut changed = seed;
            changed[position] = octet;
            fuzz_ber(&changed);
        }
    }
}

proptest::proptest! {
    #[test]
    fn fuzz_body_holds_on_any_octets(data: Vec<u8>) {
        fuzz_ber(&data);
    }
}
