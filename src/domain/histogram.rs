//! A compact latency histogram. Histograms of several replicas can be merged.

use std::{fmt, str::FromStr, time::Duration};

/// The number of buckets. Their bounds grow by a factor of 2^(1/4), from 1 ms to 15 min.
const BUCKETS: usize = 80;

/// The upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; BUCKETS] = bounds();

const fn bounds() -> [u64; BUCKETS] {
    const OCTAVE: [u64; 4] = [1000, 1189, 1414, 1682];
    let (mut bounds, mut index) = ([0; BUCKETS], 0);
    while index < BUCKETS {
        bounds[index] = OCTAVE[index % 4] << (index / 4);
        index += 1;
    }
    bounds
}

/// A histogram. Its text form is `bucket:count` for each non-empty bucket, separated by spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The non-empty buckets, in ascending order.
    counts: Vec<(u8, u64)>,
}

impl Histogram {
    /// Adds a latency. The last bucket has no upper bound.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros).min(BUCKETS - 1);
        self.count(u8::try_from(bucket).unwrap_or(u8::MAX), 1);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            self.count(*bucket, *count);
        }
    }

    /// The 95th percentile (nearest rank). It is the upper bound of a bucket: never below the exact value, and from 1
    /// ms to 15 min at most 19 % above it. None if the histogram is empty.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        let all: u64 = self.counts.iter().map(|(_, count)| count).sum();
        let rank = (u128::from(all) * 95).div_ceil(100);
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += u128::from(*count);
            seen >= rank
        });
        found.and_then(|(bucket, _)| BOUNDS.get(usize::from(*bucket)).copied()).map(Duration::from_micros)
    }

    fn count(&mut self, bucket: u8, count: u64) {
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(index) => self.counts[index].1 += count,
            Err(index) => self.counts.insert(index, (bucket, count)),
        }
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (bucket, count)) in self.counts.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{bucket}:{count}")?;
        }
        Ok(())
    }
}

/// A text that is not a histogram.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid histogram")]
pub struct InvalidHistogram;

impl FromStr for Histogram {
    type Err = InvalidHistogram;

    fn from_str(text: &str) -> Result<Self, InvalidHistogram> {
        let mut histogram = Self::default();
        for pair in text.split_ascii_whitespace() {
            let (bucket, count) = pair.split_once(':').ok_or(InvalidHistogram)?;
            let bucket: u8 = bucket.parse().map_err(|_| InvalidHistogram)?;
            if usize::from(bucket) >= BUCKETS {
                return Err(InvalidHistogram);
            }
            histogram.count(bucket, count.parse().map_err(|_| InvalidHistogram)?);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(micros: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for micros in micros {
            histogram.add(Duration::from_micros(*micros));
        }
        histogram
    }

    /// The nearest rank of the exact values.
    fn exact(micros: &[u64]) -> Duration {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        Duration::from_micros(sorted[(sorted.len() * 95).div_ceil(100) - 1])
    }

    #[test]
    fn the_percentile_is_the_upper_bound_of_its_bucket() {
        assert_eq!(Histogram::default().p95(), None);
        let rows = [(1, 1000), (1000, 1000), (1001, 1189), (1683, 2000), (2000, 2000), (100_000, 107_648)];
        for (took, shown) in rows {
            assert_eq!(of(&[took]).p95(), Some(Duration::from_micros(shown)), "{took}");
        }
        let mut many = vec![1000; 94];
        many.extend([50_000; 6]);
        assert_eq!(of(&many).p95(), Some(Duration::from_micros(53_824)));
        many.push(500);
        many.splice(94..100, [50_000; 5]);
        assert_eq!(of(&many).p95(), Some(Duration::from_millis(1)), "5 of 100 are above it");
    }

    #[test]
    fn latencies_above_the_last_bound_are_counted_in_the_last_bucket() {
        let longest = Duration::from_micros(BOUNDS[BUCKETS - 1]);
        assert_eq!(of(&[u64::MAX, 2_000_000_000]).p95(), Some(longest));
        assert!(longest > Duration::from_mins(14));
    }

    #[test]
    fn an_invalid_text_is_rejected() {
        for text in ["1", "a:1", "1:b", "80:1", "-1:1", "1:1,2:2"] {
            assert_eq!(text.parse::<Histogram>(), Err(InvalidHistogram), "{text}");
        }
        assert_eq!("".parse(), Ok(Histogram::default()));
    }

    proptest! {
        #[test]
        fn the_percentile_is_never_too_low_and_at_most_19_percent_too_high(
            micros in prop::collection::vec(1000_u64..800_000_000, 1..300)
        ) {
            let (exact, shown) = (exact(&micros), of(&micros).p95().unwrap());
            prop_assert!(shown >= exact && shown.as_secs_f64() <= exact.as_secs_f64() * 1.19, "{exact:?} {shown:?}");
        }

        #[test]
        fn merged_parts_equal_the_whole_also_as_text(
            one in prop::collection::vec(0_u64..900_000_000, 0..100),
            other in prop::collection::vec(0_u64..900_000_000, 0..100),
        ) {
            let mut merged: Histogram = of(&one).to_string().parse().unwrap();
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }
    }
}
