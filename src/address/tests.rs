use super::*;
use proptest::prelude::*;

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn domains_become_a_labels_in_lower_case() {
    for (text, expected) in [
        ("Example.ORG", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.Example", "xn--bcher-kva.example"),
        // UTS 46 non-transitional: sharp s stays.
        ("faß.example", "xn--fa-hia.example"),
        ("r3---sn-x.example", "r3---sn-x.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[ipv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(Domain::parse(text).unwrap().as_str(), expected, "{text}");
    }
}

#[test]
fn bad_domains_are_refused() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "abcdefg.".repeat(32));
    let long_u = "ü.".repeat(400);
    for text in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a.example",
        "a-.example",
        "a_b.example",
        "a b",
        "a@b",
        "a\r\nb",
        "a\0b",
        "a\u{85}b",
        "xn--a.example",
        "xn--",
        "[1.2.3]",
        "[1.2.3.4",
        "1.2.3.4]",
        "[01.2.3.4]",
        "[::1]",
        "[IPv6:::1%eth0]",
        "[IPv6:1]",
        "[]",
        "[x:y]",
        "ü\u{202e}.example",
        &long_label,
        &long_name,
        &long_u,
    ] {
        assert!(Domain::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn quoted_local_parts_keep_their_meaning() {
    for (text, local, printed) in [
        ("user@example.org", "user", "user@example.org"),
        ("\"user\"@example.org", "user", "user@example.org"),
        ("\"us er\"@example.org", "us er", "\"us er\"@example.org"),
        (r#""a\"b\\c"@example.org"#, r#"a"b\c"#, r#""a\"b\\c"@example.org"#),
        ("\"a@b\"@example.org", "a@b", "\"a@b\"@example.org"),
        ("\"\"@example.org", "", "\"\"@example.org"),
        ("\"a..b\"@example.org", "a..b", "\"a..b\"@example.org"),
        ("δοκιμή@παράδειγμα.example", "δοκιμή", "δοκιμή@xn--hxajbheg2az3al.example"),
        ("a+b=c@[IPv6:::1]", "a+b=c", "a+b=c@[IPv6:::1]"),
    ] {
        let parsed = mailbox(text);
        assert_eq!((parsed.local(), parsed.to_string().as_str()), (local, printed), "{text}");
    }
    assert!(mailbox("δοκιμή@example.org").needs_smtputf8());
    assert!(!mailbox("a@bücher.example").needs_smtputf8());
}

#[test]
fn bad_mailboxes_are_refused() {
    let long = format!("{}@example.org", "a".repeat(256));
    for text in [
        "",
        "@",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a..b@c",
        ".a@c",
        "a.@c",
        "a b@c",
        "a<b>@c",
        "\"a@c",
        "\"a\"c",
        "\"a\"\"b\"@c",
        "\"a\\",
        "a,b@c",
        "a\u{202e}b@c",
        "a\u{2028}b@c",
        &long,
    ] {
        assert!(Mailbox::parse(text).is_err(), "{text:?}");
    }
    // SRS and VERP exceed the 64 octets that RFC 5321 promises.
    assert!(Mailbox::parse(&format!("{}@example.org", "a".repeat(255))).is_ok());
}

#[test]
fn keys_are_read_back_only_in_their_own_form() {
    assert_eq!(MailboxKey::parse("User@Example.ORG").unwrap().as_str(), "user@example.org");
    assert_eq!(MailboxKey::from_stored("a@b@example.org").unwrap(), MailboxKey::parse("\"A@b\"@example.org").unwrap());
    for text in ["User@example.org", "user@Example.org", "user", "user@bücher.example", "u\nser@example.org"] {
        assert!(MailboxKey::from_stored(text).is_err(), "{text:?}");
    }
}

/// Pairs that look alike, or that some Unicode folding makes equal.
#[test]
fn a22_confusable_mailboxes_never_match() {
    let genuine = MailboxKey::parse("alice.skip@paypal-k.example").unwrap();
    let same = Mailbox::parse("ALICE.Skip@PAYPAL-K.Example").unwrap();
    assert!(same.key() == genuine && genuine.is_of(&same));
    let confusable = [
        "аlice.skip@paypal-k.example",        // Cyrillic a
        "αlice.skip@paypal-k.example",        // Greek alpha
        "alıce.skip@paypal-k.example",        // dotless i
        "ALİCE.skip@paypal-k.example",        // dotted capital I
        "alice.ſkip@paypal-k.example",        // long s: folds to s
        "alice.s\u{212a}ip@paypal-k.example", // Kelvin sign: lower-cases to k
        "ａlice.skip@paypal-k.example",       // full width
        "ALICE．skip@paypal-k.example",       // full-width dot
        "alice.sk\u{0131}p@paypal-k.example",
        "alice.s\u{200b}kip@paypal-k.example", // zero width space
        "alice.skip\u{301}@paypal-k.example",  // combining accent
        "alice.skíp@paypal-k.example",
        "аӏісе.ѕкір@paypal-k.example", // all Cyrillic
        "alice.skip@pаypal-k.example", // Cyrillic a in the domain
        "alice.skip@paypaӏ-k.example", // palochka
        "alice.skip@paypaı-k.example",
        "alice.skip@ρaypal-k.example", // Greek rho
        "alice.skip@paypal‐k.example", // U+2010 hyphen
        "alice.skip@páypal-k.example",
        "alice.skip@xn--pypal-k-4ve.example",
    ];
    let matches: Vec<_> = confusable
        .iter()
        .filter(|text| Mailbox::parse(text).is_ok_and(|one| one.key() == genuine || genuine.is_of(&one)))
        .collect();
    assert_eq!(matches, Vec::<&&str>::new());
    // Composed and decomposed forms are two mailboxes: nothing is normalised in a local part.
    assert_ne!(MailboxKey::parse("caf\u{e9}@example.org"), MailboxKey::parse("cafe\u{301}@example.org"));
}

proptest! {
    #[test]
    fn a15_no_control_character_passes(before in ".{0,8}", octet in prop::sample::select(vec!['\r', '\n', '\0', '\x1b', '\x7f', '\u{85}', '\u{2028}']), after in ".{0,8}") {
        for text in [
            format!("{before}{octet}{after}@example.org"),
            format!("\"{before}{octet}{after}\"@example.org"),
            format!("\"{before}\\{octet}{after}\"@example.org"),
            format!("user@{before}{octet}{after}"),
            format!("user@example.org{octet}"),
        ] {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                prop_assert!(!mailbox.to_string().contains(octet), "{text:?}");
            }
        }
        let local = format!("{before}{octet}{after}");
        prop_assert!(Mailbox::new(&local, Domain::parse("example.org").unwrap()).is_err());
    }

    #[test]
    fn what_parses_prints_and_parses_to_the_same(text in "[a-zA-Z.\"\\\\@ üß\u{212a}<>-]{0,12}@?[a-zA-Zü.-]{0,10}", any in prop::collection::vec(any::<u8>(), 0..40)) {
        fuzz_address(text.as_bytes());
        fuzz_address(&any);
    }

    #[test]
    fn any_local_part_survives_printing(local in "[ -~üßλ]{0,20}") {
        let mailbox = Mailbox::new(&local, Domain::parse("example.org").unwrap()).unwrap();
        prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
    }
}

#[test]
fn fuzz_seeds() {
    for seed in ["a@b", "\"a b\"@[1.2.3.4]", "ü@ü.example", "[IPv6:::1]", "\"", "@", "xn--bcher-kva.example"] {
        fuzz_address(seed.as_bytes());
    }
}
