//! What samotop read of a client, as command lines of SMTP again. Nothing that it left in them can end a line or a path early (A15).

use std::net::{Ipv4Addr, SocketAddr};

use samotop_core::io::ConnectionInfo;
use samotop_core::smtp::SmtpPath;
use samotop_core::smtp::command::SmtpMail;

use crate::address::Mailbox;
use crate::smtp::command::{Enhanced, Reply};

/// EHLO or HELO with the client's name.
///
/// # Errors
/// 501: no name, or one that is more than a word.
pub(super) fn hello(name: Option<&str>, extended: bool) -> Result<String, Reply> {
    let name = name.unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(Reply::new(501, Enhanced(5, 5, 4), "give your name as one domain or address literal"));
    }
    Ok(format!("{} {name}", if extended { "EHLO" } else { "HELO" }))
}

/// MAIL with its parameters; what they mean our session judges.
///
/// # Errors
/// 502: SEND, SOML or SAML (RFC 5321 section 4.5.1 has no use for them). 553: no address. 501: a parameter that is more than a word.
pub(super) fn mail(mail: &SmtpMail) -> Result<String, Reply> {
    let SmtpMail::Mail(path, parameters) = mail else {
        return Err(Reply::new(502, Enhanced(5, 5, 1), "a mail begins with MAIL"));
    };
    let mut line = match path {
        SmtpPath::Null => "MAIL FROM:<>".to_owned(),
        SmtpPath::Postmaster => return Err(bad_sender("it has no domain")),
        SmtpPath::Mailbox { .. } => format!("MAIL FROM:<{}>", mailbox(path).map_err(bad_sender)?),
    };
    for parameter in parameters {
        if parameter.is_empty() || parameter.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(Reply::new(501, Enhanced(5, 5, 4), "a parameter of MAIL is one word"));
        }
        line.push(' ');
        line.push_str(parameter);
    }
    Ok(line)
}

/// RCPT. Its parameters samotop keeps to itself.
///
/// # Errors
/// 553: no address.
pub(super) fn rcpt(path: &SmtpPath) -> Result<String, Reply> {
    match path {
        SmtpPath::Null => Err(bad_recipient("it is empty")),
        SmtpPath::Postmaster => Ok("RCPT TO:<postmaster>".to_owned()),
        SmtpPath::Mailbox { .. } => Ok(format!("RCPT TO:<{}>", mailbox(path).map_err(bad_recipient)?)),
    }
}

/// A source route is dropped (RFC 5321 appendix F.2).
fn mailbox(path: &SmtpPath) -> Result<Mailbox, &'static str> {
    let SmtpPath::Mailbox { name, host, .. } = path else { return Err("it has no domain") };
    Mailbox::parse(&format!("{name}@{host}")).map_err(|error| error.hint)
}

fn bad_sender(hint: &str) -> Reply {
    Reply::new(553, Enhanced(5, 1, 7), format!("bad sender address: {hint}"))
}

fn bad_recipient(hint: &str) -> Reply {
    Reply::new(553, Enhanced(5, 1, 3), format!("bad recipient address: {hint}"))
}

/// The client's address; `None`: it has none that can be read (a socket in the file system), and nothing may be believed of it.
pub(super) fn client(connection: &ConnectionInfo) -> Option<SocketAddr> {
    let address: SocketAddr = connection.peer_addr.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Stands for a client without an address.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;
    use samotop_core::smtp::SmtpHost;

    fn path(name: &str, host: SmtpHost) -> SmtpPath {
        SmtpPath::Mailbox { name: name.into(), host, relays: vec![SmtpHost::Domain("via.example".into())] }
    }

    fn domain(name: &str) -> SmtpHost {
        SmtpHost::Domain(name.into())
    }

    #[test]
    fn a15_no_octet_of_a_client_ends_a_line_or_a_path() {
        for name in ["a\r\nRCPT TO:<x", "a> ORCPT=rfc822;", "a b", "a@b", "", "a\0"] {
            let path = path(name, domain("ours.example"));
            assert_eq!(rcpt(&path).map_err(|reply| reply.code), Err(553), "{name:?}");
            let mail = mail(&SmtpMail::Mail(path, Vec::new()));
            assert_eq!(mail.map_err(|reply| reply.code), Err(553), "{name:?}");
        }
        for host in ["b\r\nDATA", "b> SIZE=1", "b c", ""] {
            assert!(rcpt(&path("a", domain(host))).is_err(), "{host:?}");
            assert!(hello(Some(host), true).is_err(), "{host:?}");
        }
        for parameter in ["SIZE=1\r\nRSET", "SIZE=1 BODY=7BIT", "", "\u{a0}"] {
            let mail = mail(&SmtpMail::Mail(SmtpPath::Null, vec![parameter.into()]));
            assert_eq!(mail.map_err(|reply| reply.code), Err(501), "{parameter:?}");
        }
        assert_eq!(hello(None, true).map_err(|reply| reply.code), Err(501));
    }

    #[test]
    fn what_is_good_comes_through_and_source_routes_do_not() {
        assert_eq!(hello(Some("[192.0.2.1]"), false).unwrap(), "HELO [192.0.2.1]");
        assert_eq!(rcpt(&path("anna", domain("ours.example"))).unwrap(), "RCPT TO:<anna@ours.example>");
        assert_eq!(rcpt(&SmtpPath::Postmaster).unwrap(), "RCPT TO:<postmaster>");
        assert_eq!(mail(&SmtpMail::Mail(SmtpPath::Null, vec!["SIZE=5".into()])).unwrap(), "MAIL FROM:<> SIZE=5");
        let literal = path("a", SmtpHost::Ipv4(Ipv4Addr::LOCALHOST));
        let line = mail(&SmtpMail::Mail(literal, vec!["BODY=8BITMIME".into(), "SMTPUTF8".into()])).unwrap();
        assert_eq!(line, "MAIL FROM:<a@[127.0.0.1]> BODY=8BITMIME SMTPUTF8");
        for (mail_, code) in
            [(SmtpMail::Soml(SmtpPath::Null, Vec::new()), 502), (SmtpMail::Mail(SmtpPath::Postmaster, Vec::new()), 553)]
        {
            assert_eq!(mail(&mail_).map_err(|reply| reply.code), Err(code));
        }
        assert_eq!(rcpt(&SmtpPath::Null).map_err(|reply| reply.code), Err(553));
    }

    #[test]
    fn a21_a_client_has_an_address_or_none() {
        let at = |text: &str| client(&ConnectionInfo::new(String::new(), text.into()));
        assert_eq!(at("[::ffff:192.0.2.7]:25"), Some("192.0.2.7:25".parse().unwrap()));
        assert_eq!(at("[2001:db8::1]:2525"), Some("[2001:db8::1]:2525".parse().unwrap()));
        for nothing in ["", "/run/samotop.sock", "192.0.2.7"] {
            assert_eq!(at(nothing), None);
        }
    }
}
