//! A command line to a `Command`, or to the reply that refuses it.

use super::{Body, Command, Enhanced, ForwardPath, MailParameters, Notify, RcptParameters, Reply, Ret};
use crate::address::{Domain, Mailbox, ReversePath};
use crate::smtp::{xclient, xforward};
use zeroize::Zeroizing;

/// Octets of a name in EHLO.
const NAME_OCTETS: usize = 255;
/// Octets of ENVID= as sent (RFC 3461 section 4.4).
const ENVID_OCTETS: usize = 100;
/// Octets of ORCPT= as sent (RFC 3461 section 4.2).
const ORCPT_OCTETS: usize = 500;

impl Command {
    /// Parses a command line without its CRLF. `Err` is the reply: 500 (not understood), 501 (wrong argument), 553 (wrong path), 555
    /// (unknown parameter).
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        if line.iter().any(|octet| octet.is_ascii_control() && *octet != b'\t') {
            return Err(syntax("a control character in a command: end each line with CRLF and nothing else"));
        }
        let line = std::str::from_utf8(line).map_err(|_| syntax("a command that is neither ASCII nor UTF-8"))?;
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut upper = [0_u8; 8];
        let verb = match upper.get_mut(..verb.len()) {
            Some(upper) => {
                upper.copy_from_slice(verb.as_bytes());
                upper.make_ascii_uppercase();
                &*upper
            }
            None => &[],
        };
        match verb {
            b"MAIL" => mail(rest),
            b"RCPT" => rcpt(rest),
            b"EHLO" => name(rest).map(Command::Ehlo),
            b"HELO" => name(rest).map(Command::Helo),
            b"LHLO" => name(rest).map(Command::Lhlo),
            b"DATA" => bare(rest, Command::Data),
            b"RSET" => bare(rest, Command::Rset),
            b"QUIT" => bare(rest, Command::Quit),
            b"STARTTLS" => bare(rest, Command::StartTls),
            b"NOOP" => Ok(Command::Noop),
            b"HELP" => Ok(Command::Help),
            b"VRFY" if !rest.is_empty() => Ok(Command::Vrfy),
            b"EXPN" if !rest.is_empty() => Ok(Command::Expn),
            b"VRFY" | b"EXPN" => Err(argument("an argument is missing")),
            b"AUTH" => auth(rest),
            b"XCLIENT" => xclient::attributes(rest).map(Command::XClient),
            b"XFORWARD" => xforward::attributes(rest).map(Command::XForward),
            b"BDAT" => Ok(Command::Bdat(bdat(rest))),
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" | b"DELETE" | b"PATCH" => Ok(Command::Http),
            _ => Err(syntax("command not recognised")),
        }
    }
}

fn syntax(text: &str) -> Reply {
    Reply::new(500, Enhanced(5, 5, 2), text)
}

pub(crate) fn argument(text: &str) -> Reply {
    Reply::new(501, Enhanced(5, 5, 4), text)
}

fn bare(rest: &str, command: Command) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(argument("this command takes no argument")) }
}

fn name(rest: &str) -> Result<String, Reply> {
    // Names are not judged further: many real clients send one that is no domain, and nothing is decided by it.
    if (1..=NAME_OCTETS).contains(&rest.len()) && rest.bytes().all(|octet| octet.is_ascii_graphic()) {
        Ok(rest.to_owned())
    } else {
        Err(argument("give your name as one domain or address literal"))
    }
}

/// `chunk-size [SP "LAST"]`, nothing else (RFC 3030 section 2).
fn bdat(rest: &str) -> Option<(u64, bool)> {
    let (size, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((size, last)) => (size, last.eq_ignore_ascii_case("LAST").then_some(true)?),
    };
    let digits = (1..=20).contains(&size.len()) && size.bytes().all(|octet| octet.is_ascii_digit());
    Some((digits.then(|| size.parse().ok())??, last))
}

fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => {
            Ok(Command::Auth(mechanism.to_owned(), initial.map(|initial| Zeroizing::new(initial.to_owned()))))
        }
        _ => Err(argument("write AUTH MECHANISM, with or without an initial response")),
    }
}

fn mail(rest: &str) -> Result<Command, Reply> {
    let path = after_keyword(rest, "FROM:").ok_or_else(|| argument("write MAIL FROM:<user@example.org>"))?;
    let (path, parameters) =
        split_path(path).ok_or_else(|| argument("write MAIL FROM:<user@example.org>, with the brackets"))?;
    let reverse_path = if path.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Mailbox(
            mailbox(path).map_err(|hint| Reply::new(553, Enhanced(5, 1, 7), format!("bad sender address: {hint}")))?,
        )
    };
    Ok(Command::Mail(reverse_path, mail_parameters(parameters)?))
}

fn rcpt(rest: &str) -> Result<Command, Reply> {
    let path = after_keyword(rest, "TO:").ok_or_else(|| argument("write RCPT TO:<user@example.org>"))?;
    let (path, parameters) =
        split_path(path).ok_or_else(|| argument("write RCPT TO:<user@example.org>, with the brackets"))?;
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(
            mailbox(path)
                .map_err(|hint| Reply::new(553, Enhanced(5, 1, 3), format!("bad recipient address: {hint}")))?,
        )
    };
    Ok(Command::Rcpt(forward_path, rcpt_parameters(parameters)?))
}

/// Spaces after the colon are against RFC 5321 section 3.3, and many devices send one.
fn after_keyword<'a>(rest: &'a str, keyword: &str) -> Option<&'a str> {
    let (found, path) = rest.split_at_checked(keyword.len())?;
    found.eq_ignore_ascii_case(keyword).then(|| path.trim_start_matches(' '))
}

/// `<path> parameters` to both, the brackets taken off; a `>` in a quoted local part does not end the path.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let path = text.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = path.find(|character| {
        let ends = character == '>' && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        ends
    })?;
    let (path, rest) = path.split_at_checked(end)?;
    let rest = rest.strip_prefix('>')?;
    if rest.is_empty() || rest.starts_with(' ') { Some((path, rest)) } else { None }
}

/// A mailbox after an optional source route, which is checked and dropped (RFC 5321 appendix F.2).
fn mailbox(path: &str) -> Result<Mailbox, &'static str> {
    let mut rest = path;
    let mut routed = false;
    while let Some(hop) = rest.strip_prefix('@') {
        let mut in_brackets = false;
        let end = hop
            .find(|character| {
                in_brackets = (in_brackets || character == '[') && character != ']';
                !in_brackets && matches!(character, ',' | ':')
            })
            .ok_or("a source route ends with a colon")?;
        let (domain, after) = hop.split_at_checked(end).ok_or("a source route names domains")?;
        Domain::parse(domain).map_err(|error| error.hint)?;
        let goes_on = after.starts_with(',');
        rest = after.get(1..).unwrap_or_default();
        routed = true;
        if !goes_on {
            break;
        }
    }
    if routed && rest.starts_with('@') {
        return Err("a source route ends with a colon and a mailbox");
    }
    Mailbox::parse(rest).map_err(|error| error.hint)
}

fn unknown(keyword: &str) -> Reply {
    Reply::new(555, Enhanced(5, 5, 4), format!("parameter {keyword} is not known"))
}

fn wrong(keyword: &str, expected: &str) -> Reply {
    argument(&format!("{keyword} is {expected}, once"))
}

/// Sets what was not set before; a second time is an error.
fn once<T>(slot: &mut Option<T>, value: Option<T>, keyword: &str, expected: &str) -> Result<(), Reply> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(wrong(keyword, expected)),
    }
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(' ').filter(|parameter| !parameter.is_empty()).map(|parameter| match parameter.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (parameter, None),
    })
}

fn mail_parameters(text: &str) -> Result<MailParameters, Reply> {
    let mut found = MailParameters::default();
    let (mut body, mut smtputf8, mut auth) = (None, None, None);
    for (keyword, value) in parameters(text) {
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => once(&mut found.size, value.and_then(size), "SIZE", "a number of up to 20 digits")?,
            "BODY" => once(&mut body, value.and_then(self::body), "BODY", "7BIT or 8BITMIME")?,
            "SMTPUTF8" => once(&mut smtputf8, value.is_none().then_some(()), "SMTPUTF8", "without a value")?,
            "RET" => once(&mut found.ret, value.and_then(ret), "RET", "FULL or HDRS")?,
            "ENVID" => {
                once(&mut found.envid, value.and_then(envid), "ENVID", "xtext of up to 100 printable characters")?
            }
            // RFC 4954 section 5: who submitted it first; nothing is decided by it.
            "AUTH" => once(&mut auth, value.and_then(xtext).map(|_| ()), "AUTH", "<> or an address in xtext")?,
            _ => return Err(unknown(keyword)),
        }
    }
    found.body = body.unwrap_or_default();
    found.smtputf8 = smtputf8.is_some();
    Ok(found)
}

fn rcpt_parameters(text: &str) -> Result<RcptParameters, Reply> {
    let mut found = RcptParameters::default();
    for (keyword, value) in parameters(text) {
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => once(
                &mut found.notify,
                value.and_then(notify),
                "NOTIFY",
                "NEVER, or a list of SUCCESS, FAILURE, DELAY",
            )?,
            "ORCPT" => once(&mut found.orcpt, value.and_then(orcpt), "ORCPT", "type;xtext of up to 500 octets")?,
            _ => return Err(unknown(keyword)),
        }
    }
    Ok(found)
}

fn size(value: &str) -> Option<u64> {
    // RFC 1870 section 3 allows 20 digits; what exceeds 64 bits exceeds every limit too.
    ((1..=20).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit()))
        .then(|| value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Option<Body> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(Body::SevenBit),
        "8BITMIME" => Some(Body::EightBitMime),
        _ => None,
    }
}

fn ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Headers),
        _ => None,
    }
}

fn envid(value: &str) -> Option<String> {
    let decoded = (value.len() <= ENVID_OCTETS).then(|| xtext(value)).flatten()?;
    // RFC 3461 section 4.4: printable characters only, encoded or not (A15).
    (!decoded.is_empty() && decoded.bytes().all(|octet| matches!(octet, b' '..=b'~'))).then_some(decoded)
}

fn notify(value: &str) -> Option<Notify> {
    let mut notify = Notify { success: false, failure: false, delay: false };
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(notify);
    }
    for when in value.split(',') {
        let flag = match when.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut notify.success,
            "FAILURE" => &mut notify.failure,
            "DELAY" => &mut notify.delay,
            _ => return None,
        };
        *flag = true;
    }
    Some(notify)
}

/// `type;xtext` as sent. What the xtext means is checked for control characters, since a DSN writes it out (A15).
fn orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let is_atom = !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let is_clean = |text: String| !text.is_empty() && !text.chars().any(char::is_control);
    // RFC 6533 section 3: the type utf-8 may carry UTF-8 as it is.
    let is_ascii = value.is_ascii() || kind.eq_ignore_ascii_case("utf-8");
    (value.len() <= ORCPT_OCTETS && is_atom && is_ascii && xtext(address).is_some_and(is_clean))
        .then(|| value.to_owned())
}

/// xtext (RFC 3461 section 4) to the text it stands for.
pub(crate) fn xtext(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let digit = |octet: u8| char::from(octet).to_digit(16).filter(|_| !octet.is_ascii_lowercase());
                let (high, low) = (digit(octets.next()?)?, digit(octets.next()?)?);
                decoded.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'=' | b' ' => return None,
            _ => decoded.push(octet),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command, u16> {
        Command::parse(line.as_bytes()).map_err(|reply| reply.code)
    }

    fn address(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn verbs_in_any_case() {
        assert_eq!(parse("ehlo mx.example.org"), Ok(Command::Ehlo("mx.example.org".into())));
        assert_eq!(parse("HELO under_score"), Ok(Command::Helo("under_score".into())));
        assert_eq!(parse("Lhlo [127.0.0.1]"), Ok(Command::Lhlo("[127.0.0.1]".into())));
        assert_eq!(parse("data "), Ok(Command::Data));
        assert_eq!(parse("STARTTLS"), Ok(Command::StartTls));
        assert_eq!(parse("NOOP whatever"), Ok(Command::Noop));
        assert_eq!(parse("VRFY user"), Ok(Command::Vrfy));
        assert_eq!(parse("BDAT 5 last"), Ok(Command::Bdat(Some((5, true)))));
        assert_eq!(parse("bdat 0"), Ok(Command::Bdat(Some((0, false)))));
        for wrong in
            ["BDAT", "BDAT LAST", "BDAT -1", "BDAT +1", "BDAT 1 LAST x", "BDAT 1  LAST", "BDAT 18446744073709551616"]
        {
            assert_eq!(parse(wrong), Ok(Command::Bdat(None)), "{wrong}");
        }
        assert_eq!(parse("GET / HTTP/1.1"), Ok(Command::Http));
    }

    #[test]
    fn paths_and_parameters() {
        let Ok(Command::Mail(path, parameters)) =
            parse("mail from:<a@example.org> SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B314")
        else {
            panic!()
        };
        assert_eq!(path, ReversePath::Mailbox(address("a@example.org")));
        let expected = MailParameters {
            size: Some(1000),
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+314".into()),
            client: None,
        };
        assert_eq!(parameters, expected);
        assert_eq!(parse("MAIL FROM:<>"), Ok(Command::Mail(ReversePath::Null, MailParameters::default())));
        assert_eq!(parse("MAIL FROM: <>"), Ok(Command::Mail(ReversePath::Null, MailParameters::default())));
        let Ok(Command::Rcpt(path, parameters)) =
            parse("RCPT TO:<b@example.org> NOTIFY=SUCCESS,delay ORCPT=rfc822;c+2Bd@example.org")
        else {
            panic!()
        };
        assert_eq!(path, ForwardPath::Mailbox(address("b@example.org")));
        assert_eq!(parameters.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(parameters.orcpt.as_deref(), Some("rfc822;c+2Bd@example.org"));
        assert_eq!(
            parse("RCPT TO:<Postmaster>"),
            Ok(Command::Rcpt(ForwardPath::Postmaster, RcptParameters::default()))
        );
        for (line, mailbox) in [
            (r#"RCPT TO:<"a> b\"@"@example.org>"#, r#""a> b\"@"@example.org"#),
            ("RCPT TO:<@one.example,@[IPv6:::1]:a@example.org>", "a@example.org"),
            ("RCPT TO:<a@[127.0.0.1]>", "a@[127.0.0.1]"),
            ("RCPT TO:<user%there@example.org>", "user%there@example.org"),
        ] {
            assert_eq!(
                parse(line),
                Ok(Command::Rcpt(ForwardPath::Mailbox(address(mailbox)), RcptParameters::default())),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_wrong_gets_its_code() {
        for (line, code) in [
            ("", 500),
            (" NOOP", 500),
            ("NOOPE", 500),
            ("XNONSENSE-OF-ANY-LENGTH", 500),
            ("NOOP\0", 500),
            ("NOOP\rRSET", 500),
            ("EHLO", 501),
            ("EHLO two names", 501),
            ("EHLO ü", 501),
            ("DATA x", 501),
            ("STARTTLS x", 501),
            ("RSET x", 501),
            ("VRFY", 501),
            ("MAIL", 501),
            ("MAIL FROM:a@b", 501),
            ("MAIL FROM:<a@b", 501),
            ("MAIL FROM:<a@b>SIZE=1", 501),
            ("MAIL FROM <a@b>", 501),
            ("MAIL TO:<a@b>", 501),
            ("MAIL FROM:<a>", 553),
            ("MAIL FROM:<@a>", 553),
            ("MAIL FROM:<a@-b>", 553),
            ("RCPT TO:<>", 553),
            ("RCPT TO:<a@b@c>", 553),
            ("RCPT TO:<@one,two:a@b>", 553),
            ("RCPT TO:<@one,@two@b>", 553),
            ("MAIL FROM:<> SIZE", 501),
            ("MAIL FROM:<> SIZE=", 501),
            ("MAIL FROM:<> SIZE=-1", 501),
            ("MAIL FROM:<> SIZE=1 SIZE=1", 501),
            ("MAIL FROM:<> SMTPUTF8=1", 501),
            ("MAIL FROM:<> BODY=BINARYMIME", 501),
            ("MAIL FROM:<> RET=SOME", 501),
            ("MAIL FROM:<> ENVID=+0D+0A", 501),
            ("MAIL FROM:<> ENVID=+2b", 501),
            ("MAIL FROM:<> ENVID=+2", 501),
            ("MAIL FROM:<> AUTH", 501),
            ("MAIL FROM:<> =", 555),
            ("RCPT TO:<a@b> SIZE=1", 555),
            ("RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", 501),
            ("RCPT TO:<a@b> ORCPT=rfc822", 501),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+0Ab", 501),
        ] {
            assert_eq!(parse(line).unwrap_err(), code, "{line:?}");
        }
        assert_eq!(Command::parse(b"MAIL FROM:<\xff@b>").unwrap_err().code, 500);
        assert!(matches!(
            parse("MAIL FROM:<> SIZE=99999999999999999999"),
            Ok(Command::Mail(_, MailParameters { size: Some(u64::MAX), .. }))
        ));
    }

    #[test]
    fn replies_on_the_wire() {
        let write = |reply: Reply| {
            let mut out = bytes::BytesMut::new();
            reply.write_to(&mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(write(Reply::new(250, Enhanced(2, 0, 0), "ok")), "250 2.0.0 ok\r\n");
        let lines = vec!["a".into(), "b\r\n250 c\u{1b}ü".into()];
        assert_eq!(
            write(Reply { code: 550, enhanced: Some(Enhanced(5, 7, 1)), lines }),
            "550-5.7.1 a\r\n550 5.7.1 b??250 c??\r\n"
        );
        assert_eq!(write(Reply { code: 7, enhanced: None, lines: vec![] }), "200 \r\n");
        let long = write(Reply::new(550, Enhanced(5, 7, 1), "x".repeat(4000)));
        assert_eq!((long.len(), long.ends_with("x\r\n")), (512, true));
    }

    proptest! {
        #[test]
        fn a15_a_command_never_carries_control_characters_on(line in "(MAIL FROM:|RCPT TO:|EHLO )<?[\"a@.+\\\\ \r\n\0\u{85}=D0-9A<>;]{0,24}>?( ENVID=[+0-9A-Fa]{0,8}| ORCPT=rfc822;[+0-9A-Fa]{0,8})?") {
            if let Ok(command) = Command::parse(line.as_bytes()) {
                let clean = match &command {
                    Command::Mail(path, parameters) => format!("{path}{:?}", parameters.envid),
                    Command::Rcpt(ForwardPath::Mailbox(mailbox), parameters) => format!("{mailbox}{}", parameters.orcpt.clone().unwrap_or_default()),
                    Command::Ehlo(name) => name.clone(),
                    _ => String::new(),
                };
                prop_assert!(!clean.chars().any(char::is_control));
            }
        }
    }
}
