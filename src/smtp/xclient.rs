//! XCLIENT: what a trusted SMTP proxy says about its client (Postfix, XCLIENT_README). P.

use std::net::IpAddr;

use super::command::Reply;
use super::command::parse::{argument, xtext};

/// What is offered in EHLO.
pub const OFFER: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// The attributes of one command. A value that the proxy does not have, `[UNAVAILABLE]` or `[TEMPUNAVAIL]`, counts as not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientAttributes {
    /// ADDR: the client's address.
    pub address: Option<IpAddr>,
    /// PORT: the client's port.
    pub port: Option<u16>,
    /// LOGIN: `Some(None)` says that it did not authenticate.
    pub login: Option<Option<String>>,
}

/// Reads what follows the verb. `Err` is the reply, 501.
pub(super) fn attributes(rest: &str) -> Result<ClientAttributes, Reply> {
    let mut found = ClientAttributes::default();
    for (name, value) in pairs(rest, "write XCLIENT NAME=value …")? {
        match (name.as_str(), value) {
            ("ADDR", Some(value)) => found.address = Some(address(&value)?),
            ("PORT", Some(value)) => {
                found.port = Some(value.parse().map_err(|_| argument("PORT is a number of up to 65535"))?);
            }
            ("LOGIN", value) => found.login = Some(value.filter(|value| !value.is_empty())),
            // A host name decides nothing here, nor does where the client connected to; what EHLO says next holds for the others.
            ("NAME" | "DESTADDR" | "DESTPORT" | "ADDR" | "PORT" | "HELO" | "PROTO", _) => {}
            _ => return Err(argument("an attribute that was not offered")),
        }
    }
    Ok(found)
}

/// The attributes of a command, at least one and each once: names in capitals, values decoded; `None`: the peer does not have it. `Err` is
/// the reply, 501.
pub(super) fn pairs(rest: &str, form: &'static str) -> Result<Vec<(String, Option<String>)>, Reply> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    for word in rest.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').ok_or_else(|| argument(form))?;
        let name = name.to_ascii_uppercase();
        let value = xtext(value).filter(|value| value.len() <= 255 && !value.chars().any(char::is_control));
        let value = value.ok_or_else(|| argument("a value is xtext of up to 255 printable characters"))?;
        let given = !matches!(value.to_ascii_uppercase().as_str(), "[UNAVAILABLE]" | "[TEMPUNAVAIL]");
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(argument("an attribute twice"));
        }
        pairs.push((name, given.then_some(value)));
    }
    if pairs.is_empty() { Err(argument(form)) } else { Ok(pairs) }
}

pub(super) fn address(value: &str) -> Result<IpAddr, Reply> {
    let plain = match value.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => rest,
        _ => value,
    };
    let address =
        plain.parse::<IpAddr>().map_err(|_| argument("ADDR is an IPv4 address, or IPV6: and an IPv6 address"))?;
    Ok(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of XCLIENT_README, and what is refused.
    #[test]
    fn attributes_as_postfix_writes_them() {
        let read = attributes("NAME=spike.porcupine.org ADDR=168.100.3.2 PORT=1234 PROTO=ESMTP").unwrap();
        assert_eq!(read.address, Some("168.100.3.2".parse().unwrap()));
        assert_eq!((read.port, read.login), (Some(1234), None));
        let read = attributes("addr=IPv6:2001:db8::7 LOGIN=anna+40example.org helo=mx.example.org").unwrap();
        assert_eq!(read.address, Some("2001:db8::7".parse().unwrap()));
        assert_eq!(read.login, Some(Some("anna@example.org".into())));
        let read = attributes("ADDR=IPv6:::ffff:192.0.2.1 LOGIN=[UNAVAILABLE] NAME=[TEMPUNAVAIL]").unwrap();
        assert_eq!((read.address, read.login), (Some("192.0.2.1".parse().unwrap()), Some(None)));
        assert_eq!(attributes("ADDR=[UNAVAILABLE]"), Ok(ClientAttributes::default()));
        for wrong in [
            "",
            "ADDR",
            "ADDR=host",
            "ADDR=1.2.3.4 ADDR=1.2.3.4",
            "PORT=65536",
            "PORT=x",
            "LOGIN=a+0Ab",
            "LOGIN=+4",
            "SOURCE=LOCAL",
        ] {
            assert_eq!(attributes(wrong).unwrap_err().code, 501, "{wrong}");
        }
    }
}
