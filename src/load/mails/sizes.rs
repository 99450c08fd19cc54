//! Sizes of contents: which size a quantile of a distribution has. P.

use crate::load::scenario::Sizes;

/// The 99th percentile of the normal distribution, in standard deviations.
const NORMAL_P99: f64 = 2.326_347_874;

/// The size at a quantile, from 0 to below 1. Quantiles drawn evenly give sizes by the distribution.
pub(super) fn at(sizes: &Sizes, quantile: f64) -> usize {
    match sizes {
        Sizes::Fixed(octets) => *octets,
        Sizes::Even(from, to) => from.saturating_add(scaled(to.saturating_sub(*from), quantile)),
        Sizes::LogNormal(median, p99, most) => {
            let spread = (*p99 as f64 / *median as f64).ln() / NORMAL_P99;
            let size = *median as f64 * (spread * normal(quantile)).exp();
            // Saturating: what is no number becomes 0, what is large the largest.
            (size as usize).clamp(1, *most)
        }
        Sizes::Choice(choices) => chosen(choices, quantile),
    }
}

fn chosen(choices: &[(u32, Sizes)], quantile: f64) -> usize {
    let all: f64 = choices.iter().map(|(weight, _)| f64::from(*weight)).sum();
    let mut left = quantile * all;
    let mut last = 1;
    for (weight, sizes) in choices {
        let weight = f64::from(*weight);
        if left < weight {
            return at(sizes, left / weight);
        }
        left -= weight;
        last = at(sizes, 0.999_999);
    }
    last
}

fn scaled(octets: usize, by: f64) -> usize {
    (octets as f64 * by) as usize
}

/// The normal distribution's quantile function, by bisection of its logistic-free approximation of the error function (Abramowitz and Stegun
/// 7.1.26, error below 2e-7): sizes want no more.
fn normal(quantile: f64) -> f64 {
    let (mut low, mut high) = (-6.0_f64, 6.0_f64);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if cumulative(middle) < quantile { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

fn cumulative(deviations: f64) -> f64 {
    let x = deviations.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let error = 1.0 - series * (-x * x).exp();
    if deviations < 0.0 { (1.0 - error) / 2.0 } else { f64::midpoint(1.0, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles(sizes: &Sizes) -> Vec<usize> {
        (0..10_000).map(|number| at(sizes, (f64::from(number) + 0.5) / 10_000.0)).collect()
    }

    #[test]
    fn distributions_have_the_percentiles_they_are_described_by() {
        let near = |found: usize, wanted: usize| found.abs_diff(wanted) * 50 <= wanted;
        let office = quantiles(&Sizes::LogNormal(12 << 10, 2 << 20, 20 << 20));
        assert!(near(office[5_000], 12 << 10), "{}", office[5_000]);
        assert!(near(office[9_900], 2 << 20), "{}", office[9_900]);
        assert!(office.is_sorted() && office[9_999] <= 20 << 20 && office[0] >= 1);
        let even = quantiles(&Sizes::Even(1_000, 3_000));
        assert!(near(even[5_000], 2_000) && even[0] >= 1_000 && even[9_999] <= 3_000);
        let choice = quantiles(&Sizes::Choice(vec![(9, Sizes::Fixed(1)), (1, Sizes::Even(10, 20))]));
        assert_eq!(choice.iter().filter(|size| **size == 1).count(), 9_000);
        assert!(choice[9_000] == 10 && choice[9_999] == 19);
        assert_eq!(quantiles(&Sizes::Fixed(7)), vec![7; 10_000]);
        assert_eq!(at(&Sizes::Choice(vec![(1, Sizes::Fixed(3))]), 1.0), 3);
    }
}
