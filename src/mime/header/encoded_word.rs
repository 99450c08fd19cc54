//! Encoded words (RFC 2047, with the language tag of RFC 2231 section 5), read only for matching and showing.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::decoders::charsets::map::charset_decoder;

/// Lenient: other mail programs leave padding out.
const WORD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes every encoded word; white space between two of them vanishes. Octets of neighbours in the same charset are
/// joined before they are turned into text, since some writers cut characters in two.
pub(crate) fn decode(text: &str) -> String {
    if !text.contains("=?") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut run: Option<(String, Vec<u8>)> = None;
    let mut rest = text;
    // Nothing after the last "?=" is a word: looked for once, so that hostile text costs no more than its length.
    let last_end = text.rfind("?=").unwrap_or_default();
    while let Some(at) = rest.find("=?") {
        let (before, candidate) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let ended = text.len() - candidate.len() < last_end;
        let Some((word, after)) = ended.then(|| Word::parse(candidate)).flatten() else {
            flush(&mut run, &mut out);
            out.push_str(before);
            out.push_str("=?");
            rest = candidate.get(2..).unwrap_or_default();
            continue;
        };
        if run.is_none() || !before.trim().is_empty() {
            flush(&mut run, &mut out);
            out.push_str(before);
        }
        match &mut run {
            Some((charset, octets)) if *charset == word.charset => octets.extend(word.octets),
            _ => {
                flush(&mut run, &mut out);
                run = Some((word.charset, word.octets));
            }
        }
        rest = after;
    }
    flush(&mut run, &mut out);
    out.push_str(rest);
    out
}

fn flush(run: &mut Option<(String, Vec<u8>)>, out: &mut String) {
    if let Some((charset, octets)) = run.take() {
        out.push_str(&to_text(&charset, octets));
    }
}

/// Octets of a charset as text; what cannot be read is replaced.
pub(super) fn to_text(charset: &str, octets: Vec<u8>) -> String {
    if matches!(charset, "utf-8" | "utf8" | "us-ascii") {
        return match String::from_utf8(octets) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
    }
    match charset_decoder(charset.as_bytes()) {
        Some(decoder) => decoder(&octets),
        None => String::from_utf8_lossy(&octets).into_owned(),
    }
}

/// Unlabelled octets as text: UTF-8, else the charset that most old mail programs meant.
pub(crate) fn text_of(octets: Vec<u8>) -> String {
    match String::from_utf8(octets) {
        Ok(text) => text,
        Err(error) => to_text("windows-1252", error.into_bytes()),
    }
}

struct Word {
    charset: String,
    octets: Vec<u8>,
}

impl Word {
    /// `=?charset*language?encoding?text?=` at the start; gives what follows too.
    fn parse(candidate: &str) -> Option<(Self, &str)> {
        let (charset, rest) = candidate.strip_prefix("=?")?.split_once('?')?;
        let (encoding, rest) = rest.split_once('?')?;
        let charset = charset.split('*').next().unwrap_or_default();
        if charset.is_empty() || encoding.len() != 1 || !charset.bytes().all(|octet| octet.is_ascii_graphic()) {
            return None;
        }
        let (text, after) = rest.split_once("?=")?;
        let octets = match encoding {
            "B" | "b" => {
                // As the most lenient readers do: foreign characters skipped, a character too many cut off.
                let foreign = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
                let mut packed: Vec<u8> = text.bytes().take_while(|octet| *octet != b'=').filter(foreign).collect();
                if packed.len() % 4 == 1 {
                    packed.pop();
                }
                WORD.decode(packed).ok()?
            }
            "Q" | "q" => decode_q(text),
            _ => return None,
        };
        Some((Self { charset: charset.to_ascii_lowercase(), octets }, after))
    }
}

/// The Q encoding (RFC 2047 section 4.2); a broken escape stays as it is.
fn decode_q(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'_', _) => out.push(b' '),
            (b'=', [high, low, after @ ..]) => match hex_pair(*high, *low) {
                Some(octet) => {
                    out.push(octet);
                    rest = after;
                }
                None => out.push(b'='),
            },
            _ => out.push(*first),
        }
    }
    out
}

/// Two hexadecimal digits as an octet.
pub(crate) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}
