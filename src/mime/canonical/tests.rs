use super::*;
use crate::mime::entity::TransferEncoding;
use proptest::prelude::*;

fn entity(octets: &[u8]) -> Entity {
    Entity::parse(Bytes::copy_from_slice(octets), &MimeLimits::default()).unwrap()
}

fn prepared(text: &str) -> Prepared {
    prepare(&entity(text.as_bytes()), &MimeLimits::default()).unwrap()
}

#[test]
fn what_is_safe_keeps_its_octets() {
    let mail = "From: a@b\r\nContent-Type: text/plain\r\nMIME-Version: 1.0\r\nSubject: s\r\n\r\nhello\r\n";
    let prepared = prepared(mail);
    assert_eq!(prepared.outer, "From: a@b\r\nSubject: s\r\n");
    assert_eq!(prepared.inner.to_bytes(), "Content-Type: text/plain\r\n\r\nhello\r\n");
}

#[test]
fn what_a_seven_bit_hop_changes_is_encoded_and_decodes_to_the_same() {
    let long = "x".repeat(999);
    for body in [
        "From me\r\n",
        "trailing \r\n",
        "-- \r\nname\r\n",
        "gr\u{fc}n\r\n",
        &long,
        "\u{43f}\u{440}\u{438}\r\n",
        "=41 \r\n",
    ] {
        let prepared = prepared(&format!(
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}"
        ));
        assert!(is_seven_bit_safe(&prepared.inner.to_bytes()), "{body:?}");
        let inner = entity(&prepared.inner.to_bytes());
        assert_ne!(inner.transfer_encoding(), Ok(TransferEncoding::Identity));
        assert_eq!(inner.decoded_body().unwrap(), body.as_bytes());
    }
}

/// RFC 8551 section 3.1.3 line by line.
fn is_safe_by_lines(octets: &[u8]) -> bool {
    let mut lines: Vec<&[u8]> = octets.split(|octet| *octet == b'\n').collect();
    let last = lines.pop().unwrap();
    let ended = lines.iter().all(|line| line.ends_with(b"\r"));
    let texts = lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).chain([last]);
    let safe = |line: &[u8]| {
        line.len() <= 998
            && !line.ends_with(b" ")
            && !line.ends_with(b"\t")
            && !line.starts_with(b"From ")
            && line.iter().all(|octet| octet.is_ascii() && *octet != 0 && *octet != b'\r')
    };
    ended && texts.into_iter().all(safe)
}

#[test]
fn what_is_safe_is_the_same_line_by_line_and_at_every_place_of_a_window() {
    let odd = ["\n", "\r", "\0", "\u{fc}", " \r\n", "\t\r\n", "\r\nFrom x", "\r\r\n", "\r\n", "\r\n.\r\n", "x", ""];
    for at in [0, 1, 77, 998, 999, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1] {
        for part in odd {
            let before: String = "0123456789 abcde\r\n".chars().cycle().take(at).collect();
            for after in ["", "z", " ", "\r\n", "\n", &"y".repeat(998), &"y".repeat(999), &("y".repeat(998) + "\r\nz")]
            {
                let octets = format!("{before}{part}{after}");
                assert_eq!(
                    is_seven_bit_safe(octets.as_bytes()),
                    is_safe_by_lines(octets.as_bytes()),
                    "{at} {part:?} {after:?}"
                );
            }
        }
    }
    assert!(is_seven_bit_safe(b"") && is_seven_bit_safe(b"a\r\n\r\nb") && !is_seven_bit_safe(b"From me"));
}

#[test]
fn safe_parts_of_an_unsafe_multipart_keep_their_octets() {
    let safe = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\nBBBB";
    let mail = format!(
        "Content-Type: multipart/mixed; boundary=o\r\nContent-Transfer-Encoding: 8bit\r\n\r\npre\u{e4}mble\r\n--o\r\n{safe}\r\n--o\r\n\
         Content-Type: message/rfc822\r\n\r\nSubject: gr\u{fc}n\r\n\r\n\u{fc} \r\n--o--\r\n"
    );
    let prepared = prepared(&mail);
    let inner = entity(&prepared.inner.to_bytes());
    let parts = inner.parts(&MimeLimits::default()).unwrap();
    assert_eq!(parts[0].raw, safe.as_bytes());
    let nested = parts[1].message(&MimeLimits::default()).unwrap();
    assert_eq!(nested.header.fields[0].decoded(), "gr\u{fc}n");
    assert_eq!(nested.decoded_body().unwrap(), "\u{fc} ".as_bytes());
    assert!(inner.header.one("Content-Transfer-Encoding").unwrap().is_none());
}

#[test]
fn signed_parts_are_never_touched() {
    let part = "Content-Type: multipart/signed; boundary=i; protocol=\"application/pkcs7-signature\"\r\n\r\n\
                --i\r\n\r\ntext\r\n--i\r\nContent-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--i--";
    let mail = |part: &str| {
        format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n{part}\r\n--o\r\n\r\n\u{fc}\r\n--o--\r\n")
    };
    let prepared = prepared(&mail(part));
    assert_eq!(entity(&prepared.inner.to_bytes()).parts(&MimeLimits::default()).unwrap()[0].raw, part.as_bytes());
    let unsafe_part = mail(&part.replace("text", "text "));
    assert!(prepare(&entity(unsafe_part.as_bytes()), &MimeLimits::default()).is_err());
}

#[test]
fn a_part_header_in_eight_bit_is_written_in_rfc_2231() {
    let mail = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: application/pdf; \r\n name=\"M\u{fc}ller \\\"x\\\".pdf\"\r\n\
                Content-Disposition: attachment; filename=\"M\u{fc}ller.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--o--\r\n";
    let part = entity(&prepared(mail).inner.to_bytes()).parts(&MimeLimits::default()).unwrap().remove(0);
    assert_eq!(part.content_type().unwrap().parameter("name"), Some("M\u{fc}ller \"x\".pdf"));
    assert!(part.header.fields[1].value().contains("filename*=utf-8''M%C3%BCller.pdf"));
}

#[test]
fn a_multipart_that_programs_take_apart_differently_is_not_written_anew() {
    let mail = |end: &str| format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\n\u{fc}\r\n{end}");
    for end in ["", "--o--</BODY>\r\n", "--o--</BODY>\r\n--o--\r\n"] {
        let message = entity(mail(end).as_bytes());
        assert!(matches!(prepare(&message, &MimeLimits::default()), Err(MimeError::Ambiguous(_))), "{end:?}");
        let lenient = prepare_lenient(&message, &MimeLimits::default()).unwrap();
        assert_eq!(entity(&lenient.inner.to_bytes()).parts(&MimeLimits::default()).unwrap().len(), 1);
        let kept = take_apart(&message, &MimeLimits::default()).unwrap();
        assert_eq!(kept.inner.to_bytes(), message.raw);
    }
    assert!(prepare(&entity(mail("--ox\r\n--o--\r\n").as_bytes()), &MimeLimits::default()).is_ok());
}

#[test]
fn line_ends_become_canonical_without_a_copy_where_they_are() {
    let clean = Bytes::from_static(b"a\r\nb\r\n\r\nc");
    assert_eq!(canonical_line_ends(&clean).as_ptr(), clean.as_ptr());
    assert_eq!(canonical_line_ends(&Bytes::from_static(b"a\nb\rc\r\n\r\r\n\n")), &b"a\r\nb\r\nc\r\n\r\n\r\n\r\n"[..]);
}

#[test]
fn no_soft_line_break_makes_a_delimiter() {
    let long = format!("{}--o--", "x".repeat(75));
    let mail = format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\n{long}\u{fc}\r\n--o--\r\n");
    let parts = entity(&prepared(&mail).inner.to_bytes()).parts(&MimeLimits::default()).unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].decoded_body().unwrap(), format!("{long}\u{fc}").as_bytes());
}

#[test]
fn a13_deep_nesting_is_refused_without_a_crash() {
    let mut mail = String::new();
    for depth in 0..100_000 {
        mail.push_str(&format!("Content-Type: multipart/mixed; boundary=b{depth}x\r\n\r\n--b{depth}x\r\n"));
    }
    mail.push_str("\r\n\u{fc}");
    let refused = prepare_lenient(&entity(mail.as_bytes()), &MimeLimits::default()).map(|_| ());
    assert_eq!(refused, Err(MimeError::Limit("nesting of MIME parts")));
}

const SEEDS: [&str; 4] = [
    "Content-Type: multipart/mixed; boundary=o\n\n--o\n\nFrom \n--o\nContent-Type: message/rfc822\n\nX: \u{fc} \n\n\u{fc}\n--o--",
    "Content-Type: multipart/digest; boundary=o\r\n\r\n--o\r\n\r\nTo: \"\u{fc}, x\" <a@b> \r\n\r\n\u{fc}\r\n--o--\r\n",
    "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=zz \r\n=\r\n--\r\n.\r\n",
    "Content-Disposition: a; x=\"\u{fc}\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAA== \r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn lines_are_judged_the_same_in_any_mix(text in "((From |x| |\t|\r\n|\r|\n|\u{fc}|\0){0,12})", repeat in 1usize..200) {
        let octets = text.repeat(repeat);
        prop_assert_eq!(is_seven_bit_safe(octets.as_bytes()), is_safe_by_lines(octets.as_bytes()));
    }

    #[test]
    fn fuzz_body_holds_for_mangled_seeds(
        seed in 0..SEEDS.len(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut octets = SEEDS[seed].as_bytes().to_vec();
        fuzz_canonical(&octets);
        for (at, octet) in cuts {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        fuzz_canonical(&octets);
    }
}

#[test]
fn fuzz_body_holds_where_the_limit_on_fields_is_reached_just_so() {
    let fields: Vec<String> = (0..200).map(|number| format!("X-{number}: one\r\n")).collect();
    fuzz_canonical(format!("{}\r\nGr\u{fc}\u{df}e\r\n", fields.concat()).as_bytes());
}
