//! Looks once a day whose certificates run out, and says so: one warning, not one a user.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::store::CertStore;
use crate::store::expiry::{Summary, summary};

/// How far ahead is looked.
const AHEAD_DAYS: i64 = 30;
/// After the start, so that mail comes first.
const FIRST: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);

/// What was seen last; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Expiry(Arc<Mutex<Option<(Timestamp, Summary)>>>);

impl Expiry {
    /// For the administrator: counts, the users of ours whose certificates run out first, and when that was seen. Null before the first look.
    pub fn told(&self) -> Value {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map_or(Value::Null, |(at, sum)| {
            let first = sum
                .first
                .iter()
                .map(|(until, owner)| json!({"owner": owner.to_string(), "not_after": until.to_string()}));
            json!({
                "at": at.to_string(), "within_days": AHEAD_DAYS, "ours": sum.ours, "ours_expired": sum.ours_expired,
                "partners": sum.partners, "first": first.collect::<Vec<_>>(),
            })
        })
    }

    /// Of ours soon and expired, of partners soon, and when that was seen; `None` before the first look.
    pub fn counts(&self) -> Option<(Timestamp, [u64; 3])> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|(at, sum)| (*at, [sum.ours, sum.ours_expired, sum.partners]))
    }

    /// Looks once, keeps what is seen, and logs it.
    pub async fn look(&self, store: Arc<dyn CertStore>, now: Timestamp) {
        let within = SignedDuration::from_hours(24 * AHEAD_DAYS);
        let looked = tokio::task::spawn_blocking(move || summary(store.as_ref(), now, within)).await;
        let sum = match looked {
            Ok(Ok(sum)) => sum,
            Ok(Err(error)) => {
                return tracing::error!(%error, "the store cannot be looked through for certificates that run out");
            }
            // The process is stopping.
            Err(_) => return,
        };
        tell(&sum);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, sum));
    }

    /// Looks once a day until it is dropped.
    pub async fn watch(self, store: Arc<dyn CertStore>) {
        sleep(FIRST).await;
        loop {
            self.look(store.clone(), Timestamp::now()).await;
            sleep(DAY).await;
        }
    }
}

fn tell(sum: &Summary) {
    if sum.ours == 0 && sum.ours_expired == 0 {
        return tracing::info!(
            partners = sum.partners,
            days = AHEAD_DAYS,
            "no certificate of a user of ours runs out soon"
        );
    }
    let first: Vec<String> = sum.first.iter().map(|(until, owner)| format!("{owner} {until}")).collect();
    tracing::warn!(
        soon = sum.ours,
        expired = sum.ours_expired,
        partners = sum.partners,
        days = AHEAD_DAYS,
        first = first.join(", "),
        "certificates of users of ours run out: look with waxwing cert expiring"
    );
}
