//! A14: what we decide by is read as others read it. A listed set of odd MIME goes through our strict reading, mail-parser, and Python's
//! email package: where ours gives a reading at all, the others give the same; where readers differ, ours gives none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "support/outside.rs"]
mod outside;

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use serde_json::Value;
use waxwing::mime::entity::{Entity, MimeLimits};

/// A leaf: its type, and its content without white space at the ends of it.
type Leaf = (String, String);

const MULTIPART: &str = "--b\r\nContent-Type: text/plain\r\n\r\none\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\ntwo\r\n--b--\r\n";

fn with_type(value: &str, body: &str) -> String {
    format!("From: a@b.example\r\nMIME-Version: 1.0\r\nContent-Type: {value}\r\n\r\n{body}")
}

fn with_encoding(value: &str, body: &str) -> String {
    format!("From: a@b.example\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: {value}\r\n\r\n{body}")
}

/// The set: name, message.
fn cases() -> Vec<(String, String)> {
    [types(), parts(), encodings(), headers()].concat()
}

fn signed(boundary: &str) -> String {
    format!("multipart/signed; protocol=\"application/pkcs7-signature\"; boundary={boundary}")
}

fn types() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, message: String| all.push((name.to_owned(), message));
    for (name, value) in [
        ("plain", signed("b")),
        ("quoted", signed("\"b\"")),
        ("folded", signed("\r\n\t\"b\"")),
        ("upper case", signed("b").to_uppercase().replace("BOUNDARY=B", "BOUNDARY=b")),
        ("space before =", signed("b").replace("boundary=", "boundary =")),
        ("comment", signed("b (the boundary)")),
        ("comment in the type", signed("b").replace("multipart/signed", "multipart/(x)signed")),
        ("two boundaries", format!("{}; boundary=c", signed("b"))),
        ("boundary of RFC 2231", signed("b").replace("boundary=", "boundary*=us-ascii''")),
        ("boundary in pieces", signed("b").replace("boundary=b", "boundary*0=\"\"; boundary*1=b")),
        ("both forms", format!("{}; boundary*=us-ascii''c", signed("b"))),
        ("quoted pair", signed("\"\\b\"")),
        ("trailing semicolon", format!("{};", signed("b"))),
        ("empty parameter", signed("b").replace("; boundary", ";; boundary")),
        ("unclosed quote", signed("\"b")),
        ("text after the quote", signed("\"b\"c")),
        ("space in the boundary", signed("\"b \"")),
        ("no boundary", "multipart/mixed".to_owned()),
        ("empty boundary", signed("\"\"")),
        ("encoded word", signed("=?us-ascii?q?b?=")),
        ("no subtype", "multipart; boundary=b".to_owned()),
        ("two slashes", "multipart/mixed/x; boundary=b".to_owned()),
        ("text in front", format!("x {}", signed("b"))),
        ("comma", signed("b").replace(';', ",")),
        ("newline in quotes", signed("\"b\r\n \"")),
        ("control character", signed("b\u{1}")),
    ] {
        add(&format!("type: {name}"), with_type(&value, MULTIPART));
    }
    all
}

fn parts() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, message: String| all.push((name.to_owned(), message));
    let plain = signed("b");
    for (name, body) in [
        ("preamble and epilogue", format!("before\r\n{MULTIPART}after\r\n")),
        ("no close", MULTIPART.replace("--b--\r\n", "")),
        ("close twice", format!("{MULTIPART}--b--\r\n")),
        ("parts after the close", format!("{MULTIPART}--b\r\n\r\nthree\r\n--b--\r\n")),
        ("space after the boundary", MULTIPART.replace("--b\r\nContent-Type: app", "--b \t\r\nContent-Type: app")),
        ("text after the boundary", MULTIPART.replace("--b\r\nContent-Type: app", "--bc\r\nContent-Type: app")),
        ("text after the close", MULTIPART.replace("--b--\r\n", "--b--c\r\n")),
        ("space before the boundary", MULTIPART.replace("--b\r\nContent-Type: app", " --b\r\nContent-Type: app")),
        ("one dash", MULTIPART.replace("--b\r\nContent-Type: app", "-b\r\nContent-Type: app")),
        ("no header in a part", MULTIPART.replace("Content-Type: text/plain\r\n\r\none", "\r\none")),
        ("no empty line in a part", MULTIPART.replace("Content-Type: text/plain\r\n\r\none", "one")),
        ("nothing", String::new()),
        ("only the close", "--b--\r\n".to_owned()),
        ("bare LF", MULTIPART.replace("\r\n", "\n")),
        ("mixed ends", MULTIPART.replace("one\r\n", "one\n")),
        ("a boundary in a body line", MULTIPART.replace("one", "x--b")),
        (
            "inner with the same boundary",
            MULTIPART.replace(
                "Content-Type: text/plain\r\n\r\none",
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ninner\r\n--b--",
            ),
        ),
        (
            "inner with a longer boundary",
            MULTIPART.replace(
                "Content-Type: text/plain\r\n\r\none",
                "Content-Type: multipart/mixed; boundary=bb\r\n\r\n--bb\r\n\r\ninner\r\n--bb--",
            ),
        ),
        (
            "inner of its own",
            MULTIPART.replace(
                "Content-Type: text/plain\r\n\r\none",
                "Content-Type: multipart/mixed; boundary=\"=_i\"\r\n\r\n--=_i\r\n\r\ninner\r\n--=_i--",
            ),
        ),
        (
            "two types in a part",
            MULTIPART.replace("Content-Type: text/plain", "Content-Type: text/plain\r\nContent-Type: text/html"),
        ),
    ] {
        add(&format!("parts: {name}"), with_type(&plain, &body));
    }
    all
}

fn encodings() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, message: String| all.push((name.to_owned(), message));
    let object = STANDARD.encode("an object of some length, so that there is more than one line of it in the end");
    for (name, value, body) in [
        ("base64", "base64", format!("{object}\r\n")),
        ("upper case", "BASE64", format!("{object}\r\n")),
        ("comment", "base64 (of course)", format!("{object}\r\n")),
        ("semicolon", "base64;", format!("{object}\r\n")),
        ("quoted", "\"base64\"", format!("{object}\r\n")),
        ("unknown", "x-unknown", "text\r\n".to_owned()),
        ("none", "", "text\r\n".to_owned()),
        ("lines", "base64", format!("{}\r\n{}\r\n", &object[..40], &object[40..])),
        ("space at the end of lines", "base64", format!("{}  \r\n{}\r\n", &object[..40], &object[40..])),
        ("space inside", "base64", format!("{} {}\r\n", &object[..41], &object[41..])),
        ("foreign characters", "base64", format!("{}!{}\r\n", &object[..40], &object[40..])),
        ("padding in the middle", "base64", "YQ==\r\nYg==\r\n".to_owned()),
        ("no padding", "base64", "YQ\r\n".to_owned()),
        ("too much padding", "base64", "YQ===\r\n".to_owned()),
        ("loose bits", "base64", "YR==\r\n".to_owned()),
        ("text after it", "base64", format!("{object}\r\n\r\nfooter of a list\r\n")),
        ("url alphabet", "base64", "-_-_\r\n".to_owned()),
        ("empty", "base64", String::new()),
        ("7bit", "7bit", "text\r\n".to_owned()),
        ("8bit", "8bit", "text\r\n".to_owned()),
        ("binary", "binary", "text\r\n".to_owned()),
        ("quoted-printable", "quoted-printable", "a=3Db=\r\nc\r\n".to_owned()),
        ("lower case digits", "quoted-printable", "a=3db\r\n".to_owned()),
        ("space at the end of a line", "quoted-printable", "a \t\r\nb\r\n".to_owned()),
        ("broken escape", "quoted-printable", "a=ZZb\r\n".to_owned()),
        ("half an escape", "quoted-printable", "a=4\r\n".to_owned()),
        ("soft break at the end", "quoted-printable", "a=".to_owned()),
    ] {
        add(&format!("encoding: {name}"), with_encoding(value, &body));
    }
    all
}

fn headers() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, message: String| all.push((name.to_owned(), message));
    let head = "From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    for (name, message) in [
        ("two types", format!("{head}Content-Type: text/plain\r\n\r\n{MULTIPART}")),
        ("two types alike", format!("{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n{MULTIPART}")),
        ("two encodings", with_encoding("base64\r\nContent-Transfer-Encoding: 7bit", "YQ==\r\n")),
        ("space before the colon", format!("{}\r\n{MULTIPART}", head.replace("Type:", "Type :"))),
        (
            "a line that is no field",
            format!("From: a@b.example\r\nno field\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n{MULTIPART}"),
        ),
        ("a continued first line", format!(" x\r\n{head}\r\n{MULTIPART}")),
        ("an mbox line in front", format!("From a@b.example Mon\r\n{head}\r\n{MULTIPART}")),
        ("a fold of spaces", format!("{}\r\n{MULTIPART}", head.replace("; boundary", ";\r\n   \r\n boundary"))),
        ("an empty name", format!(": x\r\n{head}\r\n{MULTIPART}")),
        ("an eight-bit name", format!("X-\u{fc}: x\r\n{head}\r\n{MULTIPART}")),
        ("bare CR in a value", format!("X: a\rContent-Type: text/html\r\n{head}\r\n{MULTIPART}")),
        ("NUL in a value", format!("{}\r\n{MULTIPART}", head.replace("mixed;", "mixed\0;"))),
        ("no empty line", format!("{head}{MULTIPART}")),
        (
            "an encoded multipart",
            format!("{head}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n", STANDARD.encode(MULTIPART)),
        ),
        (
            "a wrapped message",
            "From: a@b.example\r\nContent-Type: message/rfc822\r\n\r\nFrom: c@d.example\r\nContent-Type: text/plain\r\n\r\ninside\r\n".to_owned(),
        ),
    ] {
        add(&format!("header: {name}"), message);
    }
    all
}

/// Where our reading differs from another's, and why that lets nobody show what was not judged.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "type: folded, mail-parser",
        "reads no parameter that follows a fold behind =: it shows the whole as text, and nothing of it as signed",
    ),
    ("type: comment, python", "keeps the comment in the boundary: it finds no part, and shows the whole as text"),
    ("type: quoted pair, python", "keeps the backslash in the boundary: it finds no part, and shows the whole as text"),
    (
        "parts: space before the boundary, mail-parser",
        "takes a boundary anywhere in a line, against RFC 2046 section 5.1.1: it shows less of the judged part, and no other octets",
    ),
    (
        "parts: a boundary in a body line, mail-parser",
        "takes a boundary anywhere in a line, against RFC 2046 section 5.1.1: it shows less of the judged part, and no other octets",
    ),
    (
        "encoding: space at the end of a line, python",
        "keeps the white space that RFC 2045 section 6.7 (3) takes away: nothing but white space",
    ),
];

/// Our strict reading; `Err`: it can be read two ways, or is broken: never decrypted, never valid.
fn ours(entity: &Entity, leaves: &mut Vec<Leaf>) -> Result<(), String> {
    let limits = MimeLimits::default();
    let content_type = entity.content_type().map_err(|error| error.to_string())?;
    if content_type.essence.starts_with("multipart/") {
        // RFC 2045 section 6.4: a multipart is not encoded.
        entity.transfer_encoding().map_err(|error| error.to_string())?;
        for part in entity.parts(&limits).map_err(|error| error.to_string())? {
            ours(&part, leaves)?;
        }
        return Ok(());
    }
    if content_type.essence == "message/rfc822" {
        return ours(&entity.message(&limits).map_err(|error| error.to_string())?, leaves);
    }
    let body = entity.decoded_body().map_err(|error| error.to_string())?;
    leaves.push((content_type.essence, trimmed(&body)));
    Ok(())
}

fn trimmed(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).replace("\r\n", "\n").trim().to_owned()
}

fn of_mail_parser(octets: &[u8]) -> Vec<Leaf> {
    let Some(message) = MessageParser::default().parse(octets) else { return Vec::new() };
    let mut leaves = Vec::new();
    collect(&message, &mut leaves);
    leaves
}

fn collect(message: &mail_parser::Message<'_>, leaves: &mut Vec<Leaf>) {
    for part in &message.parts {
        let of = part.content_type().map_or_else(
            || "text/plain".to_owned(),
            |one| format!("{}/{}", one.ctype(), one.subtype().unwrap_or("plain")).to_ascii_lowercase(),
        );
        match &part.body {
            PartType::Multipart(_) => {}
            PartType::Message(inner) => collect(inner, leaves),
            _ => leaves.push((of, trimmed(part.contents()))),
        }
    }
}

const PYTHON: &str = r#"
import base64, email, json, sys
from email import policy
def leaves(part, out):
    if part.is_multipart():
        for one in part.get_payload():
            leaves(one, out)
        return out
    payload = part.get_payload(decode=True)
    if payload is None:
        payload = str(part.get_payload()).encode()
    out.append([part.get_content_type(), base64.b64encode(payload).decode()])
    return out
print(json.dumps([leaves(email.message_from_bytes(base64.b64decode(line), policy=policy.compat32), []) for line in json.load(sys.stdin)]))
"#;

fn of_python(messages: &[String]) -> Vec<Vec<Leaf>> {
    let mut child =
        Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let encoded: Vec<String> = messages.iter().map(|message| STANDARD.encode(message)).collect();
    child.stdin.take().unwrap().write_all(serde_json::to_string(&encoded).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let leaf = |leaf: &Value| {
        (leaf[0].as_str().unwrap().to_owned(), trimmed(&STANDARD.decode(leaf[1].as_str().unwrap()).unwrap()))
    };
    found.as_array().unwrap().iter().map(|one| one.as_array().unwrap().iter().map(leaf).collect()).collect()
}

#[test]
fn a14_what_we_decide_by_others_read_alike() {
    if !outside::peers(&["python3"]) {
        return;
    }
    let cases = cases();
    let messages: Vec<String> = cases.iter().map(|(_, message)| message.clone()).collect();
    let (mut read, mut refused, mut unexplained, mut explained) = (0, 0, Vec::new(), Vec::new());
    for ((name, message), python) in cases.iter().zip(of_python(&messages)) {
        let entity = Entity::parse(message.clone().into(), &MimeLimits::default());
        let mut leaves = Vec::new();
        let reading = entity.map_err(|error| error.to_string()).and_then(|entity| ours(&entity, &mut leaves));
        if let Err(why) = reading {
            println!("{name}: none: {why}");
            refused += 1;
            continue;
        }
        read += 1;
        for (who, other) in [("mail-parser", of_mail_parser(message.as_bytes())), ("python", python)] {
            if other == leaves {
                continue;
            }
            let id = format!("{name}, {who}");
            match EXPLAINED.iter().find(|(known, _)| *known == id) {
                Some((known, _)) => explained.push(*known),
                None => unexplained.push(format!("{id}:\n  ours  {leaves:?}\n  other {other:?}")),
            }
        }
    }
    println!("{} cases: {read} read, {refused} refused, {} explained", cases.len(), explained.len());
    assert!(unexplained.is_empty(), "{} unexplained:\n{}", unexplained.len(), unexplained.join("\n"));
    let stale: Vec<_> = EXPLAINED.iter().filter(|(known, _)| !explained.contains(known)).collect();
    assert!(stale.is_empty(), "explained, and no difference: {stale:?}");
    assert!(read >= 25 && refused >= 30, "{read} {refused}");
}
