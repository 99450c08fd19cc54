use super::*;

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
