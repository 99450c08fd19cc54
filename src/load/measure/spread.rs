//! A latency's distribution, summed up.

use hdrhistogram::Histogram;

/// A quantile in ten-millionths: 9,999,000 is the 99.99th percentile.
pub type TenthMillionths = u32;

/// A distribution of latencies. All times in microseconds, to 0.1 %.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: u64,
    /// Half took no longer.
    pub p50: u64,
    /// 90 % took no longer.
    pub p90: u64,
    /// 99 % took no longer.
    pub p99: u64,
    /// 99.9 % took no longer.
    pub p99_9: u64,
    /// 99.99 % took no longer.
    pub p99_99: u64,
    /// None took longer.
    pub max: u64,
    /// Quantiles and what that share stayed under, ascending: evenly spaced where the distance to 100 % is logarithmic, as far as the
    /// count tells them apart.
    pub curve: Vec<(TenthMillionths, u64)>,
}

/// Points of a curve for each factor of ten nearer to 100 %.
const PER_NINE: i32 = 10;
/// Factors of ten.
const NINES: i32 = 6;
const WHOLE: f64 = 10_000_000.0;

impl Spread {
    /// Sums up microseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile).min(histogram.max());
        let count = histogram.len();
        let mut curve: Vec<(TenthMillionths, u64)> = Vec::new();
        for step in 0..=PER_NINE * NINES {
            let distance = 10_f64.powf(-f64::from(step) / f64::from(PER_NINE));
            #[expect(clippy::cast_precision_loss, reason = "a bound of what is drawn")]
            let told_apart = distance * count as f64 >= 1.0;
            if !told_apart {
                break;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to WHOLE")]
            curve.push((((1.0 - distance) * WHOLE).round() as u32, at(1.0 - distance)));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of latencies up to a day")]
        let mean = histogram.mean().round() as u64;
        Self {
            count,
            mean,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
            curve,
        }
    }

    /// The percentiles with their names in a report, and the maximum.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.max),
        ]
    }
}
