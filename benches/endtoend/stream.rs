//! One peer that sends as fast as it can: the server must keep up as a plain read loop does.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::load::{Go, StreamPlan};
use crate::outcome::{Bench, Doubts, Outcome, ratios};
use crate::subject::{Options, PATIENCE, Subject};
use crate::sys;
use crate::table::{Goal, Spread, Table};

const AGAINST_EPOLL: f64 = 0.90;

#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    bytes: u64,
    /// From the first byte to the verdict on the FIN: all was taken off by then.
    seconds: f64,
    server_cpu_seconds: f64,
}

impl Run {
    fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds
    }
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let lasts = Duration::from_secs_f64(bench.by_scale(3.0, 2.0, 0.3));
    let subjects = bench.subjects(&[Subject::Lazy, Subject::Beat, Subject::Epoll]);
    let mut doubts = Doubts::default();
    let rounds =
        bench.alternate(&subjects, bench.rounds(), |subject| one(bench, subject, lasts, &mut doubts))?;

    let title = format!("one peer streams for {} s, {} rounds", lasts.as_secs_f64(), rounds.len());
    let mut table =
        Table::new(title, &["GB/s", "min", "median", "max", "server CPU s/GB min", "median", "max"]);
    let mut goals = Vec::new();
    for &subject in &subjects {
        let runs = || rounds.iter().flatten().filter(|(who, _)| *who == subject).map(|(_, run)| run);
        let speed = Spread::of(runs().map(Run::gigabytes_per_second));
        let cost = Spread::of(runs().map(|run| run.server_cpu_seconds / (run.bytes as f64 / 1e9)));
        if let (Some(speed), Some(cost)) = (speed, cost) {
            let mut cells = vec![subject.name().to_string()];
            cells.extend(speed.cells());
            cells.extend(cost.cells());
            table.row(cells);
        }
        let ratios = ratios(&rounds, subject, Subject::Epoll, Run::gigabytes_per_second);
        if let (true, Some(spread)) = (subject != Subject::Epoll, Spread::of(ratios)) {
            let what = format!("{} / epoll: throughput", subject.name());
            goals.push(Goal::at_least(what, spread.median, AGAINST_EPOLL));
        }
    }
    let figures = serde_json::json!({"rounds": rounds});
    Ok(Outcome { experiment: "stream", tables: vec![table], goals, doubts, figures })
}

fn one(bench: &Bench, subject: Subject, lasts: Duration, doubts: &mut Doubts) -> io::Result<Run> {
    let mut server = bench.stage.start(subject, &Options::default())?;
    let nanos = u64::try_from(lasts.as_nanos()).expect("seconds");
    let plan = StreamPlan { server: server.address, nanos };
    let mut stream = bench.stage.start_role("stream", &plan)?;
    stream.wait_for("connected", PATIENCE)?;
    server.wait_accepted(1)?;
    let before = sys::process_cpu(server.child.pid())?;
    let now = sys::now();
    stream.tell(&Go { start: now, window_from: now, window_to: now + nanos })?;
    let streamed = stream.wait_for("streamed", lasts + PATIENCE)?;
    let (sent, from) = (streamed.bytes, streamed.integer("from_ns").unwrap_or(0));
    let name = subject.name();
    if server.child.wait_count("died", 1, PATIENCE)? == 0 {
        return Err(io::Error::other(format!("{name}: the peer closed and no verdict came")));
    }
    let server_cpu_seconds = (sys::process_cpu(server.child.pid())? - before) as f64 / 1e9;
    let death = server.deaths()?.next().map(|death| (death.mono_ns, death.bytes, death.cause.clone()));
    let (at, bytes, cause) = death.ok_or_else(|| io::Error::other("the verdict is gone"))?;
    if bytes != sent || cause != "closed" {
        doubts.add(format!("{name}: {sent} bytes and a FIN were sent, {bytes} and '{cause}' reported"));
    }
    if sent == 0 {
        return Err(io::Error::other(format!("{name}: not one byte was streamed")));
    }
    server.end()?;
    stream.finish(PATIENCE)?;
    Ok(Run { bytes: sent, seconds: at.saturating_sub(from) as f64 / 1e9, server_cpu_seconds })
}
