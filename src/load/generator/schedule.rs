//! When mails fall due. P: the same seed gives the same times.

use std::time::Duration;

use crate::load::random::Random;
use crate::load::scenario::Step;

/// Times from the start of a run at which mails fall due, in order.
///
/// The rate is a function of time, its integral the mails expected so far. A mail falls due where the integral has grown by one (even), or by
/// an exponentially distributed amount (Poisson): right for ramps too.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    steps: std::vec::IntoIter<Step>,
    /// The step at hand, and the rate at its start.
    now: Option<(Step, f64)>,
    /// When it began, in seconds.
    start: f64,
    /// Seconds into it.
    at: f64,
    poisson: bool,
    random: Random,
}

impl Schedule {
    pub(super) fn new(steps: Vec<Step>, poisson: bool, seed: u64) -> Self {
        let mut steps = steps.into_iter();
        let now = steps.next().map(|step| (step, 0.0));
        Self { steps, now, start: 0.0, at: 0.0, poisson, random: Random::new(seed) }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let mut wanted = if self.poisson { -(1.0 - self.random.unit()).ln() } else { 1.0 };
        loop {
            let (step, before) = self.now?;
            let lasts = step.lasts.as_secs_f64();
            let from = if step.ramp { before } else { step.rate };
            let growth = (step.rate - from) / lasts;
            let rate = from + growth * self.at;
            if let Some(gap) = after(rate, growth, wanted).filter(|gap| self.at + gap < lasts) {
                self.at += gap;
                return Duration::try_from_secs_f64(self.start + self.at).ok();
            }
            let left = lasts - self.at;
            wanted = (wanted - left * (rate + step.rate) / 2.0).max(0.0);
            self.start += lasts;
            self.at = 0.0;
            self.now = self.steps.next().map(|next| (next, step.rate));
        }
    }
}

/// Seconds until the integral of a rate that grows evenly has grown by `wanted`; `None`: never.
fn after(rate: f64, growth: f64, wanted: f64) -> Option<f64> {
    // rate * t + growth * t^2 / 2 = wanted, in the form that loses no digits where growth is small.
    let root = rate.mul_add(rate, 2.0 * growth * wanted);
    let gap = 2.0 * wanted / (rate + root.max(0.0).sqrt());
    (root >= 0.0 && gap.is_finite()).then_some(gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, seconds: u64, ramp: bool) -> Step {
        Step { rate, lasts: Duration::from_secs(seconds), ramp }
    }

    fn within(times: &[Duration], from: f64, to: f64) -> f64 {
        times.iter().filter(|time| (from..to).contains(&time.as_secs_f64())).count() as f64
    }

    #[test]
    fn even_gaps_are_even_and_end_with_the_step() {
        let times: Vec<Duration> = Schedule::new(vec![step(10.0, 2, false)], false, 1).collect();
        assert_eq!(times.len(), 19);
        for (number, time) in (1..).zip(&times) {
            assert!((time.as_secs_f64() - f64::from(number) * 0.1).abs() < 1e-6, "{number}: {time:?}");
        }
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_the_law() {
        let times: Vec<Duration> = Schedule::new(vec![step(500.0, 100, false)], true, 7).collect();
        assert!((49_000..51_000).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.03, "{deviation} / {mean}");
    }

    #[test]
    fn ramps_grow_evenly_and_steps_jump() {
        for poisson in [false, true] {
            let steps =
                vec![step(100.0, 10, true), step(100.0, 10, false), step(1000.0, 5, false), step(10.0, 10, true)];
            let times: Vec<Duration> = Schedule::new(steps, poisson, 3).collect();
            for (from, to, mails) in [
                (0.0, 5.0, 125.0),
                (5.0, 10.0, 375.0),
                (10.0, 20.0, 1000.0),
                (20.0, 25.0, 5000.0),
                (25.0, 30.0, 3762.5),
                (30.0, 35.0, 1287.5),
            ] {
                let found = within(&times, from, to);
                let allowed = if poisson { 4.0 * f64::sqrt(mails) } else { 2.0 };
                assert!((found - mails).abs() <= allowed, "{from}-{to}: {found} for {mails}");
            }
            assert!(times.is_sorted());
        }
    }

    #[test]
    fn a_seed_gives_the_same_times() {
        let of = |seed| Schedule::new(vec![step(100.0, 3, false)], true, seed).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
