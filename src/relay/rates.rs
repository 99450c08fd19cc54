//! How much mail clients and users bring: a bucket each, that fills by time; in bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::listen::{Peer, client_of};
use super::refusal::Refusal;
use crate::config;
use crate::metrics::{Label, Metered, Whose};

/// Buckets that are kept; beyond that the fullest half goes, which is nearest to none.
const KEPT: usize = 100_000;

/// Of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Client(IpAddr),
    User(String),
}

/// What came, of everybody, and when each bucket will be full again: one that is full is not kept.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<(Who, Metered), Instant>>);

impl Rates {
    /// Takes one out of the peer's bucket.
    ///
    /// # Errors
    /// The bucket is empty: whose it is, and the refusal, which says when to come back.
    pub fn take(
        &self,
        peer: &Peer,
        what: Metered,
        rates: &config::Rates,
        now: Instant,
    ) -> Result<(), (Whose, Refusal)> {
        let (of_user, of_client) = match what {
            Metered::Mails => (rates.mails_per_user, rates.mails_per_client),
            Metered::Recipients => (rates.recipients_per_user, rates.recipients_per_client),
        };
        let (who, whose, rate) = match (&peer.user, of_user, of_client) {
            (Some(user), Some(rate), _) => (Who::User(user.to_ascii_lowercase()), Whose::User, rate),
            (.., Some(rate)) if !peer.trusted || rates.for_trusted => {
                (Who::Client(client_of(peer.address.ip())), Whose::Client, rate)
            }
            _ => return Ok(()),
        };
        let wait = self.take_one((who, what), rate, now);
        wait.map_err(|wait| (whose, Refusal::TooFast { whose: whose.word(), what: what.word(), wait }))
    }

    fn take_one(&self, key: (Who, Metered), rate: config::Rate, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.get(&key).map_or(now, |at| (*at).max(now));
        let after = full_at.saturating_duration_since(now) + rate.step();
        if let Some(wait) = after.checked_sub(rate.per()).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        make_room(&mut buckets, &key, now);
        buckets.insert(key, now + after);
        Ok(())
    }
}

fn make_room(buckets: &mut HashMap<(Who, Metered), Instant>, key: &(Who, Metered), now: Instant) {
    if buckets.len() < KEPT || buckets.contains_key(key) {
        return;
    }
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() < KEPT {
        return;
    }
    let mut all: Vec<Instant> = buckets.values().copied().collect();
    let (_, middle, _) = all.select_nth_unstable(KEPT / 2);
    let middle = *middle;
    buckets.retain(|_, full_at| *full_at > middle);
    if buckets.len() >= KEPT {
        // All alike.
        buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Direction, Listener, Rate};

    fn peer(address: &str, user: Option<&str>, trusted: bool) -> Peer {
        Peer {
            address: format!("{address}:25").parse().unwrap(),
            helo: "x".into(),
            extended: true,
            tls: false,
            listener: Arc::new(Listener::new("l", "127.0.0.1:0".parse().unwrap(), Direction::Inbound)),
            trusted,
            user: user.map(str::to_owned),
            sends_as: Arc::default(),
            certified: false,
        }
    }

    fn limits() -> config::Rates {
        config::Rates {
            mails_per_client: Rate::parse("2/min").ok(),
            recipients_per_client: Rate::parse("3/min").ok(),
            mails_per_user: Rate::parse("1/h").ok(),
            ..config::Rates::default()
        }
    }

    /// So many at once, then one for each share of the time; the refusal says how long that is.
    #[test]
    fn a_bucket_is_emptied_at_once_and_fills_by_time() {
        let (rates, limits, start) = (Rates::default(), limits(), Instant::now());
        let client = peer("192.0.2.1", None, false);
        let at = |seconds| rates.take(&client, Metered::Mails, &limits, start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(0)), (Ok(()), Ok(())));
        let wait = |seconds| {
            (Whose::Client, Refusal::TooFast { whose: "client", what: "mails", wait: Duration::from_secs(seconds) })
        };
        assert_eq!((at(0), at(10)), (Err(wait(30)), Err(wait(20))));
        assert_eq!((at(30), at(31)), (Ok(()), Err(wait(29))));
        // After a long time it is full, and not fuller.
        assert_eq!((at(1000), at(1000), at(1000)), (Ok(()), Ok(()), Err(wait(30))));
        let reply = wait(30).1.reply();
        assert_eq!((reply.code, reply.enhanced.unwrap().to_string().as_str()), (451, "4.7.1"));
        assert!(reply.lines[0].contains("in 30 s"), "{reply}");
        assert!(rates.take(&client, Metered::Recipients, &limits, start).is_ok(), "recipients are counted apart");
    }

    #[test]
    fn who_is_counted_by_what() {
        let (rates, limits, now) = (Rates::default(), limits(), Instant::now());
        let take = |peer: &Peer, limits: &config::Rates| {
            rates.take(peer, Metered::Mails, limits, now).map_err(|(whose, _)| whose)
        };
        for (address, expected) in [
            ("[2001:db8::1]", Ok(())),
            ("[2001:db8::2]", Ok(())),
            ("[2001:db8::3]", Err(Whose::Client)),
            ("[2001:db8:0:1::1]", Ok(())),
        ] {
            assert_eq!(take(&peer(address, None, false), &limits), expected, "{address}: a /64 is one client");
        }
        // A user is one wherever he is, and nobody else there is counted with him.
        assert_eq!(take(&peer("192.0.2.7", Some("Anna@x.example"), false), &limits), Ok(()));
        assert_eq!(take(&peer("192.0.2.8", Some("anna@x.example"), true), &limits), Err(Whose::User));
        assert_eq!(take(&peer("192.0.2.7", None, false), &limits), Ok(()));
        // Trusted networks only where that is said.
        let trusted = peer("192.0.2.9", None, true);
        assert!((0..10).all(|_| take(&trusted, &limits).is_ok()));
        let for_trusted = config::Rates { for_trusted: true, ..limits };
        assert_eq!([0; 3].map(|_| take(&trusted, &for_trusted)), [Ok(()), Ok(()), Err(Whose::Client)]);
    }

    #[test]
    fn memory_is_bounded_and_who_has_brought_most_stays_known() {
        let (rates, limits, now) = (Rates::default(), limits(), Instant::now());
        let busy = peer("192.0.2.1", None, false);
        (0..2).for_each(|_| rates.take(&busy, Metered::Mails, &limits, now).unwrap());
        let later = now + Duration::from_millis(1);
        for number in 0..u32::try_from(KEPT).unwrap() + 10 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
            rates.take(&peer(&address, None, false), Metered::Mails, &limits, later).unwrap();
            assert!(rates.0.lock().unwrap().len() <= KEPT);
        }
        assert!(rates.take(&busy, Metered::Mails, &limits, later).is_err());
    }
}
