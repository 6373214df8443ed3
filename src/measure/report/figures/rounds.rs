//! A figure over the rounds of a comparison.

use serde::{Serialize, Serializer};

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
