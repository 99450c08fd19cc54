//! How much mail a client and a user may bring in a time.

use std::time::Duration;

use super::reader::{Section, boolean, parsed};

/// So many in that time: as many at once, and then one each time that its share of the time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    amount: u32,
    per: Duration,
}

impl Rate {
    /// 1 to 1,000,000 in a second, minute, hour or day: `100/min`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let expected = "expected a rate such as \"100/min\": 1 to 1000000, and s, min, h or day";
        let (amount, unit) = text.split_once('/').ok_or(expected)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            "day" => 86_400,
            _ => return Err(expected),
        };
        let amount = amount.trim();
        let digits = !amount.is_empty() && amount.bytes().all(|octet| octet.is_ascii_digit());
        let amount =
            digits.then(|| amount.parse::<u32>().ok()).flatten().filter(|amount| (1..=1_000_000).contains(amount));
        Ok(Rate { amount: amount.ok_or(expected)?, per: Duration::from_secs(seconds) })
    }

    /// The time in which all of them may come.
    pub fn per(self) -> Duration {
        self.per
    }

    /// The share of the time that one takes.
    pub fn step(self) -> Duration {
        self.per / self.amount.max(1)
    }
}

/// What is limited; none by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Mails (MAIL) of a client: an IPv4 address, or an IPv6 /64.
    pub mails_per_client: Option<Rate>,
    /// Recipients (RCPT) of a client, those refused too.
    pub recipients_per_client: Option<Rate>,
    /// Mails of an authenticated user; he is then not counted by his address.
    pub mails_per_user: Option<Rate>,
    /// Recipients of an authenticated user; he is then not counted by his address.
    pub recipients_per_user: Option<Rate>,
    /// Clients in trusted networks are limited too; default no.
    pub for_trusted: bool,
}

impl Rates {
    /// Whether nothing is limited.
    pub fn are_none(&self) -> bool {
        *self == Rates { for_trusted: self.for_trusted, ..Rates::default() }
    }
}

pub(super) fn rates(section: &Section<'_, '_>) -> Rates {
    let rate = |key| section.get(key, parsed(Rate::parse));
    let rates = Rates {
        mails_per_client: rate("mails_per_client"),
        recipients_per_client: rate("recipients_per_client"),
        mails_per_user: rate("mails_per_user"),
        recipients_per_user: rate("recipients_per_user"),
        for_trusted: section.get("rates_for_trusted", boolean).unwrap_or(false),
    };
    if rates.for_trusted && rates.are_none() {
        section.complain("rates_for_trusted", "no rate beside it", "expected mails_per_client or another rate");
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        let rate = Rate::parse("100/min").unwrap();
        assert_eq!((rate.per(), rate.step()), (Duration::from_secs(60), Duration::from_millis(600)));
        assert_eq!(Rate::parse("1 / day").unwrap().step(), Duration::from_secs(86_400));
        for wrong in ["", "100", "100/", "0/min", "-1/min", "+1/min", "1000001/s", "1/week", "1/min/min", "1.5/s"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
