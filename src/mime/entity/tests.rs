use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

fn entity(text: &str) -> Entity {
    Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap()
}

fn parts(text: &str) -> Result<Vec<Entity>, MimeError> {
    entity(text).parts(&MimeLimits::default())
}

#[test]
fn the_line_end_before_a_delimiter_belongs_to_it() {
    for end in ["\r\n", "\n"] {
        let text =
            "Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nA: 1\n\none\n\n--b  \n\ntwo\n--b--\nepilogue";
        let parts = parts(&text.replace('\n', end)).unwrap();
        let bodies: Vec<&[u8]> = parts.iter().map(|part| &part.body[..]).collect();
        assert_eq!(bodies, [format!("one{end}").as_bytes(), b"two"]);
        assert_eq!(parts[1].raw, format!("{end}two"));
    }
}

#[test]
fn header_only_and_empty_parts_are_parts() {
    let parts =
        parts("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\nA: 1\r\n--b\r\n\r\n\r\n--b--").unwrap();
    let seen: Vec<(usize, usize)> = parts.iter().map(|part| (part.header.fields.len(), part.body.len())).collect();
    assert_eq!(seen, [(0, 0), (1, 0), (0, 0)]);
}

#[test]
fn a14_multiparts_with_two_readings_are_errors() {
    let with =
        |body: &str| parts(&format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", body.replace('\n', "\r\n")));
    assert!(with("--b\n\nx\n--b--\n").is_ok());
    assert!(with("--b\n\nx\n --b\n--b--\n").is_ok(), "no delimiter: not at the start of a line");
    for body in [
        "--b\n\nx\n",
        "--b\n\nx\n--b",
        "--b\n\nx\n--bc\n--b--\n",
        "--b\n\nx\n--b-\n--b--\n",
        "--b\n\nx\n--b--\n--b\n\ny\n--b--\n",
        "--b\n\nx\n--b--c\n--b--\n",
        "--b\n\nx\n--b y\n--b--\n",
        "--b--\n",
        "",
        "no delimiter\n",
        "--b\n\nx\r--b\n--b--\n",
    ] {
        assert!(with(body).is_err(), "{body:?}");
    }
    for value in [
        "multipart/mixed",
        "multipart/mixed; boundary=\"\"",
        "multipart/mixed; boundary=\"b \"",
        "multipart/mixed; boundary=b; boundary=c",
        "text/plain; boundary=b",
    ] {
        assert!(parts(&format!("Content-Type: {value}\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")).is_err(), "{value:?}");
    }
    let long = "b".repeat(71);
    assert!(
        parts(&format!("Content-Type: multipart/mixed; boundary={long}\r\n\r\n--{long}\r\n\r\nx\r\n--{long}--\r\n"))
            .is_err()
    );
    assert!(
        parts("Content-Type: multipart/mixed; boundary=b\r\nContent-Type: text/plain\r\n\r\n--b\r\n\r\n--b--\r\n")
            .is_err()
    );
}

#[test]
fn an_inner_boundary_that_begins_like_the_outer_one_is_read_leniently() {
    let text = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\n\r\nx\r\n--b1--\r\n--b--\r\n";
    assert!(matches!(parts(text), Err(MimeError::Ambiguous(_))));
    let limits = MimeLimits::default();
    let outer = entity(text).parts_lenient(&limits).unwrap();
    assert_eq!(outer.len(), 1);
    assert_eq!(outer[0].parts(&limits).unwrap()[0].body, "x");
}

#[test]
fn a13_depth_and_number_of_parts_are_bounded() {
    let limits = MimeLimits::default();
    let mut text = String::new();
    for depth in 0..30 {
        text.push_str(&format!("Content-Type: multipart/mixed; boundary=b{depth}x\r\n\r\n--b{depth}x\r\n"));
    }
    let mut current = entity(&text);
    let mut depth = 0;
    let error = loop {
        match current.parts_lenient(&limits) {
            Ok(mut parts) => current = parts.remove(0),
            Err(error) => break error,
        }
        depth += 1;
    };
    assert_eq!((depth, error), (20, MimeError::Limit("nesting of MIME parts")));
    let many = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--", "--b\r\n\r\n".repeat(10_001));
    assert!(matches!(parts(&many), Err(MimeError::Limit(_))));
}

#[test]
fn a14_base64_is_read_strictly() {
    let decode = |body: &str| entity(&format!("Content-Transfer-Encoding: BASE64\r\n\r\n{body}")).decoded_body();
    assert_eq!(decode("SGFs\r\nbG8=\r\n").unwrap(), "Hallo");
    assert_eq!(decode("SGFs\nbG8= \n\n").unwrap(), "Hallo");
    assert_eq!(decode("").unwrap(), "");
    for bad in [
        "SGFsbG8",
        "SGFsbG8==",
        "SGFsbG9=",
        "SGFs=bG8=",
        "SGFs!bG8=",
        "SGFs bG8=",
        "SGFs\rbG8=",
        "SGFsbG8=\r\nSGFsbG8=",
        "SGFsbG8=\r\n-- \r\nfooter",
        "=",
        "SGFs-G8=",
        "SGFsbG8\u{200b}=",
    ] {
        assert!(matches!(decode(bad), Err(MimeError::Ambiguous(_))), "{bad:?}");
    }
    // Padding where one block of the decoder ends.
    let long = STANDARD.encode(vec![0u8; 16 * 1024 * 3 / 4 - 1]);
    assert!(decode(&format!("{long}\r\nAAAA")).is_err());
    assert_eq!(decode(&format!("{long}\r\n\r\n")).unwrap().len(), 16 * 1024 * 3 / 4 - 1);
}

#[test]
fn quoted_printable_is_decoded() {
    let decode =
        |body: &str| entity(&format!("Content-Transfer-Encoding: Quoted-Printable\r\n\r\n{body}")).decoded_body();
    assert_eq!(decode("a=3D=e4 b \t\r\nc=\r\nd = \r\ne=").unwrap(), &b"a=\xe4 b\r\ncd e"[..]);
    for bad in ["a=3", "a=zz", "a\u{fc}", "=\r\n=x"] {
        assert!(decode(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a14_transfer_encodings_are_those_of_rfc_2045() {
    for header in ["7bit", "8BIT", " binary ", "(c) 7bit (d)"] {
        let entity = entity(&format!("Content-Transfer-Encoding:{header}\r\n\r\n\u{fc}"));
        let body = entity.decoded_body().unwrap();
        assert_eq!(body.as_ptr(), entity.body.as_ptr());
    }
    for header in [
        "x-uuencode",
        "base64 base64",
        "base64; x",
        "base64 (c)",
        "(c) quoted-printable",
        "",
        "7bit\r\nContent-Transfer-Encoding: base64",
    ] {
        assert!(
            entity(&format!("Content-Transfer-Encoding: {header}\r\n\r\nAAAA")).decoded_body().is_err(),
            "{header:?}"
        );
    }
}

proptest! {
    #[test]
    fn base64_written_by_the_rope_is_read_back(octets in prop::collection::vec(any::<u8>(), 0..40_000)) {
        let mut body = Vec::new();
        crate::mime::rope::encode_lines(&octets, &mut body);
        prop_assert_eq!(decode_base64(&body).unwrap(), octets);
    }

    #[test]
    fn fuzz_body_holds(text in "Content-Type: multipart/mixed; boundary=(b|bb|\"b b\")\r\n(Content-Transfer-Encoding: (base64|quoted-printable)\r\n)?\r\n((--b|--bb|--|b|=|A|=4|Content-Type: multipart/mixed; boundary=bb|\r\n\r\n|\r| ){0,4}\r?\n){0,12}", octets in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_entity(text.as_bytes());
        fuzz_entity(&octets);
    }
}

#[test]
fn a14_a_content_type_after_a_broken_line_is_ambiguous() {
    for broken in ["no field\r\n", "X\u{fc}: y\r\n", "X: y\rz\r\n", "X: \0\r\n", " orphan\r\n"] {
        let text = format!("{broken}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n");
        assert!(matches!(entity(&text).content_type(), Err(MimeError::Ambiguous(_))), "{broken:?}");
        assert!(parts(&text).is_err());
        assert_eq!(entity(&text).parts_lenient(&MimeLimits::default()).unwrap().len(), 1);
    }
}
