use super::*;

fn entity(text: &str) -> Entity {
    Entity::parse(Bytes::copy_from_slice(text.as_bytes()), &MimeLimits::default()).unwrap()
}

#[test]
fn the_line_end_before_a_delimiter_belongs_to_it() {
    for end in ["\r\n", "\n"] {
        let text = "Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nA: 1\n\none\n\n--b  \n\ntwo\n--b--\nepilogue";
        let parts = entity(&text.replace('\n', end)).parts(&MimeLimits::default()).unwrap();
        let bodies: Vec<&[u8]> = parts.iter().map(|part| &part.body[..]).collect();
        assert_eq!(bodies, [format!("one{end}").as_bytes(), b"two"]);
        assert_eq!(parts[1].raw, format!("{end}two"));
    }
}
