use super::*;
use proptest::prelude::*;

fn header(text: &str) -> Header {
    Header::parse(&Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap().0
}

#[test]
fn fields_keep_their_octets_and_unfold() {
    let text = "Subject: one\r\n two\r\n\tthree \r\nX-A:b\nFrom : c@d\r\nbroken line\r\n\r\nbody";
    let octets = Bytes::copy_from_slice(text.as_bytes());
    let (header, body) = Header::parse(&octets, &MimeLimits::default()).unwrap();
    assert_eq!(&octets[body..], b"body");
    assert_eq!(header.raw.len() + 2, body);
    let names: Vec<&str> = header.fields.iter().map(Field::name).collect();
    assert_eq!(names, ["Subject", "X-A", "From"]);
    assert_eq!(header.fields[0].value(), "one two\tthree");
    assert_eq!(&header.fields[0].raw[..], b"Subject: one\r\n two\r\n\tthree \r\n");
    assert_eq!(header.fields[2].value(), "c@d");
    assert!(header.bare_lf);
    assert_eq!(header.defects.len(), 2, "{:?}", header.defects);
}

#[test]
fn a07_a31_one_plain_author_is_read() {
    for (value, expected) in [
        ("a@x.org", "a@x.org"),
        ("<a@x.org>", "a@x.org"),
        ("Ann Q. Smith <a@x.org>", "a@x.org"),
        ("\"Smith, Ann\" <a@x.org>", "a@x.org"),
        ("\"Smith \\\"A\\\" Ann\"\r\n <a@x.org> (at work)", "a@x.org"),
        ("a@x.org (Ann)", "a@x.org"),
        ("(Ann) a@x.org", "a@x.org"),
        ("=?utf-8?Q?Bj=C3=B6rn=2C_X?= <a@x.org>", "a@x.org"),
        ("Bj\u{f6}rn <a@x.org>", "a@x.org"),
        ("\"a@x.org\" <a@x.org>", "a@x.org"),
        ("\"'A@x.org'\" <a@x.org>", "a@x.org"),
        ("\"a.b\"@x.org", "a.b@x.org"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
    ] {
        let author = header(&format!("To: b@y\r\nFrom: {value}\r\n\r\n")).single_from();
        assert_eq!(author.map(|mailbox| mailbox.to_string()), Ok(expected.to_owned()), "{value:?}");
    }
}

#[test]
fn a07_a31_what_two_readers_see_differently_is_no_author() {
    for value in [
        "a@x <b@y>",
        "a@x.org, b@y.org",
        "a@x.org,",
        "a@x.org; b@y.org",
        "Team: a@x.org, b@y.org;",
        "Team: a@x.org;",
        "undisclosed:;",
        "<@r.org:a@x.org>",
        "<a@x.org> <b@y.org>",
        "<a@x.org> b@y.org",
        "<a@x.org> trailing",
        "<a@x.org",
        "a@x.org>",
        "\"open <a@x.org>",
        "Ann (open <a@x.org>",
        "Ann (<b@y.org>) <a@x.org>",
        "Ann (b@y.org) <a@x.org>",
        "a(b)@x.org",
        "a@(b)x.org",
        "< a@x.org >",
        "a @x.org",
        "a@ x.org",
        "\"b@y.org\" <a@x.org>",
        "\"<b@y.org>\" <a@x.org>",
        "\"b@y.org <b@y.org>\" <a@x.org>",
        "\"b@y.org\"@x.org",
        "\"a b\"@x.org",
        "=?utf-8?Q?b=40y.org?= <a@x.org>",
        "=?utf-8?B?YkB5Lm9yZw==?= <a@x.org>",
        "=?utf-8?Q?b?=@x.org",
        "<=?utf-8?Q?b=40y.org=00?=@x.org>",
        "=?utf-8?Q?Ann=00?= <a@x.org>",
        "=?utf-8?Q?Ann=0D=0AFrom:_b@y?= <a@x.org>",
        "b\u{ff20}y.org <a@x.org>",
        "Ann\\ <a@x.org>",
        "Ann [x] <a@x.org>",
        "a@x.org b@y.org",
        "a@x.org@y.org",
        "\"a\"b@x.org",
        "Ann \"x\"@y.org <a@x.org>",
        "",
        "Ann",
        "<>",
        "@x.org",
        "a@",
        "((a@x.org)) b@y.org",
        "\"Ann\0\" <a@x.org>",
        "Ann\u{1b}[2K <a@x.org>",
        "a@x.org\r b@y.org",
        "\u{202e}a@x..org",
        "<a@x.org>\u{0}",
    ] {
        let text = format!("From: {value}\r\n\r\n");
        assert!(header(&text).single_from().is_err(), "{value:?} gave {:?}", header(&text).single_from());
    }
    for text in [
        "From: a@x.org\r\nFrom: b@y.org\r\n\r\n",
        "From: a@x.org\r\nfrom: a@x.org\r\n\r\n",
        "From : a@x.org\r\n\r\n",
        "From: a@x.org\r\nFrom : b@y.org\r\n\r\n",
        "Subject: x\r\n\r\nFrom: a@x.org",
        "Subject\r\nFrom: a@x.org\r\n\r\n",
        "From:\r\n \r\n a@x.org\r\n\r\n",
        " From: b@y.org\r\nFrom: a@x.org\r\n\r\n",
        "X: y\rFrom: b@y.org\r\nFrom: a@x.org\r\n\r\n",
        "From\0: b@y.org\r\nFrom: a@x.org\r\n\r\n",
        "Fr\u{43e}m: b@y.org\r\nFrom: a@x.org\r\n\r\n",
    ] {
        assert!(header(text).single_from().is_err(), "{text:?}");
    }
    let latin1 =
        Header::parse(&Bytes::from_static(b"From: Bj\xf6rn <a@x.org>\r\n\r\n"), &MimeLimits::default()).unwrap().0;
    assert!(latin1.single_from().is_err());
}

#[test]
fn recipients_are_read_where_they_can_be() {
    let header = header(
        "To: \"a, b\" <a@x.org>, c@x.org (c, d), Team: e@x.org, <f@x.org>;, broken, <@r:g@x.org>\r\nCc: h@x.org\r\n\ti@x.org,j@x.org\r\n\r\n",
    );
    let found: Vec<String> = header.to_and_cc().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["a@x.org", "c@x.org", "e@x.org", "f@x.org", "j@x.org"]);
}

#[test]
fn content_types_are_read_as_rfc_2045_and_2231_have_it() {
    let read = |value: &str| ContentType::parse(value).unwrap();
    assert_eq!(read("Text/PLAIN").essence, "text/plain");
    assert_eq!(read("text/plain;").parameters, []);
    // RFC 2045 section 5.1.
    let expected = vec![("charset".to_owned(), "us-ascii".to_owned())];
    assert_eq!(read("text/plain; charset=us-ascii (Plain text)").parameters, expected);
    assert_eq!(read("text/plain; charset=\"us-ascii\"").parameters, expected);
    assert_eq!(read("text (x) / plain ; CharSet = us-ascii").parameters, expected);
    assert_eq!(read("multipart/mixed; boundary=----=_Part_1/2:3").parameter("boundary"), Some("----=_Part_1/2:3"));
    assert_eq!(read("multipart/mixed; boundary=\"a;b \\\"c\\\" (d)\"").parameter("Boundary"), Some("a;b \"c\" (d)"));
    // RFC 2231 sections 3 to 4.1.
    let url = read(
        "message/external-body; access-type=URL; URL*0=\"ftp://\"; URL*1=\"cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar\"",
    );
    assert_eq!(url.parameter("url"), Some("ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"));
    let title = read(
        "application/x-stuff; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*0*=us-ascii'en'This%20is%20even%20more%20; title*2=\"isn't it!\"",
    );
    assert_eq!(title.parameter("title"), Some("This is even more ***fun*** isn't it!"));
    let both = read("application/pdf; name=\"M.pdf\"; name*=iso-8859-1''M%FC.pdf");
    assert_eq!(both.parameters, [("name".to_owned(), "M\u{fc}.pdf".to_owned())]);
}

#[test]
fn a14_content_types_with_two_readings_are_ambiguous() {
    for value in [
        "multipart/mixed; boundary=a; boundary=b",
        "multipart/mixed; boundary=a; BOUNDARY=a",
        "multipart/mixed; boundary*=utf-8''a",
        "multipart/mixed; boundary*0=a; boundary*1=b",
        "multipart/mixed; boundary=a; boundary*=utf-8''b",
        "multipart/mixed; boundary=\"a",
        "multipart/mixed; boundary=a(b",
        "multipart/mixed; boundary=a(b)c",
        "multipart/mixed (open; boundary=a",
        "text/plain; name=a,b",
        "application/pkcs7-mime; smime-type=enveloped-data; smime-type=signed-data",
        "multipart/signed; boundary=a; protocol*0=x",
    ] {
        assert!(matches!(ContentType::parse(value), Err(MimeError::Ambiguous(_))), "{value:?}");
    }
    for value in [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain; a",
        "text/plain; a=",
        "text/plain; =a",
        "text/plain x",
        "text/plain; a=b c",
        "text/plain, text/html",
    ] {
        assert!(ContentType::parse(value).is_err(), "{value:?}");
    }
}

#[test]
fn encoded_words_are_joined() {
    // RFC 2047 section 8.
    for (text, expected) in [
        ("(=?ISO-8859-1?Q?a?=)", "(a)"),
        ("(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        ("(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
        ("=?ISO-8859-1?Q?a_b?=", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        (
            "=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?= =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
            "If you can read this you understand the example.",
        ),
        ("=?utf-8?B?w?= =?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "\u{fc}"),
        ("=?utf-8?X?a?= =?", "=?utf-8?X?a?= =?"),
        ("a =? b", "a =? b"),
    ] {
        assert_eq!(decode_encoded_words(text), expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn a15_the_header_writer_writes_one_whole_field(name in "[!-9;-~]{1,20}", text in "(?s).{0,300}") {
        for structured in [false, true] {
            let mut writer = HeaderWriter::new();
            let written = if structured { writer.structured(&name, &text) } else { writer.unstructured(&name, &text) }.is_ok();
            let octets = Bytes::from(writer.finish());
            prop_assert_eq!(written, !octets.is_empty());
            let forbidden = text.contains(['\r', '\n', '\0']);
            prop_assert!(!(forbidden && written));
            prop_assert!(written || structured || forbidden);
            if !written {
                continue;
            }
            let (read, end) = Header::parse(&octets, &MimeLimits::default()).unwrap();
            prop_assert_eq!(end, octets.len());
            prop_assert!(read.fields.len() == 1 && read.defects.is_empty() && !read.bare_lf && octets.is_ascii());
            prop_assert!(octets.split(|octet| *octet == b'\n').all(|line| line.len() <= 999));
            prop_assert_eq!(read.fields[0].name(), &name);
            if !structured {
                prop_assert_eq!(read.fields[0].decoded(), text.trim_matches(' '));
                prop_assert!(octets.split(|octet| *octet == b'\n').all(|line| line.len() <= 101));
            }
        }
    }

    #[test]
    fn fuzz_body_holds(text in "((From|To|Content-Type|X)[: \r\n]{1,2}[-a-z@<>()\",;=?*'%/\\\\ QB_\u{fc}]{0,20}\r?\n){0,4}", octets in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_header(text.as_bytes());
        fuzz_header(&octets);
    }
}

#[test]
fn a15_names_and_values_that_break_out_are_refused() {
    for (name, value) in
        [("X", "a\r\nBcc: b"), ("X", "a\nb"), ("X", "a\0"), ("X: y\r\nZ", "a"), ("X Y", "a"), ("", "a"), ("X:", "a")]
    {
        assert!(HeaderWriter::new().structured(name, value).is_err());
        assert!(HeaderWriter::new().unstructured(name, value).is_err());
    }
    assert_eq!(
        HeaderWriter::new().structured("X", &"a".repeat(999)).unwrap_err(),
        MimeError::Limit("a header line of more than 998 octets")
    );
}

#[test]
fn a13_fields_are_counted() {
    let limits = MimeLimits { fields: 3, ..MimeLimits::default() };
    assert!(Header::parse(&Bytes::from("A: b\r\n".repeat(3)), &limits).is_ok());
    assert!(matches!(Header::parse(&Bytes::from("A: b\r\n".repeat(4)), &limits), Err(MimeError::Limit(_))));
}
