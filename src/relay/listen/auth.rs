//! Passwords and verifiers of a listener's users, and how often they may be guessed (A21).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::rand;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::address::Mailbox;
use crate::config::Users;
use crate::discovery::sources::login::{Login, Logins};
use crate::smtp::command::{Enhanced, Reply};
use crate::smtp::sasl::Verifier;

/// Failures within [`WINDOW`] until a client or a user is turned away.
const FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// Clients and users whose failures are kept; beyond that the oldest go.
const KEPT: usize = 100_000;
/// Passwords that are looked at at once: each takes the memory that its hash asks for.
const AT_ONCE: usize = 2;
/// Logins that directories are asked for at once.
const ASKED_AT_ONCE: usize = 32;
/// KiB that a hash may ask for.
const MEMORY: u32 = 1 << 20;
/// Iterations that a user hears of who does not exist: what `waxwing user set` gives to those who do.
const ITERATIONS: u32 = 32_768;

/// Checked in the place of a user's who does not exist, so that it takes the same time: what `waxwing user set` makes, of a random password.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let mut random = [0; 48];
    let _ = rand::fill(&mut random);
    hash(&random).unwrap_or_default()
});
static GUESSES: LazyLock<Guesses> = LazyLock::new(Guesses::default);
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);
static ASKING: Semaphore = Semaphore::const_new(ASKED_AT_ONCE);

/// A PHC string of Argon2id with the parameters that RFC 9106 recommends second (64 MiB, 3 passes).
pub fn hash(password: &[u8]) -> Option<String> {
    use argon2::password_hash::CustomizedPasswordHasher;
    let mut salt = [0; 16];
    rand::fill(&mut salt).ok()?;
    let params = argon2::Params::new(64 * 1024, 3, 1, None).ok()?;
    Argon2::default()
        .hash_password_customized(password, &salt, Some("argon2id"), Some(0x13), params)
        .ok()
        .map(|hash| hash.to_string())
}

/// The password's verifier for SCRAM-SHA-256.
pub fn verifier(password: &str) -> Option<Verifier> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).ok()?;
    Some(Verifier::of(password, &salt, ITERATIONS))
}

/// Whether the password is the user's; `Err` says why it is not taken. Takes the time of Argon2id, on another thread, whether he exists or
/// not.
pub(super) async fn judge(
    users: &Arc<Users>,
    client: IpAddr,
    user: &str,
    password: Zeroizing<String>,
) -> Result<(), NotIn> {
    GUESSES.allow(client, user)?;
    let Ok(place) = PLACES.acquire().await else { return Err(NotIn::Later(Later::Unjudged)) };
    let known = users.get(user).map(|user| user.argon2.clone());
    let right = tokio::task::spawn_blocking(move || {
        let _place = place;
        let exists = known.is_some();
        fits(&known.unwrap_or_else(|| NOBODY.clone()), password.as_bytes()) && exists
    });
    match right.await {
        Ok(true) => Ok(()),
        Ok(false) => {
            failed(client, user);
            Err(NotIn::Wrong)
        }
        Err(_) => Err(NotIn::Later(Later::Unjudged)),
    }
}

/// Whether the password is the user's by the word of a directory: who he is, and his addresses. A name that is no address is nobody's.
pub(super) async fn judge_by(
    directory: &Logins,
    client: IpAddr,
    user: &str,
    password: Zeroizing<String>,
) -> Result<(String, Option<Arc<[Mailbox]>>), NotIn> {
    GUESSES.allow(client, user)?;
    let Ok(_place) = ASKING.acquire().await else { return Err(NotIn::Later(Later::Unjudged)) };
    let wrong = || {
        failed(client, user);
        Err(NotIn::Wrong)
    };
    let Ok(mailbox) = Mailbox::parse(user) else { return wrong() };
    let may_try = |entry: &str| GUESSES.allow(client, entry).is_ok();
    match directory.log_in(&mailbox, password.as_bytes(), may_try).await {
        Ok(Login::Yes { user, addresses }) => Ok((user, Some(addresses))),
        Ok(Login::No(entry)) => {
            if !entry.is_empty() {
                count(&GUESSES.users, entry.to_ascii_lowercase());
            }
            wrong()
        }
        Ok(Login::NotNow) => Err(NotIn::Later(Later::Barred)),
        Err(why) => {
            tracing::warn!(why, "the directory of users does not say who it is");
            Err(NotIn::Later(Later::Unjudged))
        }
    }
}

fn fits(hash: &str, password: &[u8]) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    let bounded = argon2::Params::try_from(&hash).is_ok_and(|params| params.m_cost() <= MEMORY);
    bounded && Argon2::default().verify_password(password, &hash).is_ok()
}

/// The user's verifier, or one that nobody can answer; with a nonce.
pub(super) fn kept(users: &Users, client: IpAddr, user: &str) -> Result<(Verifier, String), Later> {
    static SECRET: LazyLock<Option<[u8; 32]>> = LazyLock::new(|| {
        let mut secret = [0; 32];
        rand::fill(&mut secret).ok().map(|()| secret)
    });
    GUESSES.allow(client, user)?;
    let mut nonce = [0; 18];
    let (Some(secret), Ok(())) = (*SECRET, rand::fill(&mut nonce)) else { return Err(Later::Unjudged) };
    let known = users.get(user).and_then(|user| user.scram.clone());
    let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, nonce);
    Ok((known.unwrap_or_else(|| Verifier::of_nobody(&user.to_ascii_lowercase(), &secret, ITERATIONS)), nonce))
}

/// A wrong password or proof.
pub(super) fn failed(client: IpAddr, user: &str) {
    tracing::warn!(%client, user = %user.escape_debug(), "authentication failed");
    GUESSES.failed(client, user);
}

/// Why somebody is not who he says he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotIn {
    Wrong,
    Later(Later),
}

/// Why it is not looked at now who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// Too much was wrong before.
    Barred,
    /// Nobody can say.
    Unjudged,
}

impl From<Later> for NotIn {
    fn from(later: Later) -> Self {
        Self::Later(later)
    }
}

impl Later {
    pub(super) fn reply(self) -> Reply {
        let why = match self {
            Self::Barred => "too many failures; try again in ten minutes",
            Self::Unjudged => "authentication cannot be judged now; try again later",
        };
        Reply::new(454, Enhanced(4, 7, 0), why)
    }
}

/// Failures of the last ten minutes.
#[derive(Default)]
struct Guesses {
    clients: Mutex<HashMap<IpAddr, Count>>,
    users: Mutex<HashMap<String, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    failures: u32,
    since: Instant,
}

impl Guesses {
    fn allow(&self, client: IpAddr, user: &str) -> Result<(), Later> {
        let over =
            is_over(&self.clients, &super::client_of(client)) || is_over(&self.users, &user.to_ascii_lowercase());
        if over { Err(Later::Barred) } else { Ok(()) }
    }

    fn failed(&self, client: IpAddr, user: &str) {
        count(&self.clients, super::client_of(client));
        count(&self.users, user.to_ascii_lowercase());
    }
}

fn is_over<K: Eq + Hash>(counts: &Mutex<HashMap<K, Count>>, key: &K) -> bool {
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.get(key).is_some_and(|count| count.since.elapsed() < WINDOW && count.failures >= FAILURES)
}

fn count<K: Eq + Hash + Clone>(counts: &Mutex<HashMap<K, Count>>, key: K) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if counts.len() >= KEPT && !counts.contains_key(&key) {
        counts.retain(|_, count| count.since.elapsed() < WINDOW);
        let oldest = counts.iter().min_by_key(|(_, count)| count.since).map(|(key, _)| key.clone());
        if let (true, Some(oldest)) = (counts.len() >= KEPT, oldest) {
            counts.remove(&oldest);
        }
    }
    let now = Instant::now();
    let count = counts.entry(key).or_insert(Count { failures: 0, since: now });
    if count.since.elapsed() >= WINDOW {
        *count = Count { failures: 0, since: now };
    }
    count.failures = count.failures.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    fn users() -> Arc<Users> {
        let mut users = Users::default();
        let user = User { argon2: hash(b"geheim").unwrap(), scram: verifier("geheim") };
        users.set("anna@example.org", user).unwrap();
        Arc::new(users)
    }

    #[tokio::test]
    async fn a21_five_failures_of_a_client_or_a_user_are_enough() {
        let users = users();
        let say = |client: &str, user: &str, password: &str| {
            let (users, client, user) = (Arc::clone(&users), client.parse().unwrap(), user.to_owned());
            let password = Zeroizing::new(password.to_owned());
            async move { judge(&users, client, &user, password).await }
        };
        let is_later = |verdict| verdict == Err(NotIn::Later(Later::Barred));
        assert_eq!(say("198.51.100.1", "Anna@example.org", "geheim").await, Ok(()));
        for _ in 0..5 {
            assert_eq!(say("198.51.100.1", "nobody@example.org", "geheim").await, Err(NotIn::Wrong));
        }
        assert!(is_later(say("198.51.100.1", "anna@example.org", "geheim").await), "the client has guessed enough");
        assert!(is_later(say("198.51.100.9", "nobody@example.org", "geheim").await), "the user was guessed enough");
        assert!(kept(&users, "198.51.100.1".parse().unwrap(), "anna@example.org").is_err());
        assert_eq!(say("198.51.100.2", "anna@example.org", "geheim").await, Ok(()));
    }

    #[test]
    fn a_hash_that_asks_for_too_much_fits_nothing() {
        let good = hash(b"x").unwrap();
        assert!(fits(&good, b"x") && !fits(&good, b"y"));
        assert!(!fits(&good.replace("m=65536", "m=4194304"), b"x"));
        assert!(!fits("$argon2id$v=19$m=1$", b"x") && !fits("", b""));
    }

    #[test]
    fn who_does_not_exist_has_a_verifier_that_stays() {
        let users = users();
        let salt_of = |user: &str| kept(&users, "192.0.2.3".parse().unwrap(), user).unwrap().0;
        assert_eq!(salt_of("nobody2@example.org"), salt_of("Nobody2@example.org"));
        assert_ne!(salt_of("nobody2@example.org"), salt_of("nobody3@example.org"));
        assert_eq!(Some(salt_of("anna@example.org")), users.get("anna@example.org").unwrap().scram);
    }
}
