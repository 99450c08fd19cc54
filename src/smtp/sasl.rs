//! Who is there: the server's side of PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256 (RFC 5802, RFC 7677). P.
//!
//! The owner knows the users; the machine asks it for a verdict on a password, or for a user's verifier.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Octets of a name or a password.
const OCTETS: usize = 255;
/// Iterations that a verifier may ask of a client.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=10_000_000;

/// A mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256: the password is proven, not sent.
    ScramSha256,
    /// PLAIN: name and password at once.
    Plain,
    /// LOGIN: name and password after each other, as old clients do.
    Login,
}

impl Mechanism {
    /// By its name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SCRAM-SHA-256" => Some(Mechanism::ScramSha256),
            "PLAIN" => Some(Mechanism::Plain),
            "LOGIN" => Some(Mechanism::Login),
            _ => None,
        }
    }
}

/// What a server keeps for SCRAM-SHA-256: no password can be had from it but by trying.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`, the form in which PostgreSQL keeps them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("SCRAM-SHA-256$")?.split('$');
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored_key, server_key) = parts.next()?.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|iterations| ITERATIONS.contains(iterations))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        (parts.next().is_none()).then_some(Verifier {
            iterations,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Of a password (RFC 5802 section 3). Passwords beyond ASCII are taken as they are; clients should send them in NFC.
    pub fn of(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = Zeroizing::new([0; 32]);
        let rounds = std::num::NonZeroU32::new(iterations).unwrap_or(std::num::NonZeroU32::MIN);
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            password.as_bytes(),
            salted.as_mut_slice(),
        );
        let client_key = Zeroizing::new(mac(salted.as_slice(), b"Client Key"));
        Verifier {
            iterations: rounds.get(),
            salt: salt.to_vec(),
            stored_key: sha256(client_key.as_slice()),
            server_key: mac(salted.as_slice(), b"Server Key"),
        }
    }

    /// One that nobody can answer, the same each time for a name, so that it does not show that there is no such user.
    pub fn of_nobody(user: &str, secret: &[u8; 32], iterations: u32) -> Self {
        let derive = |what: &str| mac(secret, format!("{what}\0{user}").as_bytes());
        let salt = derive("salt").get(..16).unwrap_or_default().to_vec();
        Verifier { iterations, salt, stored_key: derive("stored key"), server_key: derive("server key") }
    }
}

/// As [`Verifier::parse`] reads it.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |octets: &[u8]| STANDARD.encode(octets);
        let (stored_key, server_key) = (text(&self.stored_key), text(&self.server_key));
        write!(f, "SCRAM-SHA-256${}:{}${stored_key}:{server_key}", self.iterations, text(&self.salt))
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().unwrap_or([0; 32])
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, octets).as_ref().try_into().unwrap_or([0; 32])
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and hand on what comes back.
    Challenge(Vec<u8>),
    /// Is this his password?
    Password(String, Zeroizing<String>),
    /// What is kept for this user? [`Exchange::verifier`] goes on with it.
    Verifier(String),
    /// It is he.
    Proven(String),
    /// It is not: wrong proof, by this name.
    Wrong(String),
    /// Not the mechanism's syntax.
    Malformed(&'static str),
}

#[derive(Debug)]
enum State {
    Plain,
    LoginName,
    LoginPassword(String),
    ScramFirst,
    ScramUser(Scram),
    ScramProof(Scram, Verifier),
    /// The server's proof was sent: an empty response ends it.
    ScramEnd(String),
    Over,
}

/// What was said in SCRAM so far.
#[derive(Debug)]
struct Scram {
    user: String,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange(State);

impl Exchange {
    /// The exchange, and what comes first: a challenge, or what the client sent at once leads to.
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Step) {
        let (state, challenge) = match mechanism {
            Mechanism::Plain => (State::Plain, ""),
            Mechanism::Login => (State::LoginName, "Username:"),
            Mechanism::ScramSha256 => (State::ScramFirst, ""),
        };
        let mut exchange = Exchange(state);
        let step = match initial {
            Some(response) => exchange.response(response),
            None => Step::Challenge(challenge.into()),
        };
        (exchange, step)
    }

    /// The client's response to a challenge.
    pub fn response(&mut self, response: &[u8]) -> Step {
        let step = match std::mem::replace(&mut self.0, State::Over) {
            State::Plain => plain(response),
            State::LoginName => text(response).map(|user| {
                self.0 = State::LoginPassword(user.to_owned());
                Step::Challenge(b"Password:".to_vec())
            }),
            State::LoginPassword(user) => {
                text(response).map(|password| Step::Password(user, Zeroizing::new(password.to_owned())))
            }
            State::ScramFirst => client_first(response).map(|scram| {
                let user = scram.user.clone();
                self.0 = State::ScramUser(scram);
                Step::Verifier(user)
            }),
            State::ScramProof(scram, verifier) => client_final(response, &scram, &verifier).map(|proof| match proof {
                Some(server_final) => {
                    self.0 = State::ScramEnd(scram.user);
                    Step::Challenge(server_final)
                }
                None => Step::Wrong(scram.user),
            }),
            State::ScramEnd(user) if response.is_empty() => Ok(Step::Proven(user)),
            State::ScramEnd(_) | State::ScramUser(_) | State::Over => Err("nothing more was asked"),
        };
        step.unwrap_or_else(Step::Malformed)
    }

    /// Goes on after [`Step::Verifier`]. `nonce`: printable ASCII without a comma, not to be guessed.
    pub fn verifier(&mut self, verifier: Verifier, nonce: &str) -> Step {
        let State::ScramUser(mut scram) = std::mem::replace(&mut self.0, State::Over) else {
            return Step::Malformed("no verifier was asked for");
        };
        scram.nonce.push_str(nonce);
        let salt = STANDARD.encode(&verifier.salt);
        scram.server_first = format!("r={},s={salt},i={}", scram.nonce, verifier.iterations);
        let challenge = scram.server_first.clone().into_bytes();
        self.0 = State::ScramProof(scram, verifier);
        Step::Challenge(challenge)
    }
}

fn text(octets: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(octets).map_err(|_| "a name or a password that is not UTF-8")?;
    let fits = (1..=OCTETS).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err("a name or a password is 1 to 255 octets without control characters") }
}

/// `authzid NUL authcid NUL password` (RFC 4616 section 2).
fn plain(response: &[u8]) -> Result<Step, &'static str> {
    let parts: Vec<&[u8]> = response.split(|octet| *octet == 0).collect();
    let [authorisation, user, password] = parts.as_slice() else {
        return Err("PLAIN is authzid NUL authcid NUL password");
    };
    let (user, password) = (text(user)?, text(password)?);
    same(std::str::from_utf8(authorisation).map_err(|_| "a name that is not UTF-8")?, user)?;
    Ok(Step::Password(user.to_owned(), Zeroizing::new(password.to_owned())))
}

/// Nobody acts for another.
fn same(authorisation: &str, user: &str) -> Result<(), &'static str> {
    if authorisation.is_empty() || authorisation == user { Ok(()) } else { Err("authzid is another than authcid") }
}

/// `gs2-header n=user,r=nonce` (RFC 5802 section 7).
fn client_first(response: &[u8]) -> Result<Scram, &'static str> {
    const SYNTAX: &str = "SCRAM begins with n,,n=user,r=nonce";
    let message = std::str::from_utf8(response).ok().filter(|message| message.len() <= 4 * OCTETS).ok_or(SYNTAX)?;
    let mut parts = message.splitn(3, ',');
    let (flag, authorisation) = (parts.next().unwrap_or_default(), parts.next().ok_or(SYNTAX)?);
    let bare = parts.next().ok_or(SYNTAX)?;
    if !matches!(flag, "n" | "y") {
        return Err("channel binding was not offered");
    }
    let mut attributes = bare.split(',');
    let user = attributes.next().and_then(|word| word.strip_prefix("n=")).ok_or(SYNTAX)?;
    let nonce = attributes.next().and_then(|word| word.strip_prefix("r=")).ok_or(SYNTAX)?;
    if !(8..=128).contains(&nonce.len()) || !nonce.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err("a nonce is 8 to 128 printable characters");
    }
    let user = saslname(user)?;
    text(user.as_bytes())?;
    match authorisation.strip_prefix("a=") {
        Some(name) => same(&saslname(name)?, &user)?,
        None if authorisation.is_empty() => {}
        None => return Err(SYNTAX),
    }
    Ok(Scram {
        user,
        gs2_header: format!("{flag},{authorisation},"),
        client_first_bare: bare.to_owned(),
        server_first: String::new(),
        nonce: nonce.to_owned(),
    })
}

/// `=2C` is a comma, `=3D` an equals sign; any other `=` is wrong.
fn saslname(name: &str) -> Result<String, &'static str> {
    let decoded = name.replace("=2C", ",").replace("=3D", "=");
    let escapes = name.matches("=2C").count() + name.matches("=3D").count();
    if name.matches('=').count() == escapes { Ok(decoded) } else { Err("a name writes , as =2C and = as =3D") }
}

/// `c=channel-binding,r=nonce,p=proof`: the server's own proof where the client's is right, `None` where it is wrong.
fn client_final(response: &[u8], scram: &Scram, verifier: &Verifier) -> Result<Option<Vec<u8>>, &'static str> {
    const SYNTAX: &str = "SCRAM ends with c=binding,r=nonce,p=proof";
    let message = std::str::from_utf8(response).map_err(|_| SYNTAX)?;
    let (without_proof, proof) = message.rsplit_once(",p=").ok_or(SYNTAX)?;
    let mut attributes = without_proof.split(',');
    let binding = attributes.next().and_then(|word| word.strip_prefix("c=")).ok_or(SYNTAX)?;
    let nonce = attributes.next().and_then(|word| word.strip_prefix("r=")).ok_or(SYNTAX)?;
    let proof: [u8; 32] = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(SYNTAX)?;
    if binding != STANDARD.encode(&scram.gs2_header) || nonce != scram.nonce {
        return Ok(None);
    }
    let auth_message = format!("{},{},{without_proof}", scram.client_first_bare, scram.server_first);
    let signature = mac(&verifier.stored_key, auth_message.as_bytes());
    let mut client_key = Zeroizing::new(proof);
    client_key.iter_mut().zip(signature).for_each(|(octet, mask)| *octet ^= mask);
    let right = constant_time::verify_slices_are_equal(&sha256(client_key.as_slice()), &verifier.stored_key).is_ok();
    let server_final = || format!("v={}", STANDARD.encode(mac(&verifier.server_key, auth_message.as_bytes())));
    Ok(right.then(|| server_final().into_bytes()))
}

/// The fuzz body of this module: responses, separated by 0xFF, to each mechanism; nobody is proven by accident.
#[doc(hidden)]
pub fn fuzz_sasl(data: &[u8]) {
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
        let mut responses = data.split(|octet| *octet == 0xff);
        let (mut exchange, mut step) = Exchange::begin(mechanism, responses.next());
        loop {
            step = match step {
                Step::Challenge(_) => match responses.next() {
                    Some(response) => exchange.response(response),
                    None => break,
                },
                Step::Verifier(user) => exchange.verifier(Verifier::of_nobody(&user, &[7; 32], 4096), "nonce"),
                Step::Proven(user) => {
                    assert!(user.is_empty(), "{user:?} was proven without a key");
                    break;
                }
                Step::Password(user, password) => {
                    assert!(!user.is_empty() && !password.is_empty());
                    break;
                }
                Step::Wrong(_) | Step::Malformed(_) => break,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7677 section 3.
    #[test]
    fn the_example_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of("pencil", &salt, 4096);
        assert_eq!(Verifier::parse(&verifier.to_string()), Some(verifier.clone()));
        let (mut exchange, step) = Exchange::begin(Mechanism::ScramSha256, Some(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        assert_eq!(step, Step::Verifier("user".into()));
        let step = exchange.verifier(verifier.clone(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(step, Step::Challenge(first.into()));
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let step = exchange.response(last.as_bytes());
        assert_eq!(step, Step::Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec()));
        assert_eq!(exchange.response(b""), Step::Proven("user".into()));
        assert_eq!(exchange.response(b""), Step::Malformed("nothing more was asked"));
    }

    #[test]
    fn a_wrong_proof_proves_nothing() {
        for (nonce, binding, flip) in
            [("abcdefghS", "biws", true), ("abcdefghX", "biws", false), ("abcdefghS", "eSws", false)]
        {
            let verifier = Verifier::of("secret", b"salt salt", 4096);
            let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, Some(b"n,,n=u,r=abcdefgh"));
            let Step::Challenge(first) = exchange.verifier(verifier.clone(), "S") else { panic!() };
            let without = format!("c={binding},r={nonce}");
            let message = format!("n=u,r=abcdefgh,{},{without}", String::from_utf8(first).unwrap());
            let mut salted = [0; 32];
            let rounds = std::num::NonZeroU32::new(4096).unwrap();
            aws_lc_rs::pbkdf2::derive(
                aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
                rounds,
                b"salt salt",
                b"secret",
                &mut salted,
            );
            let mut proof = mac(&salted, b"Client Key");
            proof.iter_mut().zip(mac(&verifier.stored_key, message.as_bytes())).for_each(|(a, b)| *a ^= b);
            proof[0] ^= u8::from(flip);
            let response = format!("{without},p={}", STANDARD.encode(proof));
            assert_eq!(exchange.response(response.as_bytes()), Step::Wrong("u".into()), "{without}");
        }
    }

    #[test]
    fn passwords_in_plain_and_login() {
        let password = |user: &str, password: &str| Step::Password(user.into(), Zeroizing::new(password.into()));
        let begin = |mechanism, initial| Exchange::begin(mechanism, initial);
        assert_eq!(begin(Mechanism::Plain, Some(b"\0anna\0geheim")).1, password("anna", "geheim"));
        assert_eq!(begin(Mechanism::Plain, Some(b"anna\0anna\0geheim")).1, password("anna", "geheim"));
        let (mut exchange, step) = begin(Mechanism::Login, None);
        assert_eq!(step, Step::Challenge(b"Username:".to_vec()));
        assert_eq!(exchange.response(b"anna"), Step::Challenge(b"Password:".to_vec()));
        assert_eq!(exchange.response(b"geheim"), password("anna", "geheim"));
        for wrong in [
            &b""[..],
            b"anna\0geheim",
            b"bob\0anna\0geheim",
            b"\0\0geheim",
            b"\0anna\0",
            b"\0an\rna\0x",
            b"\0\xff\0x",
            b"\0a\0b\0c",
        ] {
            assert!(matches!(begin(Mechanism::Plain, Some(wrong)).1, Step::Malformed(_)), "{}", wrong.escape_ascii());
        }
        for wrong in [
            &b"p=tls-unique,,n=u,r=abcdefgh"[..],
            b"n,a=bob,n=anna,r=abcdefgh",
            b"n,,n=a=b,r=abcdefgh",
            b"n,,n=u,r=short",
            b"n,,m=x,n=u,r=abcdefgh",
        ] {
            assert!(
                matches!(begin(Mechanism::ScramSha256, Some(wrong)).1, Step::Malformed(_)),
                "{}",
                wrong.escape_ascii()
            );
        }
        assert_eq!(
            begin(Mechanism::ScramSha256, Some(b"y,a=a=2Cb,n=a=2Cb,r=abcdefgh")).1,
            Step::Verifier("a,b".into())
        );
    }

    #[test]
    fn verifiers_within_bounds() {
        let good = Verifier::of("x", &[1; 16], 4096).to_string();
        assert!(Verifier::parse(&good).is_some());
        for wrong in [
            good.replace("4096", "1"),
            good.replace("4096", "99999999999"),
            good.replace("SHA-256", "SHA-1"),
            format!("{good}$"),
            good.trim_end_matches('=').to_owned(),
        ] {
            assert_eq!(Verifier::parse(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_sasl(&data);
        }
        #[test]
        fn fuzz_body_holds_from_a_good_start(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            fuzz_sasl(&[b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO\xffc=biws,r=rOprNGfwEbeRWgbNEkqOnonce,p=".as_slice(), &data].concat());
        }
    }
}
