//! The PROXY protocol, versions 1 and 2: what a load balancer says about its client before the client is heard. P.
//!
//! Source: "The PROXY protocol, versions 1 & 2" of HAProxy, `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of a version 1 line, CRLF included (section 2.1).
pub const LINE_OCTETS: usize = 107;
/// Octets of what follows the fixed part of version 2: addresses, and TLVs that are skipped. HAProxy sends below 1 KiB unless it hands on
/// certificates, which nobody here reads.
pub const REST_OCTETS: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_OCTETS: usize = 16;

/// Whom a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client behind the proxy; an IPv4 address even where it was sent mapped to IPv6.
    Client(SocketAddr),
    /// The proxy itself (LOCAL: a health check), or it does not know (UNKNOWN, AF_UNSPEC): the connection's own address holds.
    Connection,
}

/// What is wrong with a header: the proxy's fault, or the listener is configured for a proxy and it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The first octets are of neither version.
    #[error("no PROXY header came first; let the proxy send it, or take its address out of `proxies`")]
    None,
    /// Not as written down.
    #[error("a PROXY header that cannot be read: {0}")]
    Malformed(&'static str),
    /// Longer than it may be.
    #[error("a PROXY header of over {0} octets")]
    TooLong(usize),
}

/// Reads the header at the start of `octets`: how long it is, and what it says. `None`: the rest is yet to come.
pub fn read(octets: &[u8]) -> Result<Option<(usize, Origin)>, ProxyError> {
    if starts_alike(octets, SIGNATURE) {
        return version_2(octets);
    }
    if starts_alike(octets, b"PROXY ") {
        return version_1(octets);
    }
    Err(ProxyError::None)
}

/// Octets still to come at least; reading no more than that never takes what is behind the header.
pub fn missing(octets: &[u8]) -> usize {
    let known = if octets.starts_with(SIGNATURE) {
        match rest_length(octets) {
            Some(rest) => FIXED_OCTETS + rest,
            None => FIXED_OCTETS,
        }
    } else if octets.starts_with(b"PROXY ") {
        octets.len() + 1
    } else {
        // Both versions are longer than the signature of the second.
        SIGNATURE.len()
    };
    known.saturating_sub(octets.len()).max(1)
}

fn starts_alike(octets: &[u8], start: &[u8]) -> bool {
    let length = octets.len().min(start.len());
    octets.get(..length) == start.get(..length)
}

fn version_1(octets: &[u8]) -> Result<Option<(usize, Origin)>, ProxyError> {
    let Some(end) = memchr::memchr(b'\n', octets.get(..LINE_OCTETS.min(octets.len())).unwrap_or_default()) else {
        return if octets.len() < LINE_OCTETS { Ok(None) } else { Err(ProxyError::TooLong(LINE_OCTETS)) };
    };
    let line = octets.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(ProxyError::Malformed("a bare LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("it is not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some((end + 1, Origin::Connection)));
    }
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok());
    let (source, destination) = (address(), address());
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(ProxyError::Malformed("two addresses were expected"));
    };
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => return Err(ProxyError::Malformed("TCP4, TCP6 or UNKNOWN was expected")),
    };
    if !fits {
        return Err(ProxyError::Malformed("an address of another family"));
    }
    let mut port = || words.next().filter(|word| is_port(word)).and_then(|word| word.parse::<u16>().ok());
    let (Some(port), Some(_)) = (port(), port()) else {
        return Err(ProxyError::Malformed("two ports were expected"));
    };
    if words.next().is_some() {
        return Err(ProxyError::Malformed("more than addresses and ports"));
    }
    Ok(Some((end + 1, Origin::Client(SocketAddr::new(source.to_canonical(), port)))))
}

/// Digits alone, no leading zero (section 2.1).
fn is_port(word: &str) -> bool {
    word.bytes().all(|octet| octet.is_ascii_digit()) && (word == "0" || !word.starts_with('0'))
}

fn rest_length(octets: &[u8]) -> Option<usize> {
    match octets.get(14..FIXED_OCTETS) {
        Some([high, low]) => Some(usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

fn version_2(octets: &[u8]) -> Result<Option<(usize, Origin)>, ProxyError> {
    let Some(rest) = rest_length(octets) else { return Ok(None) };
    if rest > REST_OCTETS {
        return Err(ProxyError::TooLong(FIXED_OCTETS + REST_OCTETS));
    }
    let (Some(command), Some(family)) = (octets.get(12), octets.get(13)) else { return Ok(None) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed("version 2 with LOCAL or PROXY was expected")),
    };
    let length = FIXED_OCTETS + rest;
    let Some(block) = octets.get(FIXED_OCTETS..length) else { return Ok(None) };
    if local {
        return Ok(Some((length, Origin::Connection)));
    }
    let origin = match family {
        0x00 => Origin::Connection,
        0x11 => {
            let address = block.first_chunk::<12>().map(|block| {
                let [a, b, c, d, _, _, _, _, high, low, _, _] = *block;
                SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
            });
            Origin::Client(address.ok_or(ProxyError::Malformed("12 octets of addresses were expected"))?)
        }
        0x21 => {
            let source = block.first_chunk::<16>().map(|source| IpAddr::from(Ipv6Addr::from(*source)).to_canonical());
            let port = block.get(32..36).and_then(|ports| ports.first_chunk::<2>()).copied().map(u16::from_be_bytes);
            let (Some(source), Some(port)) = (source, port) else {
                return Err(ProxyError::Malformed("36 octets of addresses were expected"));
            };
            Origin::Client(SocketAddr::new(source, port))
        }
        _ => return Err(ProxyError::Malformed("TCP over IPv4 or IPv6 was expected")),
    };
    Ok(Some((length, origin)))
}

/// The fuzz body of this module: a header is found at the same place however much is behind it, and not before it is whole.
#[doc(hidden)]
pub fn fuzz_proxy(data: &[u8]) {
    let Ok(Some((length, origin))) = read(data) else { return };
    assert!(length <= data.len() && length <= FIXED_OCTETS + REST_OCTETS);
    let mut so_far = 0;
    while so_far < length {
        let part = data.get(..so_far).unwrap_or_default();
        assert_eq!(read(part), Ok(None), "{so_far} of {length}");
        so_far += missing(part);
    }
    assert_eq!(so_far, length, "octets behind the header were asked for");
    assert_eq!(read(data.get(..length).unwrap_or_default()), Ok(Some((length, origin))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(text: &str) -> Origin {
        Origin::Client(text.parse().unwrap())
    }

    fn second(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, block].concat()
    }

    /// The two lines of section 2.1, UNKNOWN with anything behind it, and both families of section 2.2.
    #[test]
    fn headers_of_both_versions() {
        let v4 = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&25_u16.to_be_bytes());
        let with_tlv = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (octets, origin) in [
            (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), client("255.255.255.255:65535")),
            (b"PROXY TCP6 2001:db8::1 ::1 0 25\r\n".to_vec(), client("[2001:db8::1]:0")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 9 25\r\n".to_vec(), client("192.0.2.7:9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Connection),
            (b"PROXY UNKNOWN ffff::1 what ever\r\n".to_vec(), Origin::Connection),
            (second(0x21, 0x11, &v4), client("192.168.0.1:56324")),
            (second(0x21, 0x11, &with_tlv), client("192.168.0.1:56324")),
            (second(0x21, 0x21, &v6), client("[2001:db8::1]:25")),
            (second(0x21, 0x00, b"anything"), Origin::Connection),
            (second(0x20, 0x11, &v4), Origin::Connection),
            (second(0x20, 0x00, &[]), Origin::Connection),
        ] {
            let behind = [octets.as_slice(), b"EHLO x\r\n"].concat();
            assert_eq!(read(&behind), Ok(Some((octets.len(), origin))), "{}", octets.escape_ascii());
            fuzz_proxy(&behind);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let malformed = |octets: &[u8]| {
            let read = read(octets);
            assert!(matches!(read, Err(ProxyError::Malformed(_))), "{}: {read:?}", octets.escape_ascii());
        };
        for octets in [&b"EHLO x\r\n"[..], b"proxy TCP4", b"\r\n\r\nX"] {
            assert_eq!(read(octets), Err(ProxyError::None));
        }
        for octets in [
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \xff\r\n",
        ] {
            malformed(octets);
        }
        malformed(&second(0x11, 0x11, &[0; 12]));
        malformed(&second(0x22, 0x11, &[0; 12]));
        malformed(&second(0x21, 0x11, &[0; 11]));
        malformed(&second(0x21, 0x21, &[0; 35]));
        malformed(&second(0x21, 0x12, &[0; 12]));
        malformed(&second(0x21, 0x31, &[0; 216]));
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(read(&long), Err(ProxyError::TooLong(LINE_OCTETS)));
        // A length that is beyond all bounds is refused before its octets come.
        assert_eq!(
            read(&[SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat()),
            Err(ProxyError::TooLong(FIXED_OCTETS + REST_OCTETS))
        );
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(mut data in proptest::collection::vec(any::<u8>(), 0..80), version in 0..3) {
            let start: &[u8] = match version { 1 => b"PROXY TCP4 1.2.3.4 ", 2 => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", _ => b"" };
            data.splice(0..0, start.iter().copied());
            fuzz_proxy(&data);
        }
    }
}
