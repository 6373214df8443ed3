//! In lazy mode the cost of a peer must not grow with how often it beats.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::beating::{self, Cost, Shape};
use crate::outcome::{Bench, Doubts, Outcome};
use crate::subject::{Options, Subject};
use crate::table::{Goal, Table, short};

/// The low-water marks: the default, where every 64th beat wakes the daemon for a drain, and one so
/// wide that a drain is rare.
const UNREAD: [&str; 2] = ["1024", "65536"];

#[derive(Clone, Debug, Serialize)]
struct Run {
    name: String,
    beats_per_second_each: f64,
    us_per_peer_second: f64,
    cost: Cost,
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let peers = bench.by_scale(300, 300, 50);
    let window = bench.window(30.0, 8.0, 0.4);
    let rates = bench.by_scale(&[1.0, 10.0, 100.0][..], &[1.0, 10.0, 100.0], &[10.0, 100.0]);
    let mut servers = Vec::new();
    let all = bench.by_scale(
        &[Subject::Lazy, Subject::Epoll][..],
        &[Subject::Lazy, Subject::Epoll],
        &[Subject::Lazy],
    );
    for subject in bench.subjects(all) {
        if subject == Subject::Epoll {
            servers.push((subject, subject.name().to_string(), Options::default(), 1024));
            continue;
        }
        for unread in UNREAD {
            let name = format!("{} --unread {unread}", subject.name());
            let first_bytes = unread.parse().expect("a constant number");
            servers.push((subject, name, Options::daemon(&["--unread", unread]), first_bytes));
        }
    }

    let mut doubts = Doubts::default();
    let mut runs = Vec::new();
    for (subject, name, options, first_bytes) in &servers {
        for &each in rates {
            eprintln!("  {name}, {each} beats/s");
            let shape = Shape {
                connections: peers,
                rate: each * peers as f64,
                warm_up: Duration::from_secs_f64(bench.by_scale(3.0, 2.0, 0.2)),
                window,
                stroke_ns: beating::PACE_NS,
                first_bytes: *first_bytes,
            };
            let cost = beating::measure(&bench.stage, *subject, options, &shape, &mut doubts)?;
            let us_per_peer_second = cost.process_ns as f64 / 1e3 / cost.seconds / peers as f64;
            runs.push(Run { name: name.clone(), beats_per_second_each: each, us_per_peer_second, cost });
        }
    }

    let mut table = Table::new(
        format!("process CPU of {peers} peers by their beat rate, window {} s", window.as_secs_f64()),
        &["server", "beats/s each", "us per peer-second", "against the slowest", "us per beat", "sleeps/s"],
    );
    let mut goals = Vec::new();
    for run in &runs {
        let slowest = runs.iter().find(|other| other.name == run.name).unwrap_or(run);
        let growth = run.us_per_peer_second / slowest.us_per_peer_second;
        table.row(vec![
            run.name.clone(),
            short(run.beats_per_second_each),
            short(run.us_per_peer_second),
            short(growth),
            short(run.cost.process_us_per_beat()),
            short(run.cost.sleeps_per_second()),
        ]);
        if run.name.ends_with(UNREAD[1]) && Some(&run.beats_per_second_each) == rates.last() {
            let times = run.beats_per_second_each / slowest.beats_per_second_each;
            let what = format!("{}: cost at {times:.0} x the beats", run.name);
            goals.push(Goal::at_most(what, growth, GROWTH));
        }
    }
    let figures = serde_json::json!({"peers": peers, "runs": runs});
    Ok(Outcome { experiment: "rates", tables: vec![table], goals, doubts, figures })
}

/// Our reading of "does not depend on": noise may double so small a figure, 100 times the beats
/// may not.
const GROWTH: f64 = 2.0;
