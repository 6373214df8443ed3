//! `--role load`: connections that beat by a schedule, and may fall silent at set instants.
//! `--role stream`: one connection that sends as fast as it can.

use std::io::{self, BufRead, Write};
use std::net::SocketAddrV4;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::herd::{self, Beats, Client, Pace};
use crate::sys;
use crate::table::Latencies;

#[derive(Debug, Serialize, Deserialize)]
pub struct LoadPlan {
    pub server: SocketAddrV4,
    pub connections: usize,
    /// Beats a second over all connections.
    pub rate: f64,
    pub beat_bytes: usize,
    pub pace_ns: u64,
    /// A connection's first beat has a random size up to this, so that low-water marks are not
    /// reached by all connections in the same instant.
    pub first_bytes: usize,
    /// Each connection falls silent at a random instant of the window and says when it last beat.
    pub falls_silent: bool,
}

/// What a role is told once all connections stand. Instants of `CLOCK_MONOTONIC`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Go {
    pub start: u64,
    pub window_from: u64,
    pub window_to: u64,
}

pub fn run(plan: &LoadPlan) -> io::Result<()> {
    sys::raise_descriptors()?;
    sys::tight_timers();
    let clients = herd::gather(plan.server, plan.connections, |_| true)?;
    say(&json!({"event": "connected", "count": clients.len()}))?;
    let Some(go) = await_go()? else { return Ok(()) };

    let done = beat_through(plan, &go, &clients)?;
    for (client, &(_, last)) in clients.iter().zip(&done.stops) {
        if plan.falls_silent && last > 0 {
            say(&json!({"event": "last", "peer": client.name, "mono_ns": last}))?;
        }
    }
    say(&json!({
        "event": "done",
        "beats": done.window_beats,
        "bytes": done.bytes,
        "refused": done.refused,
        "unsent": done.unsent,
        "late_p99_us": done.late.micros(99.0),
        "late_max_us": done.late.micros(100.0),
    }))?;
    // The connections stand until we are told to end; then RST takes them, without TIME_WAIT.
    await_go()?;
    Ok(())
}

struct Done {
    window_beats: u64,
    bytes: u64,
    refused: u64,
    /// Beats of the window that were due and not sent before it closed.
    unsent: u64,
    late: Latencies,
    /// Per connection: when to stop, and when it last beat.
    stops: Vec<(u64, u64)>,
}

fn beat_through(plan: &LoadPlan, go: &Go, clients: &[Client]) -> io::Result<Done> {
    let mut random = fastrand::Rng::with_seed(2);
    let mut stop = || if plan.falls_silent { random.u64(go.window_from..go.window_to) } else { u64::MAX };
    let stops = clients.iter().map(|_| (stop(), 0)).collect();
    let late = Latencies::new();
    let mut done = Done { window_beats: 0, bytes: 0, refused: 0, unsent: 0, late, stops };
    let mut beats = Beats::new(clients.len(), plan.rate, go.start);
    let pace = Pace { start: go.start, period: plan.pace_ns };
    let payload = vec![b'.'; plan.beat_bytes.max(plan.first_bytes)];
    let mut sizes = fastrand::Rng::with_seed(3);

    while beats.due() < go.window_to {
        sys::sleep_until(pace.stroke(beats.due()));
        loop {
            let (due, now) = (beats.due(), sys::now());
            if due > now || due >= go.window_to {
                break;
            }
            if now > go.window_to + GIVE_UP_NS {
                done.unsent = ((go.window_to - due) as f64 * plan.rate / 1e9) as u64;
                return Ok(done);
            }
            let (index, first) = beats.take();
            let (stop, last) = &mut done.stops[index];
            // Judged by the real instant: what is sent after the stop would be no silence.
            if now >= *stop {
                continue;
            }
            let size = if first { sizes.usize(plan.beat_bytes..=payload.len()) } else { plan.beat_bytes };
            if herd::beat(&clients[index], &payload[..size]) {
                *last = now;
                done.bytes += size as u64;
            } else {
                done.refused += 1;
            }
            if due >= go.window_from {
                done.window_beats += 1;
                done.late.record(now - due);
            }
        }
    }
    sys::sleep_until(go.window_to);
    Ok(done)
}

/// A load that is this late at the end of its window gives the rest up.
const GIVE_UP_NS: u64 = 1_000_000_000;

#[derive(Debug, Serialize, Deserialize)]
pub struct StreamPlan {
    pub server: SocketAddrV4,
    pub nanos: u64,
}

/// Sends without a rest for the given time, then closes in order.
pub fn stream(plan: &StreamPlan) -> io::Result<()> {
    let clients = herd::gather(plan.server, 1, |_| false)?;
    say(&json!({"event": "connected", "count": 1}))?;
    if await_go()?.is_none() {
        return Ok(());
    }
    let chunk = vec![b'.'; 1 << 18];
    let Some(socket) = &clients[0].socket else { return Ok(()) };
    let (from, mut bytes) = (sys::now(), 0_u64);
    while sys::now() < from + plan.nanos {
        bytes += sys::send(socket.as_fd(), &chunk, true)? as u64;
    }
    let name = clients[0].name;
    drop(clients);
    say(&json!({"event": "streamed", "peer": name, "bytes": bytes, "from_ns": from}))
}

/// One line to the parent.
pub fn say(line: &serde_json::Value) -> io::Result<()> {
    let mut text = line.to_string();
    text.push('\n');
    io::stdout().write_all(text.as_bytes())
}

/// Waits for a line from the parent; None when it closed the pipe.
pub fn await_go() -> io::Result<Option<Go>> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}
