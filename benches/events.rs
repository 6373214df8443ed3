//! The time of encoding an event as a line. The sink may use a core of its own for it; this bench shows how many
//! events a second that core can encode.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use deadpeer::events::encoder::{Filter, Format};
use deadpeer::events::human::Screen;
use deadpeer::events::tracker::{TrackerEncoder, TrackerStream};
use deadpeer::limits::EVENT_BATCH;
use deadpeer::liveness::{
    Action, Event, EventKind, Evidence, Fact, Policy, PollMask, TcpState, Tracker, TrackerConfig,
};
use deadpeer::time::Instant;
use deadpeer::tracking::LocalAddresses;

/// A batch of `up` and one of `died` events.
fn batches() -> (Vec<Event>, Vec<Event>) {
    let start = Instant::from_nanos(1_000_000_000);
    let mut tracker = Tracker::new(TrackerConfig::new(Policy::STANDARD, EVENT_BATCH), start);
    let ports = 40_000..;
    let peers: Vec<_> = ports
        .take(EVENT_BATCH)
        .map(|port| tracker.accept(([192, 0, 2, 7], port).into(), 0, start).expect("there is room"))
        .collect();
    let ups: Vec<_> = std::iter::from_fn(|| tracker.poll_event()).collect();
    let evidence =
        Evidence { mask: PollMask(0x2019), tcp_state: TcpState::Close, rtt_us: 431, ..Evidence::default() };
    for peer in peers {
        let fact = Fact::Failed { errno: libc::ECONNRESET, evidence };
        tracker.handle(peer, fact, start + Duration::from_secs(9));
        while let Some(action) = tracker.poll_action() {
            assert!(!matches!(action, Action::Probe { .. }));
        }
    }
    let deaths: Vec<_> = std::iter::from_fn(|| tracker.poll_event()).collect();
    assert!(deaths.len() == EVENT_BATCH && matches!(deaths[0].kind, EventKind::Died(_)));
    (ups, deaths)
}

fn encoding(criterion: &mut Criterion) {
    let locals = Arc::new(LocalAddresses::new());
    locals.intern("192.0.2.1:7400".parse().expect("an address"));
    let (ups, deaths) = batches();
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(EVENT_BATCH as u64));
    for (name, batch) in [("up", &ups), ("died", &deaths)] {
        for (format, name) in [
            (Format::JsonLines, format!("json/{name}")),
            (Format::Human { colour: true, screen: Screen::None }, format!("human/{name}")),
        ] {
            let stream = TrackerStream::new(locals.clone());
            let mut encoder = TrackerEncoder::new(stream, format, Filter::default());
            let mut out = Vec::new();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    for event in black_box(batch) {
                        encoder.event(0, event, &mut out);
                    }
                    out.len()
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encoding(&mut criterion);
    criterion.final_summary();
}
