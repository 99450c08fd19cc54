//! Who may authenticate: a file, one user a line. `waxwing user` writes it.

use std::collections::BTreeMap;
use std::fmt;

use crate::smtp::sasl::Verifier;

/// Users by name; names are compared in ASCII lower case.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users(BTreeMap<String, User>);

/// What is kept of a user; nothing of it gives his password away but by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// A PHC string of Argon2id: for PLAIN and LOGIN.
    pub argon2: String,
    /// For SCRAM-SHA-256.
    pub scram: Option<Verifier>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

impl Users {
    /// Reads `NAME:HASH` or `NAME:HASH:VERIFIER` a line; `#` begins a comment, empty lines count for nothing. HASH is a PHC string of Argon2id,
    /// VERIFIER one of SCRAM-SHA-256. `Err`: the line, from 1, and what is expected there.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, user) = user(line).map_err(|expected| (number, expected.to_owned()))?;
            if users.insert(name.clone(), user).is_some() {
                return Err((number, format!("each user once; {name:?} is there twice")));
            }
        }
        Ok(Users(users))
    }

    /// The user of this name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// Names and what is kept, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.0.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Puts a user in, or in the place of the one of that name; says whether there was one. `Err`: what a name is.
    pub fn set(&mut self, name: &str, user: User) -> Result<bool, &'static str> {
        Ok(self.0.insert(checked(name)?, user).is_some())
    }

    /// Takes a user out; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(&name.to_ascii_lowercase()).is_some()
    }
}

/// As [`Users::parse`] reads it.
impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, user) in &self.0 {
            write!(f, "{name}:{}", user.argon2)?;
            if let Some(verifier) = &user.scram {
                write!(f, ":{verifier}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn checked(name: &str) -> Result<String, &'static str> {
    let fits = (1..=255).contains(&name.len()) && !name.starts_with('#') && name.trim() == name;
    if fits && !name.chars().any(|c| c.is_control() || c == ':') {
        Ok(name.to_ascii_lowercase())
    } else {
        Err("a name is 1 to 255 octets without colons and control characters")
    }
}

fn user(line: &str) -> Result<(String, User), &'static str> {
    let (name, rest) = line.split_once(':').ok_or("NAME:HASH, as `waxwing user set` writes it")?;
    let (hash, scram) = match rest.split_once(':') {
        Some((hash, verifier)) => {
            (hash, Some(Verifier::parse(verifier).ok_or("a verifier SCRAM-SHA-256$… behind the second colon")?))
        }
        None => (rest, None),
    };
    if !hash.starts_with("$argon2id$") || !hash.bytes().all(|octet| octet.is_ascii_graphic()) || hash.len() > 512 {
        return Err("a hash $argon2id$… behind the first colon");
    }
    Ok((checked(name)?, User { argon2: hash.to_owned(), scram }))
}

/// The fuzz body of this module: what is read is written so that it is read the same.
#[doc(hidden)]
pub fn fuzz_users(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(users) = Users::parse(text) {
        assert_eq!(Users::parse(&users.to_string()).as_ref(), Ok(&users));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaA";

    #[test]
    fn a_file_of_users() {
        let verifier = Verifier::of("x", b"salt salt", 4096);
        let text = format!("# ours\n\nAnna@Example.org:{HASH}\nbob:{HASH}:{verifier}\n");
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["anna@example.org", "bob"]);
        assert_eq!(users.get("ANNA@example.org").unwrap().argon2, HASH);
        assert_eq!(users.get("Bob").unwrap().scram, Some(verifier));
        assert_eq!(users.get("carol"), None);
        fuzz_users(text.as_bytes());
        for (wrong, line) in [
            ("anna".to_owned(), 1),
            (format!("anna:{HASH}\nANNA:{HASH}"), 2),
            ("\nanna:plain-password".to_owned(), 2),
            (format!(":{HASH}"), 1),
            (format!("anna:{HASH}:SCRAM-SHA-256$1:x$y:z"), 1),
            (format!("anna:{HASH} x"), 1),
        ] {
            assert_eq!(Users::parse(&wrong).unwrap_err().0, line, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_body_holds(name in "\\PC{0,20}", rest in "\\PC{0,20}") {
            fuzz_users(format!("{name}:{HASH}{rest}\n{name}x:{HASH}").as_bytes());
        }
    }
}
