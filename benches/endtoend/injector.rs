//! `--role inject`: connections that beat while some of them die, by FIN or RST, at set instants.

use std::io;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::herd::{self, Beats, Client, Pace};
use crate::load::{await_go, say};
use crate::sys;
use crate::table::Latencies;

#[derive(Debug, Serialize, Deserialize)]
pub struct InjectPlan {
    pub server: SocketAddrV4,
    pub connections: usize,
    pub rate: f64,
    pub beat_bytes: usize,
    pub pace_ns: u64,
    pub kills: usize,
    /// Deaths a second; none for all in one instant.
    pub kill_rate: Option<f64>,
    /// Every other death is a FIN; otherwise all are RSTs.
    pub half_by_fin: bool,
}

/// The injector sleeps until this long before a death and then watches the clock, so that a
/// sleepy timer is not taken for a slow verdict.
const WATCH_NS: u64 = 80_000;

struct Kill {
    due: u64,
    victim: usize,
    called: u64,
    returned: u64,
}

pub fn run(plan: &InjectPlan) -> io::Result<()> {
    sys::raise_descriptors()?;
    sys::tight_timers();
    let victims = herd::shuffled(plan.connections, 4);
    let mut by_fin = vec![false; plan.connections];
    for &victim in victims.iter().take(plan.kills).step_by(2) {
        by_fin[victim] = plan.half_by_fin;
    }
    let mut clients = herd::gather(plan.server, plan.connections, |index| !by_fin[index])?;
    say(&json!({"event": "connected", "count": clients.len()}))?;
    let Some(go) = await_go()? else { return Ok(()) };

    // Deaths come at random instants: even ones would keep step with the kernel's timer tick.
    let mut random = fastrand::Rng::with_seed(5);
    let spacing = plan.kill_rate.map_or(0.0, |rate| 1e9 / rate);
    let mut kills: Vec<Kill> = (0..plan.kills)
        .map(|turn| {
            let due = go.window_from + ((turn as f64 + random.f64()) * spacing) as u64;
            Kill { due, victim: victims[turn], called: 0, returned: 0 }
        })
        .collect();
    let (beats, refused, late) = carry_out(plan, go.start, go.window_to, &mut clients, &mut kills);

    for kill in &kills {
        let how = if by_fin[kill.victim] { "fin" } else { "rst" };
        say(&json!({
            "event": "killed", "peer": clients[kill.victim].name, "how": how,
            "mono_ns": kill.due, "called_ns": kill.called, "returned_ns": kill.returned,
        }))?;
    }
    say(&json!({
        "event": "done", "beats": beats, "refused": refused,
        "late_p99_us": late.micros(99.0), "late_max_us": late.micros(100.0),
    }))?;
    await_go()?;
    // What lives still is reset by its linger option, save a FIN victim that nobody killed.
    Ok(())
}

/// Beats and deaths in one thread, each death before any beat that is due. Returns how many beats
/// were sent, how many were refused, and how late the beats were.
fn carry_out(
    plan: &InjectPlan,
    start: u64,
    end: u64,
    clients: &mut [Client],
    kills: &mut [Kill],
) -> (u64, u64, Latencies) {
    let (mut sent, mut refused, mut late) = (0, 0, Latencies::new());
    let mut beats = Beats::new(clients.len(), plan.rate, start);
    let pace = Pace { start, period: plan.pace_ns };
    let payload = vec![b'.'; plan.beat_bytes];
    let mut kills = kills.iter_mut().peekable();
    let mut stroke = pace.stroke(beats.due());
    loop {
        let now = sys::now();
        if let Some(kill) = kills.next_if(|kill| kill.due <= now) {
            kill.called = sys::now();
            clients[kill.victim].socket = None;
            kill.returned = sys::now();
            continue;
        }
        if beats.due() <= now && stroke <= now && now < end {
            late.record(now - beats.due());
            let (index, _) = beats.take();
            if clients[index].socket.is_some() {
                if herd::beat(&clients[index], &payload) { sent += 1 } else { refused += 1 }
            }
            continue;
        }
        stroke = pace.stroke(beats.due());
        let next_kill = kills.peek().map(|kill| kill.due);
        if now >= end && next_kill.is_none() {
            return (sent, refused, late);
        }
        let beat_or_end = if now < end { stroke.min(end) } else { u64::MAX };
        let wake = next_kill.map_or(beat_or_end, |due| beat_or_end.min(due.saturating_sub(WATCH_NS)));
        if wake > now {
            sys::sleep_until(wake);
        } else {
            std::hint::spin_loop();
        }
    }
}
