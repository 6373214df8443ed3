//! The role `peers`: connections that beat by schedule, some of which die by plan.
//!
//! It reports `connected` when all connections are up. Then each line on its standard input is a [`Phase`]: it carries the
//! phase out, and reports each death that it caused as a [`Caused`], and then `done`. When its standard input
//! closes, it ends, and resets the connections that are left.
//!
//! One thread does all of it. A death goes before a beat that is due, and the thread polls the clock shortly before a
//! death, so that a late timer is not measured as a late verdict.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use serde::{Deserialize, Serialize};

use super::connections::{self, Beats, Client, stroke};
use super::now;
use crate::measure::recorded::Recorded;
use crate::measure::result::Way;
use crate::sys::{process, rlimit};
use crate::time::{Instant, sleep_until};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeersPlan {
    pub server: SocketAddr,
    /// The source address; `None` for any.
    pub source: Option<IpAddr>,
    pub connections: usize,
    pub beat_bytes: usize,
    /// The time between two strokes, in nanoseconds. See [`PACE_NS`].
    pub pace_ns: u64,
    /// The largest size of a connection's first beat, which is random, so that the connections do not all reach their
    /// low-water marks in the same instant.
    pub first_bytes: usize,
}

impl PeersPlan {
    /// Peers of any source, at the usual pace, whose first beats are like the others.
    pub fn new(server: SocketAddr, connections: usize, beat_bytes: usize) -> PeersPlan {
        PeersPlan { server, source: None, connections, beat_bytes, pace_ns: PACE_NS, first_bytes: beat_bytes }
    }
}

/// The usual time between two strokes of the sender, at which it sends all beats that are due. It is no even part of
/// the kernel's timer tick (4 ms, or 1 ms), so that the strokes do not keep step with it.
pub const PACE_NS: u64 = 473_000;

/// A period of beats and deaths. Instants are CLOCK_MONOTONIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// The instant of the first beat.
    pub start: u64,
    /// Beats from this instant on are counted.
    pub count_from: u64,
    /// No beat is due from this instant on. Deaths may be later.
    pub end: u64,
    /// Beats a second over all connections that the process began with; dead ones skip their turns.
    pub rate: f64,
    /// The deaths, in the order of their instants.
    pub deaths: Vec<Death>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The planned instant.
    pub at: u64,
    /// The connection's number in its process.
    pub victim: usize,
    /// The way to die. `stop` and `path-loss` are done to the process from outside, and here only end the beats.
    pub way: Way,
    /// The instant of the FIN of a `half-close-rst`, before `at`; for the others `at` itself.
    pub fin_at: u64,
}

/// A death that was caused: the line `caused`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caused {
    /// The peer's address, as the server sees it.
    pub peer: SocketAddr,
    pub way: Way,
    /// The planned instant.
    pub at: u64,
    pub fin_at: u64,
    /// The instant before its system call.
    pub called: u64,
    /// The instant after its system call.
    pub returned: u64,
    /// The instant of the last beat that the socket took; 0 for none.
    pub last_beat: u64,
    /// Of a `path-loss`: the instants of the last beats before the loss and shortly after, each with the bytes that were
    /// sent until then. How many of them arrived, only the server knows.
    pub sent: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The number of beats from `count_from` on.
    pub beats: u64,
    /// The bytes of all beats since the start.
    pub bytes: u64,
    /// The number of beats that the sockets did not take.
    pub refused: u64,
    /// The number of beats that were dropped, as the process was too late.
    pub unsent: u64,
    pub late: Recorded,
}

/// The injector sleeps until this long before a death and then polls the clock.
pub const WATCH_NS: u64 = 80_000;
/// A process that is later than this at the end of its phase drops the other beats.
const GIVE_UP_NS: u64 = 1_000_000_000;

/// Runs the role until standard input closes.
pub fn run(plan: &PeersPlan) -> io::Result<()> {
    rlimit::raise_nofile()?;
    process::tight_timers();
    let clients = connections::open(plan.server, plan.source, plan.connections)?;
    say("connected", &serde_json::json!({"count": clients.len()}))?;
    let mut peers = Peers {
        plan: plan.clone(),
        last_beats: vec![0; clients.len()],
        lost: HashMap::new(),
        clients,
        dead: vec![false; plan.connections],
        bytes: 0,
        payload: vec![b'.'; plan.beat_bytes.max(plan.first_bytes)],
        sizes: fastrand::Rng::with_seed(3),
    };
    for line in io::stdin().lock().lines() {
        let phase: Phase = serde_json::from_str(&line?)?;
        let (caused, done) = peers.carry_out(&phase)?;
        for death in &caused {
            say("caused", death)?;
        }
        say("done", &done)?;
    }
    Ok(())
}

fn say(event: &str, content: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_value(content)?;
    line["event"] = event.into();
    let mut text = line.to_string();
    text.push('\n');
    io::stdout().write_all(text.as_bytes())
}

struct Peers {
    plan: PeersPlan,
    clients: Vec<Client>,
    /// The instant of each connection's last beat; 0 for none.
    last_beats: Vec<u64>,
    /// Whether a connection beats no more.
    dead: Vec<bool>,
    /// The connections whose path will be lost, and what they sent.
    lost: HashMap<usize, Sent>,
    bytes: u64,
    payload: Vec<u8>,
    sizes: fastrand::Rng,
}

/// The last beats of a connection, from which the server's count of bytes tells the last that arrived.
#[derive(Debug, Default)]
struct Sent {
    /// Beats after this instant are not kept.
    until: u64,
    bytes: u64,
    recent: VecDeque<(u64, u64)>,
}

/// The number of beats that are kept of a connection whose path is lost.
const RECENT: usize = 8;
/// How long after the planned loss beats are kept: another program makes the loss, which takes some milliseconds.
const LOSS_TAKES_NS: u64 = 200_000_000;
/// A process that is to be stopped ends its own beats this long after the planned instant.
const STOP_TAKES_NS: u64 = 1_000_000;

/// One system call of a death: its FIN, or its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    at: u64,
    victim: usize,
    way: Way,
}

impl Peers {
    fn carry_out(&mut self, phase: &Phase) -> io::Result<(Vec<Caused>, Done)> {
        let steps = self.steps(phase)?;
        let mut calls: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut done = Done { beats: 0, bytes: 0, refused: 0, unsent: 0, late: Recorded::new() };
        let mut beats = Beats::new(self.clients.len(), phase.rate, phase.start);
        let period = self.plan.pace_ns.max(1);
        let mut steps = steps.into_iter().peekable();
        let mut next_stroke = stroke(phase.start, period, beats.due());
        loop {
            let now = now();
            if let Some(step) = steps.next_if(|step| step.at <= now) {
                calls.insert(step.victim, self.take(step));
                continue;
            }
            if beats.due() <= now && next_stroke <= now && beats.due() < phase.end {
                if now > phase.end + GIVE_UP_NS {
                    done.unsent = ((phase.end - beats.due()) as f64 * phase.rate / 1e9) as u64;
                    beats = Beats::new(0, 0.0, 0);
                    continue;
                }
                self.beat(&mut beats, now, phase.count_from, &mut done);
                continue;
            }
            next_stroke = stroke(phase.start, period, beats.due());
            let next_beat = if beats.due() < phase.end { next_stroke } else { u64::MAX };
            let next_step = steps.peek().map_or(u64::MAX, |step| step.at.saturating_sub(WATCH_NS));
            match next_beat.min(next_step) {
                u64::MAX => break,
                wake if wake > now => sleep_until(Instant::from_nanos(wake)),
                _ => std::hint::spin_loop(),
            }
        }
        sleep_until(Instant::from_nanos(phase.end));
        done.bytes = self.bytes;
        let caused = phase.deaths.iter().map(|death| {
            let (called, returned) = calls.get(&death.victim).copied().unwrap_or((death.at, death.at));
            Caused {
                peer: self.clients[death.victim].name,
                way: death.way,
                at: death.at,
                fin_at: death.fin_at,
                called,
                returned,
                last_beat: self.last_beats[death.victim],
                sent: self.lost.get(&death.victim).map_or(Vec::new(), |sent| sent.recent.clone().into()),
            }
        });
        Ok((caused.collect(), done))
    }

    /// The system calls of all deaths, in the order of their instants.
    fn steps(&mut self, phase: &Phase) -> io::Result<Vec<Step>> {
        let mut steps = Vec::with_capacity(phase.deaths.len());
        for &Death { at, victim, way, fin_at } in &phase.deaths {
            let client = self.clients.get(victim);
            let client =
                client.ok_or_else(|| io::Error::other(format!("there is no connection {victim}")))?;
            if let (Way::Fin, Some(socket)) = (way, &client.socket) {
                socket.set_linger(None)?;
            }
            if way == Way::HalfCloseRst {
                // The step of its reset is later, so that one's instants are kept.
                steps.push(Step { at: fin_at, victim, way: Way::HalfClose });
            }
            match way {
                // A stopped process has overdue beats when it goes on, and must not send them.
                Way::Stop => steps.push(Step { at: at + STOP_TAKES_NS, victim, way }),
                // The peers do not notice the loss, and beat on.
                Way::PathLoss => {
                    self.lost.insert(victim, Sent { until: at + LOSS_TAKES_NS, ..Sent::default() });
                }
                _ => steps.push(Step { at, victim, way }),
            }
        }
        steps.sort();
        Ok(steps)
    }

    /// Does one step of a death; returns the instants before and after its system call.
    fn take(&mut self, step: Step) -> (u64, u64) {
        let client = &mut self.clients[step.victim];
        self.dead[step.victim] = true;
        let called = now();
        match step.way {
            // It fails only when the server is gone, which the missing verdicts show.
            Way::HalfClose => drop(client.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Write))),
            Way::Fin | Way::Rst | Way::HalfCloseRst => client.socket = None,
            Way::DataRst => {
                let sent = client.send(&self.payload[..self.plan.beat_bytes]);
                self.bytes += u64::from(sent) * self.plan.beat_bytes as u64;
                client.socket = None;
            }
            Way::Silence | Way::Stop | Way::PathLoss => {}
        }
        (called, now())
    }

    fn beat(&mut self, beats: &mut Beats, now: u64, count_from: u64, done: &mut Done) {
        let due = beats.due();
        let index = beats.take();
        if self.dead[index] {
            return;
        }
        let first = self.last_beats[index] == 0;
        let least = self.plan.beat_bytes;
        let size = if first { self.sizes.usize(least..=self.payload.len()) } else { least };
        if self.clients[index].send(&self.payload[..size]) {
            self.last_beats[index] = now;
            self.bytes += size as u64;
            if let Some(sent) = self.lost.get_mut(&index).filter(|sent| now < sent.until) {
                sent.bytes += size as u64;
                sent.recent.push_back((now, sent.bytes));
                if sent.recent.len() > RECENT {
                    sent.recent.pop_front();
                }
            }
        } else {
            done.refused += 1;
        }
        if due >= count_from {
            done.beats += 1;
            done.late.record(now - due);
        }
    }
}
