//! Many values in a few numbers: a distribution, and a figure over the rounds of a comparison.

use serde::{Serialize, Serializer};

use crate::measure::recorded::Recorded;

/// A distribution of nanoseconds in a few numbers. `None`: the sample does not carry the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The number of samples.
    pub count: u64,
    /// Samples beyond the histogram's range. They count as its end.
    pub clipped: u64,
    /// The least value.
    pub min_ns: Option<u64>,
    /// The mean, within a thousandth.
    pub mean_ns: Option<u64>,
    /// The median, in nanoseconds.
    pub p50_ns: Option<u64>,
    /// p90, from 100 samples on.
    pub p90_ns: Option<u64>,
    /// p99, from 1,000 samples on.
    pub p99_ns: Option<u64>,
    /// p99.9, from 10,000 samples on.
    pub p999_ns: Option<u64>,
    /// p99.99, from 100,000 samples on.
    pub p9999_ns: Option<u64>,
    /// The greatest value.
    pub max_ns: Option<u64>,
    /// For p50, p90, p99, p99.9 and p99.99 the range in which the sample leaves it, at 95 %.
    #[serde(skip)]
    ranges: [Option<(u64, u64)>; 5],
}

/// The percentiles of a spread, in per cent.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

impl Spread {
    /// Summarizes a distribution.
    #[must_use]
    pub fn of(recorded: &Recorded) -> Spread {
        // The rank of a percentile is binomial: two standard deviations to each side hold 95 %.
        let range = |percentile: f64| {
            recorded.percentile(percentile)?;
            let (count, part) = (recorded.count() as f64, percentile / 100.0);
            let deviation = (count * part * (1.0 - part)).sqrt() / count;
            let at = |part: f64| recorded.histogram().value_at_quantile(part.clamp(0.0, 1.0));
            Some((at(part - 2.0 * deviation), at(part + 2.0 * deviation)))
        };
        Spread {
            count: recorded.count(),
            clipped: recorded.clipped(),
            min_ns: recorded.min(),
            mean_ns: recorded.mean().map(|mean| mean.round() as u64),
            p50_ns: recorded.percentile(50.0),
            p90_ns: recorded.percentile(90.0),
            p99_ns: recorded.percentile(99.0),
            p999_ns: recorded.percentile(99.9),
            p9999_ns: recorded.percentile(99.99),
            max_ns: recorded.max(),
            ranges: PERCENTILES.map(range),
        }
    }

    /// The range in which the sample leaves a percentile by its name, at 95 %. `None`: not a percentile, or not
    /// carried by the sample.
    #[must_use]
    pub fn range(&self, name: &str) -> Option<(u64, u64)> {
        let place = ["p50", "p90", "p99", "p999", "p9999"].into_iter().position(|known| known == name)?;
        self.ranges[place]
    }

    /// The times by their names in thresholds.
    #[must_use]
    pub fn times(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("min", self.min_ns),
            ("mean", self.mean_ns),
            ("p50", self.p50_ns),
            ("p90", self.p90_ns),
            ("p99", self.p99_ns),
            ("p999", self.p999_ns),
            ("p9999", self.p9999_ns),
            ("max", self.max_ns),
        ]
    }
}

/// A figure over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rounds {
    /// The least round.
    pub min: f64,
    /// The median round; of an even number of rounds the mean of the middle two.
    pub median: f64,
    /// The greatest round.
    pub max: f64,
}

/// Serializes nanoseconds and bytes as whole numbers.
pub(super) fn whole<S: Serializer>(rounds: &Option<Rounds>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Whole {
        min: i64,
        median: i64,
        max: i64,
    }
    let whole = |value: f64| value.round() as i64;
    let rounds = rounds.map(|Rounds { min, median, max }| Whole {
        min: whole(min),
        median: whole(median),
        max: whole(max),
    });
    rounds.serialize(serializer)
}

impl Rounds {
    /// The summary of the rounds that have a value. `None` without any.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Rounds> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Rounds { min, median: below + (above - below) / 2.0, max })
    }
}
