use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::pki::authority::{NewKey, Recipe, issue};

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn octets(text: &str) -> Vec<u8> {
    write::octet_string(text.as_bytes())
}

/// What a server sends for an entry.
fn entry_message(attributes: &[(&str, &[&[u8]])]) -> Bytes {
    let list: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(name, values)| {
            let values: Vec<Vec<u8>> = values.iter().map(|value| write::octet_string(value)).collect();
            let set = write::element(tag::SET, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            write::sequence(&[&octets(name), &set])
        })
        .collect();
    let list = write::sequence(&list.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let entry = write::element(ENTRY, &[&octets("cn=x"), &list]);
    message(2, &entry).into()
}

fn entry_of(attributes: &[(&str, &[&[u8]])]) -> Entry {
    match read(&entry_message(attributes)).unwrap() {
        (2, Response::Entry(entry)) => entry,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bind_is_what_rfc_4511_says() {
    let expected = [&[0x30, 0x11, 0x02, 1, 1, 0x60, 0x0c, 0x02, 1, 3, 0x04, 4][..], b"cn=a", &[0x80, 1], b"p"].concat();
    assert_eq!(bind(1, "cn=a", b"p"), expected);
    assert_eq!(length(&expected).unwrap(), Some(expected.len()));
    assert_eq!(unbind(3), [0x30, 5, 0x02, 1, 3, 0x42, 0]);
}

#[test]
fn an_address_is_a_value_and_never_a_filter() {
    let evil = mailbox("\"*)(objectClass=*\"@a.example");
    let filter = Filter::parse("(mail={address})").unwrap();
    let expected = write::element(0xa3, &[&octets("mail"), &octets("*)(objectClass=*@a.example")]);
    assert_eq!(filter.encode(&evil), expected);
}

#[test]
fn nothing_in_a_value_ends_it_within_a_name() {
    for (value, expected) in [
        ("anna", "anna"),
        ("a,ou=admins", r"a\,ou\=admins"),
        (" a b ", r"\ a b\ "),
        ("#1", r"\#1"),
        (" ", r"\ "),
        (r#"a+b"c\<>;"#, r#"a\+b\"c\\\<\>\;"#),
        ("a\0", r"a\00"),
        ("\u{fc}", "\u{fc}"),
    ] {
        assert_eq!(escaped(value), expected, "{value:?}");
    }
}

#[test]
fn all_addresses_of_an_entry_are_read_once_and_the_primary_ones_first() {
    let entry = entry_of(&[
        ("proxyAddresses", &[b"smtp:second@a.example", b"SMTP:Anna@a.example", b"sip:anna@a.example"]),
        ("mail", &[b"anna@a.example"]),
        ("mailAlternateAddress", &[b"third@a.example", b"nonsense"]),
    ]);
    let addresses: Vec<String> = entry.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["anna@a.example", "second@a.example", "third@a.example"]);
    assert_eq!(entry.dn, "cn=x");
}

#[test]
fn filters_are_read_as_rfc_4515_writes_them() {
    let anna = mailbox("Anna@a.example");
    let coded = |text: &str| Filter::parse(text).unwrap_or_else(|why| panic!("{text}: {why}")).encode(&anna);
    let equal = |name: &str, value: &str| write::element(0xa3, &[&octets(name), &octets(value)]);
    assert_eq!(
        coded("(&(objectClass=person)(|(mail={address})(uid={local}))(!(st=off)))"),
        write::element(
            0xa0,
            &[
                &equal("objectClass", "person"),
                &write::element(0xa1, &[&equal("mail", "Anna@a.example"), &equal("uid", "Anna")]),
                &write::element(0xa2, &[&equal("st", "off")]),
            ]
        )
    );
    assert_eq!(
        coded("(&(cn=*)(proxyAddresses=smtp:{local}@*x*{domain}))"),
        write::element(
            0xa0,
            &[
                &write::element(0x87, &[b"cn"]),
                &write::element(
                    0xa4,
                    &[
                        &octets("proxyAddresses"),
                        &write::sequence(&[
                            &write::element(0x80, &[b"smtp:Anna@"]),
                            &write::element(0x81, &[b"x"]),
                            &write::element(0x82, &[b"a.example"]),
                        ]),
                    ]
                ),
            ]
        )
    );
    assert_eq!(coded(r"(mail=\28{address}\5c)"), equal("mail", "(Anna@a.example\\"));
    for wrong in [
        "",
        "mail={address}",
        "(mail={address}",
        "(mail={address}))",
        "(mail=x)",
        "(!(mail={address}))",
        "(mail={adress})",
        r"(mail=\zz{address})",
        "(=x{address})",
        "(&)",
        "((mail={address}))",
        "(m ail={address})",
    ] {
        assert!(Filter::parse(wrong).is_err(), "{wrong}");
    }
    let deep = "(!".repeat(20) + "(mail={address})" + &")".repeat(20);
    assert!(Filter::parse(&deep).is_err());
}

#[test]
fn certificates_come_bare_and_in_pkcs_7() {
    let now = Timestamp::now();
    let ca = issue(&Recipe::authority("CA", now, NewKey::P256), None);
    let one = issue(&Recipe::mailbox("a@b.example", now, NewKey::P256), Some(&ca)).certificate;
    // A SignedData that carries certificates and nothing else (RFC 8551 section 3.8).
    let data = write::element(
        tag::SEQUENCE,
        &[
            &write::integer(1),
            &write::element(tag::SET, &[]),
            &write::sequence(&[&[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1]]),
            &write::element(0xa0, &[one.der(), ca.certificate.der()]),
            &write::element(tag::SET, &[]),
        ],
    );
    let signed =
        write::sequence(&[&[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2], &write::element(0xa0, &[&data])]);
    let entry = entry_of(&[
        ("userCertificate;binary", &[one.der(), b"nonsense"]),
        ("USERSMIMECERTIFICATE", &[&signed, one.der()]),
        ("mail", &[b"a@b.example", b"\xff"]),
        ("proxyAddresses", &[b"SMTP:a@b.example", b"smtp:Other@b.example", b"X400:c=de"]),
        ("mailAlternateAddress", &[b"third@b.example"]),
    ]);
    let held = entry.certificates();
    assert_eq!(held.certificates, [one, ca.certificate]);
    assert_eq!(held.unreadable, 1);
    assert!(entry.mailboxes().iter().all(|one| *one == mailbox("a@b.example")) && entry.mailboxes().len() == 2);
    let has = |address| entry.has_alias(&mailbox(address).key());
    assert!(has("other@b.example") && has("third@b.example") && has("a@b.example"));
    assert!(!has("x@b.example") && !has("c=de@b.example"));
}

#[test]
fn what_a_server_sends_is_bounded() {
    let many: Vec<(String, Vec<&[u8]>)> = (0..65).map(|at| (format!("a{at}"), vec![&b"x"[..]])).collect();
    let many: Vec<(&str, &[&[u8]])> = many.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
    assert!(read(&entry_message(&many)).is_err());
    assert!(read(&entry_message(&[("a", &vec![&b"x"[..]; 257])])).is_err());
    // Nesting without end, and lengths beyond what is there.
    let deep: Vec<u8> = [0x30, 0x80].repeat(100_000);
    assert!(read(&deep.into()).is_err());
    assert_eq!(length(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).unwrap(), Some(0xffff_ffff + 6));
    for wrong in [&[0x31][..], &[0x30, 0x80], &[0x30, 0x85]] {
        assert!(length(wrong).is_err());
    }
    for cut in [&[][..], &[0x30], &[0x30, 0x82, 1]] {
        assert_eq!(length(cut).unwrap(), None);
    }
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200), flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
        fuzz_ldap_answer(&octets);
        let mut entry = entry_message(&[("mail", &[b"a@b.example"]), ("userCertificate;binary", &[b"0\x03\x02\x01\x01"])]).to_vec();
        for (at, octet) in flips {
            let length = entry.len();
            entry[usize::from(at) % length] = octet;
        }
        fuzz_ldap_answer(&entry);
    }

    #[test]
    fn any_text_is_a_filter_or_refused(text in "[()&|!=*{}a-z\\\\0-9]{0,40}", inner in "[a-z=*(){}]{0,20}") {
        fuzz_ldap_filter(text.as_bytes());
        fuzz_ldap_filter(format!("(&(mail={{address}})({inner}))").as_bytes());
    }
}
