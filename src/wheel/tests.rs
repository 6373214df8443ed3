use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::time::nanos;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * TICK_NANOS)
}

/// Everything due at `now`, in order.
fn drain(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
    std::iter::from_fn(|| wheel.expire(now)).collect()
}

#[test]
fn a_deadline_is_rounded_up_to_a_tick() {
    let mut wheel = Wheel::with_capacity(2, at(100));
    wheel.schedule(0, at(105));
    wheel.schedule(1, Instant::from_nanos(at(105).as_nanos() + 1));
    assert_eq!(drain(&mut wheel, at(105)), [0]);
    assert_eq!(wheel.expire(Instant::from_nanos(at(106).as_nanos() - 1)), None);
    assert_eq!(drain(&mut wheel, at(106)), [1]);
}

#[test]
fn a_deadline_in_the_past_is_due_at_the_first_tick_not_yet_visited() {
    let mut wheel = Wheel::with_capacity(1, at(100));
    wheel.schedule(0, Instant::ZERO);
    assert_eq!(wheel.next_due(), Some(at(100)));
    assert_eq!(drain(&mut wheel, at(100)), [0]);

    wheel.schedule(0, Instant::ZERO);
    assert_eq!(wheel.next_due(), Some(at(101)));
    assert_eq!(wheel.expire(at(100)), None);
    assert_eq!(drain(&mut wheel, at(101)), [0]);
}

#[test]
fn a_deadline_beyond_reach_is_looked_at_once_a_round() {
    let mut wheel = Wheel::with_capacity(1, at(0));
    let deadline = at(5 * SLOTS as u64);
    let mut looks = 0;
    wheel.schedule(0, deadline);
    while let Some(due) = wheel.next_due() {
        assert_eq!(wheel.expire(due), Some(0));
        looks += 1;
        if due < deadline {
            wheel.schedule(0, deadline);
        }
    }
    assert_eq!(looks, 6); // five rounds of SLOTS - 1 ticks, and the rest
    wheel.schedule(0, Instant::NEVER);
    assert!(wheel.next_due().is_some_and(|due| due < deadline + ROUND + TICK));
}

#[test]
fn scheduling_a_scheduled_key_moves_it() {
    let mut wheel = Wheel::with_capacity(3, at(0));
    for key in 0..3 {
        wheel.schedule(key, at(10));
    }
    wheel.schedule(1, at(20)); // from the middle of its list
    wheel.schedule(2, at(5)); // from its head
    wheel.schedule(0, at(30)); // the last one there
    assert_eq!(wheel.len(), 3);
    assert_eq!(drain(&mut wheel, at(40)), [2, 1, 0]);
}

#[test]
fn a_cancelled_key_does_not_come_out() {
    let mut wheel = Wheel::with_capacity(4, at(0));
    for key in 0..4 {
        wheel.schedule(key, at(1));
    }
    for key in [3, 0, 1] {
        assert!(wheel.is_scheduled(key));
        assert!(wheel.cancel(key));
        assert!(!wheel.is_scheduled(key));
        assert!(!wheel.cancel(key));
    }
    assert_eq!(drain(&mut wheel, at(1)), [2]);
    assert!(!wheel.cancel(1_000_000), "a key that was never seen is not scheduled");
    assert_eq!(wheel.next_due(), None);
}

#[test]
fn a_key_that_is_due_can_still_be_cancelled_or_moved() {
    let mut wheel = Wheel::with_capacity(4, at(0));
    for key in 0..4 {
        wheel.schedule(key, at(1));
    }
    let first = wheel.expire(at(1)).expect("four are due");
    let rest: Vec<u32> = (0..4).filter(|&key| key != first).collect();
    assert!(wheel.cancel(rest[0]));
    wheel.schedule(rest[1], at(50));
    assert_eq!(wheel.next_due(), Some(at(1)));
    assert_eq!(drain(&mut wheel, at(49)), [rest[2]]);
    assert_eq!(drain(&mut wheel, at(50)), [rest[1]]);
}

#[test]
fn keys_that_were_not_taken_stay_due_and_come_before_later_ones() {
    let mut wheel = Wheel::with_capacity(100, at(0));
    for key in 0..100 {
        wheel.schedule(key, at(u64::from(key / 10)));
    }
    let mut order = Vec::new();
    for turn in 0.. {
        order.extend((0..7).map_while(|_| wheel.expire(at(100 + turn))));
        if wheel.is_empty() {
            break;
        }
    }
    assert_eq!(order.len(), 100);
    assert!(order.is_sorted_by_key(|key| key / 10), "{order:?}");
}

#[test]
fn a_key_that_is_always_scheduled_for_the_past_starves_no_other() {
    let mut wheel = Wheel::with_capacity(100, at(0));
    for key in 0..100 {
        wheel.schedule(key, at(1));
    }
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let key = wheel.expire(at(1)).expect("all are due");
        seen.insert(key);
        wheel.schedule(key, Instant::ZERO);
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(wheel.expire(at(1)), None, "one turn of the clock gives each key once");
    assert_eq!(drain(&mut wheel, at(2)).len(), 100);
}

#[test]
fn a_gap_of_many_rounds_gives_each_key_once_and_in_order() {
    let mut wheel = Wheel::with_capacity(SLOTS, at(7));
    for key in 0..SLOTS as u32 {
        wheel.schedule(key, at(7 + u64::from(key)));
    }
    let now = at(100 * SLOTS as u64 + 3);
    for key in 0..SLOTS as u32 {
        assert!(wheel.next_due().is_some_and(|due| due <= now));
        assert_eq!(wheel.expire(now), Some(key));
        wheel.schedule(key, now + Duration::from_secs(10));
    }
    assert_eq!(wheel.expire(now), None, "what was scheduled for the future is in the future");
}

#[test]
fn an_empty_wheel_follows_the_clock() {
    let mut wheel = Wheel::with_capacity(1, at(3));
    for now in [at(3), at(4), at(SLOTS as u64 * 9 + 5), at(SLOTS as u64 * 9 + 5)] {
        assert_eq!(wheel.expire(now), None);
        assert_eq!(wheel.next_due(), None);
    }
    wheel.schedule(0, at(SLOTS as u64 * 9 + 8));
    assert_eq!(wheel.next_due(), Some(at(SLOTS as u64 * 9 + 8)));
}

#[test]
fn the_end_of_time_can_be_reached() {
    let mut wheel = Wheel::with_capacity(2, at(0));
    wheel.schedule(0, at(1));
    assert_eq!(drain(&mut wheel, Instant::NEVER), [0]);
    wheel.schedule(1, Instant::NEVER);
    assert_eq!(wheel.next_due(), Some(Instant::NEVER));
}

#[test]
fn a_clock_that_runs_backwards_makes_nothing_due() {
    let mut wheel = Wheel::with_capacity(1, at(0));
    assert_eq!(wheel.expire(at(50)), None);
    wheel.schedule(0, at(60));
    assert_eq!(wheel.expire(at(10)), None);
    assert_eq!(wheel.next_due(), Some(at(60)));
}

#[test]
fn nothing_grows_beyond_the_capacity() {
    let mut wheel = Wheel::with_capacity(1_000, at(0));
    let links = (wheel.links.as_ptr(), wheel.links.capacity());
    assert_eq!(wheel.links.len(), 0, "no key's memory is touched before the key is");
    for key in [5, 999, 0, 998] {
        wheel.schedule(key, at(u64::from(key)));
    }
    assert_eq!((wheel.links.as_ptr(), wheel.links.capacity()), links);
}

#[test]
#[should_panic(expected = "key 4 in a wheel for 4")]
fn a_key_beyond_the_capacity_is_refused() {
    Wheel::with_capacity(4, at(0)).schedule(4, at(1));
}

/// The wheel said with a sorted map, and without any cleverness about slots.
struct Model {
    /// Tick and key of each scheduled key.
    order: BTreeSet<(u64, u32)>,
    keys: BTreeMap<u32, Promise>,
    /// The first tick not yet visited.
    first: u64,
    /// The latest `now`.
    seen: Instant,
}

/// What was asked for a key, and what it was given.
#[derive(Clone, Copy)]
struct Promise {
    at: Instant,
    tick: u64,
    /// The first tick not yet visited when it was asked.
    first: u64,
}

impl Promise {
    /// Whether the deadline was further away than the wheel reaches.
    fn out_of_reach(self) -> bool {
        self.at > at(self.first) + (ROUND - TICK)
    }
}

impl Model {
    fn cancel(&mut self, key: u32) -> bool {
        let Some(promise) = self.keys.remove(&key) else { return false };
        assert!(self.order.remove(&(promise.tick, key)));
        true
    }

    fn schedule(&mut self, key: u32, deadline: Instant) {
        self.cancel(key);
        let wanted = deadline.as_nanos().div_ceil(TICK_NANOS);
        let tick = wanted.max(self.first).min(self.first + SLOTS as u64 - 1);
        self.keys.insert(key, Promise { at: deadline, tick, first: self.first });
        self.order.insert((tick, key));
    }

    /// The tick that must come out at `now`; leaves the keys in place.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.seen = now;
        let reached = now.as_nanos() / TICK_NANOS;
        let left_over = self.order.first().is_some_and(|&(tick, _)| tick < self.first);
        if !left_over && reached >= self.first + SLOTS as u64 {
            self.move_forward(reached + 1 - SLOTS as u64 - self.first);
        }
        let earliest = self.order.first().map(|&(tick, _)| tick).filter(|&tick| tick <= reached);
        match earliest {
            Some(tick) => self.first = self.first.max(tick + 1),
            None => self.first = self.first.max(reached + 1),
        }
        earliest
    }

    /// After a gap of more than a round, the slots move with the time.
    fn move_forward(&mut self, ticks: u64) {
        self.first += ticks;
        self.order = self.order.iter().map(|&(tick, key)| (tick + ticks, key)).collect();
        for promise in self.keys.values_mut() {
            promise.tick += ticks;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A key, and nanoseconds from 3 s before the present.
    Schedule(u32, u64),
    Cancel(u32),
    /// Nanoseconds that pass, and how many keys may be taken; those with a `Some` are scheduled that
    /// far from now again (in nanoseconds, from 3 s before the present).
    Expire(u64, usize, Option<u64>),
}

const PAST: Duration = Duration::from_secs(3);

fn op(keys: u32) -> impl Strategy<Value = Op> {
    let round = nanos(ROUND);
    let ahead = prop_oneof![
        4 => 0..2 * nanos(PAST),
        2 => nanos(PAST)..nanos(PAST) + 40 * TICK_NANOS,
        2 => 0..round + nanos(PAST) + 5 * TICK_NANOS,
        1 => 0..5 * round,
        // On the tick, around a whole round ahead: where slots meet.
        2 => (0..8_u64).prop_map(move |ticks| round + nanos(PAST) - 4 * TICK_NANOS + ticks * TICK_NANOS),
    ]
    .boxed();
    let gap = prop_oneof![
        3 => 0..3 * TICK_NANOS,
        3 => 0..500 * TICK_NANOS,
        2 => 0..round,
        1 => round - 3 * TICK_NANOS..round + 3 * TICK_NANOS,
        1 => round..6 * round,
    ];
    let budget = prop_oneof![2 => Just(usize::MAX), 1 => 0..8_usize];
    prop_oneof![
        6 => (0..keys, ahead.clone()).prop_map(|(key, ahead)| Op::Schedule(key, ahead)),
        2 => (0..keys).prop_map(Op::Cancel),
        3 => (gap, budget, proptest::option::of(ahead))
            .prop_map(|(gap, budget, again)| Op::Expire(gap, budget, again)),
    ]
}

/// Takes up to `budget` keys from both, and holds each against the contract.
fn expire(wheel: &mut Wheel, model: &mut Model, now: Instant, budget: usize, again: Option<u64>) {
    let mut taken = 0;
    let mut scheduled_again = BTreeSet::new();
    while taken < budget {
        let Some(key) = wheel.expire(now) else {
            assert_eq!(model.due(now), None, "a key is late");
            // None of those that are left was due a tick ago, however the model counts its ticks.
            for promise in model.keys.values() {
                assert!(promise.at + TICK > now || promise.first > now.as_nanos() / TICK_NANOS);
            }
            return;
        };
        let promise = *model.keys.get(&key).expect("only a scheduled key comes out, and once");
        let tick = model.due(now).expect("nothing comes out before its tick");
        assert!(model.order.contains(&(tick, key)), "key {key} came out before its elders");
        assert!(promise.at <= now || promise.out_of_reach(), "key {key} is early");
        assert!(model.cancel(key));
        taken += 1;
        // Once each is enough: a deadline in the past would come again with each tick of the gap.
        if let Some(ahead) = again.filter(|_| scheduled_again.insert(key)) {
            let deadline = now + Duration::from_nanos(ahead) - PAST;
            wheel.schedule(key, deadline);
            model.schedule(key, deadline);
        }
    }
}

/// What can be asked between operations has the model's answers.
fn audit(wheel: &Wheel, model: &Model) {
    assert_eq!(wheel.len(), model.keys.len());
    assert_eq!(wheel.is_empty(), model.keys.is_empty());
    assert_eq!(wheel.next_due(), model.order.first().map(|&(tick, _)| at(tick)));
    for promise in model.keys.values() {
        let wanted = at(promise.at.as_nanos().div_ceil(TICK_NANOS).max(promise.first));
        assert!(wheel.next_due().is_some_and(|due| due <= wanted.max(model.seen)), "a waiter oversleeps");
    }
    for word in 0..SLOTS / BITS {
        for bit in 0..BITS {
            let occupied = wheel.occupied[word] >> bit & 1 == 1;
            assert_eq!(occupied, wheel.heads[word * BITS + bit] != NIL, "slot {}", word * BITS + bit);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_wheel_does_what_a_sorted_map_would(
        start in 0..u64::MAX / 2,
        ops in proptest::collection::vec(op(48), 1..120),
    ) {
        let mut now = Instant::from_nanos(start);
        let mut wheel = Wheel::with_capacity(48, now);
        let mut model = Model {
            order: BTreeSet::new(),
            keys: BTreeMap::new(),
            first: start / TICK_NANOS,
            seen: now,
        };
        for op in ops {
            match op {
                Op::Schedule(key, ahead) => {
                    let deadline = now + Duration::from_nanos(ahead) - PAST;
                    wheel.schedule(key, deadline);
                    model.schedule(key, deadline);
                    prop_assert!(wheel.is_scheduled(key));
                }
                Op::Cancel(key) => {
                    prop_assert_eq!(wheel.is_scheduled(key), model.keys.contains_key(&key));
                    prop_assert_eq!(wheel.cancel(key), model.cancel(key));
                    prop_assert!(!wheel.is_scheduled(key));
                }
                Op::Expire(gap, budget, again) => {
                    now = now + Duration::from_nanos(gap);
                    expire(&mut wheel, &mut model, now, budget, again);
                }
            }
            audit(&wheel, &model);
        }
        expire(&mut wheel, &mut model, now + ROUND * 2, usize::MAX, None);
        prop_assert!(wheel.is_empty(), "every key comes out in the end");
    }
}
