//! XFORWARD: what a trusted peer says of the client that a mail came from (Postfix, XFORWARD_README), and what we say of ours. P.
//!
//! It is for the log and for the Received field. Nothing is allowed or forbidden by it: that is XCLIENT's.

use std::fmt;
use std::net::IpAddr;

use super::client::xtext;
use super::command::Reply;
use super::command::parse::argument;
use super::xclient::{self, pairs};

/// What is offered in EHLO.
pub const OFFER: &str = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";
/// Octets of a value as it is sent, so that no command is over 512 octets.
const SENT: usize = 190;
/// Octets of PROTO.
const PROTOCOL: usize = 32;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The mail was submitted on the machine that tells of it.
    Local,
    /// It came over the network.
    Remote,
}

/// A client, as far as it is known: every value without control characters, at most 255 octets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// NAME: the client's host name, as the DNS tells it.
    pub name: Option<String>,
    /// ADDR.
    pub address: Option<IpAddr>,
    /// PORT.
    pub port: Option<u16>,
    /// PROTO: SMTP or ESMTP, usually; letters and digits.
    pub protocol: Option<String>,
    /// HELO: the name that it gave.
    pub helo: Option<String>,
    /// IDENT: the mail's name in the log of who tells of it.
    pub ident: Option<String>,
    /// SOURCE.
    pub source: Option<Source>,
}

/// The attributes that a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer(u8);

/// In the order of the two commands that they are sent in.
const ATTRIBUTES: [&str; 7] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

impl Offer {
    /// Out of the words behind XFORWARD in the reply to EHLO.
    pub fn read<'w>(words: impl Iterator<Item = &'w str>) -> Self {
        let place = |word: &str| ATTRIBUTES.iter().position(|name| name.eq_ignore_ascii_case(word));
        Offer(words.filter_map(place).fold(0, |bits, at| bits | 1 << at))
    }

    /// Whether anything is taken.
    pub fn is_any(self) -> bool {
        self.0 != 0
    }

    fn has(self, at: usize) -> bool {
        self.0 & 1 << at != 0
    }
}

impl Forwarded {
    /// Takes over what another command said: the later word holds, "unavailable" too.
    pub(super) fn merge(&mut self, said: Said) {
        for (name, value) in said.0 {
            match (name, value) {
                ("NAME", value) => self.name = value,
                // Checked when it was read.
                ("ADDR", value) => self.address = value.and_then(|value| xclient::address(&value).ok()),
                ("PORT", value) => self.port = value.and_then(|value| value.parse().ok()),
                ("PROTO", value) => self.protocol = value,
                ("HELO", value) => self.helo = value,
                ("IDENT", value) => self.ident = value,
                ("SOURCE", value) => self.source = value.as_deref().and_then(source),
                _ => {}
            }
        }
    }

    /// The commands that tell a server of it, without CRLF; of what the server takes, all is told, so that nothing is left of a mail before.
    /// Without a client, it was submitted here.
    pub fn commands(client: Option<&Self>, offer: Offer) -> Vec<String> {
        let none = Forwarded { source: Some(Source::Local), ..Forwarded::default() };
        let client = client.unwrap_or(&none);
        let values = [
            client.name.clone(),
            client.address.map(|address| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("IPV6:{address}"),
            }),
            client.port.map(|port| port.to_string()),
            client.protocol.clone().filter(|protocol| protocol.len() <= PROTOCOL),
            client.helo.clone(),
            client.ident.clone(),
            client.source.map(|source| if source == Source::Local { "LOCAL".into() } else { "REMOTE".into() }),
        ];
        let mut commands = [String::new(), String::new()];
        for (at, (name, value)) in ATTRIBUTES.iter().zip(values).enumerate().filter(|(at, _)| offer.has(*at)) {
            let value = value.map(|value| xtext(&value)).filter(|value| !value.is_empty() && value.len() <= SENT);
            let [first, second] = &mut commands;
            let command = if at < 3 { first } else { second };
            command.push_str(&format!(" {name}={}", value.as_deref().unwrap_or("[UNAVAILABLE]")));
        }
        commands.into_iter().filter(|words| !words.is_empty()).map(|words| format!("XFORWARD{words}")).collect()
    }
}

/// For the log: what is known of it, without control characters.
impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("unknown").escape_debug();
        let address = self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        write!(f, "{name}[{address}]")?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (word, value) in [("helo", &self.helo), ("id", &self.ident), ("proto", &self.protocol)] {
            if let Some(value) = value {
                write!(f, " {word}={}", value.escape_debug())?;
            }
        }
        Ok(())
    }
}

/// What one command said: attributes with their values, `None` where the peer does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(Vec<(&'static str, Option<String>)>);

/// Reads what follows the verb. `Err` is the reply, 501.
pub(super) fn attributes(rest: &str) -> Result<Said, Reply> {
    let mut said = Vec::new();
    for (name, value) in pairs(rest, "write XFORWARD NAME=value …")? {
        let name = ATTRIBUTES.iter().find(|known| **known == name);
        let name = *name.ok_or_else(|| argument("an attribute that was not offered"))?;
        if let Some(value) = &value {
            let good = match name {
                "ADDR" => xclient::address(value).map(|_| ()),
                "PORT" => value.parse::<u16>().map(|_| ()).map_err(|_| argument("PORT is a number of up to 65535")),
                "SOURCE" => source(value).map(|_| ()).ok_or_else(|| argument("SOURCE is LOCAL or REMOTE")),
                "PROTO" if value.len() > PROTOCOL || !value.bytes().all(|octet| octet.is_ascii_alphanumeric()) => {
                    Err(argument("PROTO is SMTP or ESMTP"))
                }
                _ => Ok(()),
            };
            good?;
        }
        said.push((name, value));
    }
    Ok(Said(said))
}

fn source(value: &str) -> Option<Source> {
    match value.to_ascii_uppercase().as_str() {
        "LOCAL" => Some(Source::Local),
        "REMOTE" => Some(Source::Remote),
        _ => None,
    }
}

/// The fuzz body of this module: what is read is told again so that it is read the same.
#[doc(hidden)]
pub fn fuzz_xforward(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(said) = attributes(text) else { return };
    let mut client = Forwarded::default();
    client.merge(said);
    assert!(!client.to_string().contains(char::is_control));
    let mut again = Forwarded::default();
    for command in Forwarded::commands(Some(&client), Offer(0x7f)) {
        assert!(command.len() <= 510 && command.bytes().all(|octet| matches!(octet, b' '..=b'~')), "{command:?}");
        let rest = command.strip_prefix("XFORWARD ").unwrap_or_default();
        let said = attributes(rest);
        assert!(said.is_ok(), "{command:?}");
        said.into_iter().for_each(|said| again.merge(said));
    }
    // What is too long to be sent is told as unavailable, and so is a word that means so.
    for (told, known) in [(&again.name, &client.name), (&again.helo, &client.helo), (&again.ident, &client.ident)] {
        assert!(told == known || told.is_none(), "{told:?} {known:?}");
    }
    assert_eq!((again.address, again.port, again.source), (client.address, client.port, client.source));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(commands: &[&str]) -> Forwarded {
        let mut client = Forwarded::default();
        commands.iter().for_each(|rest| client.merge(attributes(rest).unwrap()));
        client
    }

    /// The example of XFORWARD_README, and what is refused.
    #[test]
    fn attributes_as_postfix_writes_them() {
        let client = read(&[
            "NAME=spike.porcupine.org ADDR=168.100.189.2 PORT=1234",
            "PROTO=ESMTP HELO=spike.porcupine.org IDENT=3F1A2B SOURCE=REMOTE",
        ]);
        assert_eq!(client.address, Some("168.100.189.2".parse().unwrap()));
        assert_eq!((client.port, client.source), (Some(1234), Some(Source::Remote)));
        assert_eq!((client.protocol.as_deref(), client.ident.as_deref()), (Some("ESMTP"), Some("3F1A2B")));
        assert_eq!(
            client.to_string(),
            "spike.porcupine.org[168.100.189.2]:1234 helo=spike.porcupine.org id=3F1A2B proto=ESMTP"
        );
        let client = read(&["addr=IPv6:2001:db8::7 helo=a+2Bb", "HELO=[UNAVAILABLE] NAME=[TEMPUNAVAIL]"]);
        assert_eq!(client, Forwarded { address: Some("2001:db8::7".parse().unwrap()), ..Forwarded::default() });
        for wrong in [
            "",
            "ADDR",
            "ADDR=host",
            "PORT=70000",
            "SOURCE=HERE",
            "LOGIN=anna",
            "HELO=a HELO=b",
            "HELO=+0A",
            "PROTO=E-S",
        ] {
            assert_eq!(attributes(wrong).unwrap_err().code, 501, "{wrong}");
        }
    }

    #[test]
    fn of_what_a_server_takes_all_is_told() {
        let client =
            read(&["NAME=a.example ADDR=IPV6:2001:db8::7 PORT=25 PROTO=SMTP HELO=a+3Db IDENT=1f SOURCE=REMOTE"]);
        let all = Offer::read("NAME addr PORT PROTO HELO IDENT SOURCE FUTURE".split(' '));
        assert_eq!(
            Forwarded::commands(Some(&client), all),
            [
                "XFORWARD NAME=a.example ADDR=IPV6:2001:db8::7 PORT=25",
                "XFORWARD PROTO=SMTP HELO=a+3Db IDENT=1f SOURCE=REMOTE"
            ]
        );
        assert_eq!(
            Forwarded::commands(None, Offer::read("HELO SOURCE ADDR".split(' '))),
            ["XFORWARD ADDR=[UNAVAILABLE]", "XFORWARD HELO=[UNAVAILABLE] SOURCE=LOCAL"]
        );
        assert!(Forwarded::commands(Some(&client), Offer::default()).is_empty());
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(pairs in prop::collection::vec((prop::sample::select(ATTRIBUTES.to_vec()), "\\PC{0,12}|[0-9.:]{1,9}"), 0..8)) {
            let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", xtext(value))).collect();
            fuzz_xforward(text.join(" ").as_bytes());
        }
    }
}
