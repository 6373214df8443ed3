//! The role `peers`: connections that beat by schedule, some of which die by plan.
//!
//! It says `connected` once all stand. Then each line on its standard input is a [`Phase`]; it carries the
//! phase out and reports every death that it caused as a [`Caused`], and `done`. When its standard input
//! closes, it ends, and what still stands is reset.
//!
//! One thread does it all: a death goes before any beat that is due, and the last stretch before a death
//! is watched on the clock, so that a sleepy timer is not taken for a slow verdict.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use serde::{Deserialize, Serialize};

use super::connections::{self, Beats, Client, Pace};
use super::now;
use crate::measure::recorded::Recorded;
use crate::measure::result::Way;
use crate::sys::{process, rlimit};
use crate::time::{Instant, sleep_until};

/// What the role is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeersPlan {
    /// Whom to connect to.
    pub server: SocketAddr,
    /// From where, if it matters.
    pub source: Option<IpAddr>,
    /// How many.
    pub connections: usize,
    /// Bytes of a beat.
    pub beat_bytes: usize,
    /// A beat may wait this long for the sender's next stroke. See [`PACE_NS`].
    pub pace_ns: u64,
    /// A connection's very first beat has a random size up to this, so that low-water marks are not
    /// reached by all connections in the same instant.
    pub first_bytes: usize,
}

/// How long a beat may wait for the sender's next stroke, as a rule. No even part of the kernel's timer
/// tick (4 ms, or 1 ms), with which the strokes must not keep step.
pub const PACE_NS: u64 = 473_000;

/// Beating and dying for a while. Instants are CLOCK_MONOTONIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// The first beat.
    pub start: u64,
    /// Beats from here on are counted.
    pub count_from: u64,
    /// No beat from here on. Deaths may come later.
    pub end: u64,
    /// Beats a second over all connections that the process began with; the dead miss their turns.
    pub rate: f64,
    /// In the order of their instants.
    pub deaths: Vec<Death>,
}

/// One death to cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When.
    pub at: u64,
    /// The connection's number in its process.
    pub victim: usize,
    /// How. `stop` and `path-loss` are done to the process from outside, and here only end the beats.
    pub way: Way,
    /// For `half-close-rst`: when its FIN goes, before `at`. For the others `at` itself.
    pub fin_at: u64,
}

/// A death as it was caused: the line `caused`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caused {
    /// The peer's address, as the server sees it.
    pub peer: SocketAddr,
    /// How.
    pub way: Way,
    /// The planned instant.
    pub at: u64,
    /// When the FIN of a `half-close-rst` was planned.
    pub fin_at: u64,
    /// When its system call was made.
    pub called: u64,
    /// When that returned.
    pub returned: u64,
    /// When the connection last beat with success; 0 for never.
    pub last_beat: u64,
    /// For `path-loss`: when it last beat before the loss and a little after, and the bytes that it had sent then
    /// in all. How many of these arrived, only the other side knows.
    pub sent: Vec<(u64, u64)>,
}

/// The line `done`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Beats from `count_from` on.
    pub beats: u64,
    /// Bytes of all beats since the start.
    pub bytes: u64,
    /// Beats that their sockets did not take.
    pub refused: u64,
    /// Beats that were due and given up, as the process was too late.
    pub unsent: u64,
    /// Lateness of the counted beats.
    pub late: Recorded,
}

/// The injector sleeps until this long before a death and then watches the clock.
pub const WATCH_NS: u64 = 80_000;
/// A process that is this late at the end of its phase gives the other beats up.
const GIVE_UP_NS: u64 = 1_000_000_000;

/// Plays the role until standard input closes.
///
/// # Errors
///
/// When a connection cannot be made, or a line is no phase.
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

/// One line to the parent.
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
    /// When each last beat.
    last_beats: Vec<u64>,
    /// They beat no more.
    dead: Vec<bool>,
    /// Those whose path will be lost: when, and what they sent.
    lost: HashMap<usize, Sent>,
    bytes: u64,
    payload: Vec<u8>,
    sizes: fastrand::Rng,
}

/// What a connection sent, as far as it matters for finding out what arrived.
#[derive(Debug, Default)]
struct Sent {
    /// Nothing after this is of interest.
    until: u64,
    bytes: u64,
    recent: VecDeque<(u64, u64)>,
}

/// So many beats are kept of those whose path is lost.
const RECENT: usize = 8;
/// For so long after the loss was planned: it is made by another program, which takes some milliseconds.
const LOSS_TAKES_NS: u64 = 200_000_000;
/// A process that is stopped is stopped within this, or else beats no more of itself.
const STOP_TAKES_NS: u64 = 1_000_000;

/// A system call of a death: its FIN or its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    at: u64,
    victim: usize,
    first_of_two: bool,
    way: Way,
}

impl Peers {
    fn carry_out(&mut self, phase: &Phase) -> io::Result<(Vec<Caused>, Done)> {
        let steps = self.steps(phase)?;
        let mut calls: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut done = Done { beats: 0, bytes: 0, refused: 0, unsent: 0, late: Recorded::new() };
        let mut beats = Beats::new(self.clients.len(), phase.rate, phase.start);
        let pace = Pace { start: phase.start, period: self.plan.pace_ns.max(1) };
        let mut steps = steps.into_iter().peekable();
        let mut stroke = pace.stroke(beats.due());
        loop {
            let now = now();
            if let Some(step) = steps.next_if(|step| step.at <= now) {
                let call = self.take(step);
                if !step.first_of_two {
                    calls.insert(step.victim, call);
                }
                continue;
            }
            if beats.due() <= now && stroke <= now && beats.due() < phase.end {
                if now > phase.end + GIVE_UP_NS {
                    done.unsent = ((phase.end - beats.due()) as f64 * phase.rate / 1e9) as u64;
                    beats = Beats::new(0, 0.0, 0);
                    continue;
                }
                self.beat(&mut beats, now, phase.count_from, &mut done);
                continue;
            }
            stroke = pace.stroke(beats.due());
            let next_beat = if beats.due() < phase.end { stroke } else { u64::MAX };
            let next_step = steps.peek().map_or(u64::MAX, |step| step.at.saturating_sub(WATCH_NS));
            let wake = next_beat.min(next_step);
            if wake == u64::MAX {
                break;
            } else if wake > now {
                sleep_until(Instant::from_nanos(wake));
            } else {
                std::hint::spin_loop();
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
                sent: self
                    .lost
                    .get(&death.victim)
                    .map_or(Vec::new(), |sent| sent.recent.iter().copied().collect()),
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
            if way == Way::Fin {
                client.end_by_fin()?;
            }
            if way == Way::HalfCloseRst {
                steps.push(Step { at: fin_at, victim, first_of_two: true, way });
            }
            match way {
                // Whoever is stopped finds overdue beats when it goes on, and must not send them.
                Way::Stop => steps.push(Step { at: at + STOP_TAKES_NS, victim, first_of_two: false, way }),
                // It does not know, and goes on.
                Way::PathLoss => {
                    self.lost.insert(victim, Sent { until: at + LOSS_TAKES_NS, ..Sent::default() });
                }
                _ => steps.push(Step { at, victim, first_of_two: false, way }),
            }
        }
        steps.sort();
        Ok(steps)
    }

    /// Does one step of a death; when its system call began and ended.
    fn take(&mut self, step: Step) -> (u64, u64) {
        let client = &mut self.clients[step.victim];
        let half_close = |client: &Client| {
            // Fails only when the server has gone, which the verdicts will show.
            client.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Write))
        };
        self.dead[step.victim] = true;
        let called = now();
        match step.way {
            Way::HalfCloseRst if step.first_of_two => drop(half_close(client)),
            Way::HalfClose => drop(half_close(client)),
            Way::Fin | Way::Rst | Way::HalfCloseRst => client.socket = None,
            Way::DataRst => {
                self.bytes += if client.send(&self.payload[..self.plan.beat_bytes]) {
                    self.plan.beat_bytes as u64
                } else {
                    0
                };
                client.socket = None;
            }
            Way::Silence | Way::Stop | Way::PathLoss => {}
        }
        (called, now())
    }

    fn beat(&mut self, beats: &mut Beats, now: u64, count_from: u64, done: &mut Done) {
        let due = beats.due();
        let (index, _) = beats.take();
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
