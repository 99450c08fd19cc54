//! Random numbers from a seed (SplitMix64): the same run again, never a secret.

/// A stream of numbers. Streams of different seeds are different.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one mail of a run.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        // Mixed, so that the streams of neighbours are not the same one, shifted.
        let mut mixing = Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixing.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        // 53 bits are what a f64 holds.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    /// From 0 to below `end`; 0 where that is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        // The high half of the product (Lemire): no division, evenly enough for lists.
        let product = u128::from(self.next()) * end as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// Octets.
    pub(super) fn fill(&mut self, octets: &mut [u8]) {
        for eight in octets.chunks_mut(8) {
            for (to, from) in eight.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_evenly_and_streams_differ() {
        let mut random = Random::of(1, 7);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[random.below(10)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!(Random::of(1, 7).next(), Random::of(1, 7).next());
        let firsts: std::collections::HashSet<u64> = (0..1_000).map(|number| Random::of(1, number).next()).collect();
        assert_eq!(firsts.len(), 1_000);
        assert_eq!(Random::new(1).below(0), 0);
        let mut octets = [0; 13];
        Random::new(1).fill(&mut octets);
        assert!(octets.iter().any(|octet| *octet != 0) && octets[12] != 0);
    }
}
