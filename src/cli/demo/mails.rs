//! The mails of the demo, and the comparison of what went in with what came out.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::load::mails::parts::{difference, parts};
use crate::mime::entity::{Entity, MimeLimits};

pub const ANNA: &str = "anna@example.org";
pub const BERT: &str = "bert@example.net";
pub const CARLA: &str = "carla@example.net";

/// A mail to be sent.
pub struct Sample {
    pub title: &'static str,
    pub to: &'static [&'static str],
    pub message: Bytes,
}

/// Plain text, UTF-8 with an attachment, HTML with a picture, and a big one.
pub fn samples() -> Vec<Sample> {
    vec![
        Sample { title: "plain text", to: &[BERT], message: plain() },
        Sample { title: "UTF-8 with an attachment", to: &[BERT, CARLA], message: attachment() },
        Sample { title: "HTML with a picture", to: &[CARLA], message: picture() },
        Sample { title: "10 MB", to: &[BERT], message: big() },
    ]
}

fn head(to: &str, subject: &str, id: &str) -> String {
    format!(
        "From: Anna <{ANNA}>\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Mon, 01 Jun 2026 10:00:00 +0000\r\n\
         Message-ID: <{id}@example.org>\r\nMIME-Version: 1.0\r\n"
    )
}

fn plain() -> Bytes {
    let head = head(BERT, "Lunch", "plain");
    format!("{head}Content-Type: text/plain; charset=us-ascii\r\n\r\nShall we meet at noon?\r\n\r\nFrom here it is a short walk. \r\n-- \r\nAnna\r\n").into()
}

fn attachment() -> Bytes {
    let head = head(&format!("{BERT}, {CARLA}"), "=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?=", "utf8");
    let csv = STANDARD.encode("Straße;Größe\r\nÄrmel;42\r\n");
    format!(
        "{head}Content-Type: multipart/mixed; boundary=\"mixed\"\r\n\r\n--mixed\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\n\r\nSchöne Grüße, żółć, 你好, 🐦\r\n--mixed\r\n\
         Content-Type: text/csv; charset=utf-8; name=\"table.csv\"\r\nContent-Disposition: attachment; filename=\"table.csv\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{csv}\r\n--mixed--\r\n"
    )
    .into()
}

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn picture() -> Bytes {
    let head = head(CARLA, "A picture", "html");
    format!(
        "{head}Content-Type: multipart/related; boundary=\"rel\"\r\n\r\n--rel\r\nContent-Type: multipart/alternative; boundary=\"alt\"\r\n\r\n\
         --alt\r\nContent-Type: text/plain\r\n\r\nA picture.\r\n--alt\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>A picture: <img src=3D\"cid:pixel\"> caf=C3=A9</p>\r\n--alt--\r\n\r\n--rel\r\n\
         Content-Type: image/png\r\nContent-ID: <pixel>\r\nContent-Transfer-Encoding: base64\r\n\r\n{PIXEL}\r\n--rel--\r\n"
    )
    .into()
}

fn big() -> Bytes {
    // 57 octets make a line of 78 with its end: 10 MB in all.
    let mut octets = vec![0; 57 * (10_000_000 / 78)];
    // Any content will do, random content cannot be made smaller by anybody on the way.
    let _ = rand::fill(&mut octets);
    let mut message = head(BERT, "The film", "big").into_bytes();
    message.extend_from_slice(
        b"Content-Type: application/octet-stream; name=\"film.bin\"\r\nContent-Disposition: attachment; filename=\"film.bin\"\r\n\
          Content-Transfer-Encoding: base64\r\n\r\n",
    );
    for line in octets.chunks(57) {
        message.extend_from_slice(STANDARD.encode(line).as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.into()
}

/// Whether what came out is what went in: subject, author and recipients, the tree's leaves with type, name and decoded content.
/// `Ok` says how many leaves, `Err` what differs.
pub fn compare(before: &Bytes, after: &Bytes) -> Result<usize, String> {
    let limits = MimeLimits::default();
    let read = |octets: &Bytes| Entity::parse(octets.clone(), &limits).map_err(|error| error.to_string());
    let (before, after) = (read(before)?, read(after)?);
    for name in ["From", "To", "Subject", "Date", "Message-ID"] {
        let value = |entity: &Entity| entity.header.all(name).map(|field| field.value()).collect::<Vec<_>>();
        if value(&before) != value(&after) {
            return Err(format!("{name} differs"));
        }
    }
    let read = |entity: &Entity| parts(entity, &limits).map_err(|error| error.to_string());
    let (went, came) = (read(&before)?, read(&after)?);
    match difference(&went, &came) {
        Some(why) => Err(why),
        None => Ok(went.len()),
    }
}
