//! Contents made up: text, HTML with text, attachments. P.

use bytes::Bytes;

use super::Template;
use crate::load::random::Random;
use crate::mime::rope::Rope;

/// Octets of the fields that a mail brings beside its content, and of its mark.
const FIELDS: usize = 520;
/// A content below this has no attachment.
const TEXT_ONLY: usize = 6_000;
/// Text before an attachment, at most.
const TEXT: usize = 3_000;
/// What base64 makes of octets: 57 become a line of 78.
const BASE64: (usize, usize) = (57, 78);

const WORDS: [&str; 40] = [
    "about", "agenda", "amount", "as", "before", "by", "call", "contract", "delivery", "draft", "for", "from", "have",
    "in", "invoice", "is", "last", "meeting", "Monday", "new", "of", "on", "order", "our", "page", "please", "price",
    "project", "question", "report", "seen", "table", "thank", "that", "the", "to", "version", "we", "week", "you",
];

/// A content with which a mail has about this many octets: plain text, text with HTML, or text with an attachment, in turn.
pub(super) fn template(octets: usize, number: usize, random: &mut Random) -> Option<Template> {
    let room = octets.saturating_sub(FIELDS);
    match number % 3 {
        _ if room >= TEXT_ONLY => attachment(room, number, random),
        2 if room >= 1_000 => alternative(room, random),
        _ => plain(room, random),
    }
}

fn plain(room: usize, random: &mut Random) -> Option<Template> {
    let head = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n";
    Template::new(Bytes::from_static(head.as_bytes()), text(room, random).into(), true)
}

fn alternative(room: usize, random: &mut Random) -> Option<Template> {
    let head = "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_alternative\"\r\n\r\n--=_alternative\r\n\
                Content-Type: text/plain; charset=us-ascii\r\n\r\n";
    let half = room.saturating_sub(350) / 2;
    let mut tail = text(half, random);
    tail.push_str(
        "\r\n--=_alternative\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         <html><body><p>Gr=C3=BC=C3=9Fe</p>\r\n",
    );
    let end = tail.len().saturating_add(half);
    while tail.len() < end {
        tail.push_str("<p class=3D\"text\">");
        for _ in 0..6 {
            tail.push_str(word(random));
            tail.push(' ');
        }
        tail.push_str("</p>\r\n");
    }
    tail.push_str("</body></html>\r\n--=_alternative--\r\n");
    Template::new(Bytes::from_static(head.as_bytes()), tail.into(), true)
}

/// A PDF as far as its first line goes; the rest is random, and cannot be made smaller on the way.
fn attachment(room: usize, number: usize, random: &mut Random) -> Option<Template> {
    let head = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_mixed\"\r\n\r\n--=_mixed\r\n\
                Content-Type: text/plain; charset=us-ascii\r\n\r\n";
    let words = (room / 8).min(TEXT);
    let mut file = vec![0; room.saturating_sub(words).saturating_sub(350) / BASE64.1 * BASE64.0];
    random.fill(&mut file);
    for (to, from) in file.iter_mut().zip(b"%PDF-1.7\n") {
        *to = *from;
    }
    let mut tail = Rope::from(Bytes::from(text(words, random)));
    tail.push_raw(format!(
        "\r\n--=_mixed\r\nContent-Type: application/pdf; name=\"invoice-{number}.pdf\"\r\n\
         Content-Disposition: attachment; filename=\"invoice-{number}.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ));
    tail.push_base64(file);
    tail.push_raw(Bytes::from_static(b"--=_mixed--\r\n"));
    Template::new(Bytes::from_static(head.as_bytes()), tail.to_bytes(), true)
}

/// Lines of words.
fn text(octets: usize, random: &mut Random) -> String {
    let mut text = String::with_capacity(octets.saturating_add(80));
    let mut line = 0;
    while text.len() < octets {
        let word = word(random);
        if line + word.len() > 70 {
            text.push_str("\r\n");
            line = 0;
        } else if line > 0 {
            text.push(' ');
        }
        text.push_str(word);
        line += word.len() + 1;
    }
    text.push_str("\r\n");
    text
}

fn word(random: &mut Random) -> &'static str {
    WORDS.get(random.below(WORDS.len())).copied().unwrap_or("the")
}
