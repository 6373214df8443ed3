//! The planned deaths, drawn from a seed before anything is started.

use std::time::Duration;

use crate::bench::connections;
use crate::bench::peers::Death;
use crate::measure::result::Way;
use crate::time::nanos;

/// The time from the FIN to the reset of a `half-close-rst`.
pub const FIN_BEFORE_RST: Duration = Duration::from_millis(200);

/// Draws the deaths of one process's connections, in the order of their instants. The ways have equal shares, up to one
/// death.
pub fn draw(connections: usize, deaths: usize, ways: &[Way], from: u64, to: u64, seed: u64) -> Vec<Death> {
    assert!(deaths <= connections, "{deaths} deaths of {connections} connections");
    let mut order: Vec<Way> = ways.iter().copied().cycle().take(deaths).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let spacing = (to - from) as f64 / deaths.max(1) as f64;
    spread(connections, order, from + nanos(FIN_BEFORE_RST), spacing, seed)
}

/// Draws a victim and an instant for each of the ways, in the order of the instants.
///
/// The time from `from` on is divided into equal stretches of `spacing` nanoseconds with one death each, at a random
/// instant: so the rate is even, and the deaths do not keep step with the kernel's timer tick.
pub fn spread(
    connections: usize,
    ways: impl IntoIterator<Item = Way>,
    from: u64,
    spacing: f64,
    seed: u64,
) -> Vec<Death> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let victims = connections::shuffled(connections, seed).into_iter().zip(ways).enumerate();
    victims
        .map(|(turn, (victim, way))| {
            let at = from + ((turn as f64 + random.f64()) * spacing) as u64;
            let fin_at = if way == Way::HalfCloseRst { at - nanos(FIN_BEFORE_RST) } else { at };
            Death { at, victim, way, fin_at }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        #[test]
        fn everyone_dies_once_at_an_instant_of_the_time_and_all_ways_get_their_share(
            connections in 1usize..300, part in 0usize..=100, ways in 1usize..=6, seed: u64, from in 0..SECOND,
        ) {
            let deaths = connections * part / 100;
            let ways = &Way::ALL[..ways];
            let to = from + SECOND;
            let drawn = draw(connections, deaths, ways, from, to, seed);
            prop_assert_eq!(drawn.len(), deaths);
            let victims: BTreeSet<usize> = drawn.iter().map(|death| death.victim).collect();
            prop_assert_eq!(victims.len(), deaths);
            prop_assert!(victims.iter().all(|&victim| victim < connections));
            let shift = nanos(FIN_BEFORE_RST);
            for death in &drawn {
                prop_assert!(death.at >= from + shift && death.at <= to + shift);
                prop_assert!(death.fin_at >= from && death.fin_at <= death.at);
                prop_assert_eq!(death.fin_at < death.at, death.way == Way::HalfCloseRst);
            }
            prop_assert!(drawn.is_sorted_by_key(|death| death.at));
            let mut shares: BTreeMap<Way, usize> = BTreeMap::new();
            drawn.iter().for_each(|death| *shares.entry(death.way).or_default() += 1);
            for way in ways {
                let share = shares.get(way).copied().unwrap_or(0);
                prop_assert!(share == deaths / ways.len() || share == deaths / ways.len() + 1);
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_deaths_and_another_one_others() {
        let draw = |seed| draw(1_000, 500, &Way::ALL[..5], 0, SECOND, seed);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_spread_is_the_same_for_the_same_seed_and_takes_no_connection_twice() {
        let draw = |seed| spread(50, [Way::Rst; 20], 7_000, 1e6, seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let deaths = draw(1);
        let victims: BTreeSet<_> = deaths.iter().map(|death| death.victim).collect();
        assert_eq!(victims.len(), 20);
        assert!(deaths.is_sorted_by_key(|death| death.at));
        assert!(deaths.iter().all(|death| (7_000..20_007_000).contains(&death.at)));
    }
}
