//! A tracker fed by hand: no socket, no clock, no kernel. Facts go in, actions and events come out.

use std::time::Duration;

use deadpeer::{Action, EventKind, Evidence, Fact, Instant, Policy, TcpState, Tracker, TrackerConfig};

fn main() {
    let mut now = Instant::from_nanos(1);
    let mut tracker = Tracker::new(TrackerConfig::new(Policy::STRICT, 100), now);
    let peer = tracker.accept("192.0.2.7:50000".parse().expect("an address"), 0, now).expect("there is room");

    // The peer sends 16 bytes after a second, and is silent from then on.
    let spoke = now + Duration::from_secs(1);
    loop {
        while let Some(action) = tracker.poll_action() {
            println!("{:>6.3} s  do      {action:?}", now.as_nanos() as f64 / 1e9);
            match action {
                // A real loop reads TCP_INFO here. This kernel still answers, and its program does not.
                Action::Inspect(peer) => {
                    let silent = u32::try_from(now.since(spoke).as_millis()).unwrap_or(u32::MAX);
                    let evidence = Evidence {
                        tcp_state: TcpState::Established,
                        received: 16,
                        last_data: spoke,
                        last_data_ms: silent,
                        last_ack: now,
                        ..Evidence::default()
                    };
                    tracker.handle(peer, Fact::Inspected(evidence), now);
                }
                Action::Drain { peer, .. } => tracker.handle(peer, Fact::Emptied, now),
                Action::Close { peer, .. } => tracker.release(peer),
                _ => {}
            }
        }
        while let Some(event) = tracker.poll_event() {
            println!("{:>6.3} s  event   {:?}", event.at.as_nanos() as f64 / 1e9, event.kind);
            if let EventKind::Died(death) = event.kind {
                assert_eq!((death.peer, death.cause.as_str()), (peer, "heartbeat_expired"));
                return;
            }
        }
        now = tracker.next_due().expect("a living peer is due sometime");
        tracker.handle_time(now);
    }
}
