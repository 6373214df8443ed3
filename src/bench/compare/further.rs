//! Measurements on request: the CPU of a peer at several rates of beats, and the throughput of one peer.

use std::io;
use std::time::Duration;

use super::beating::Window;
use super::life::PATIENCE;
use super::subjects::Row;
use super::{Bench, Measure, Options};
use crate::bench::peers::PeersPlan;
use crate::bench::stream::StreamPlan;
use crate::measure::result::Run;
use crate::time::nanos;

const PEERS: usize = 300;
/// Beats a second of each of them.
const RATES: [u32; 3] = [1, 10, 100];
/// The duration of the stream; the window where that is shorter.
const STREAM: Duration = Duration::from_secs(2);

fn stream_lasts(options: &Options) -> Duration {
    STREAM.min(Duration::from_nanos(options.settings.window_ns))
}

/// About how long it takes.
pub(super) fn takes(options: &Options, row: &Row) -> Duration {
    let mut sum = Duration::ZERO;
    if options.measures(Measure::Rates) && row.buries() {
        let once = options.settings.warm_up_ns + options.settings.window_ns + 500_000_000;
        sum += Duration::from_nanos(once) * RATES.len() as u32;
    }
    if options.measures(Measure::Stream) && row.judges() {
        sum += stream_lasts(options) + Duration::from_millis(500);
    }
    sum
}

pub(super) fn live(bench: &mut Bench<'_, '_>, row: &Row, run: &mut Run) -> io::Result<()> {
    if bench.options.measures(Measure::Rates) && row.buries() {
        rates(bench, row, run)?;
    }
    if bench.options.measures(Measure::Stream) && row.judges() {
        stream(bench, row, run)?;
    }
    Ok(())
}

/// Measures CPU per peer and second at each rate. In lazy mode it must not grow with the rate.
fn rates(bench: &mut Bench<'_, '_>, row: &Row, run: &mut Run) -> io::Result<()> {
    let options = bench.options;
    let settings = &options.settings;
    let peers = usize::try_from(settings.connections).map_or(PEERS, |most| PEERS.min(most));
    for each in RATES {
        let server = bench.stage.start(row, f64::from(each) * settings.beat_bytes as f64)?;
        let [beat_bytes, first_bytes] =
            [settings.beat_bytes, row.mark()].map(|bytes| usize::try_from(bytes).expect("it fits memory"));
        let plan = PeersPlan::new(server.address, peers, beat_bytes);
        let plan = PeersPlan { pace_ns: nanos(options.stroke), first_bytes, ..plan };
        let mut load = bench.stage.connect(&server, &plan)?;
        let rate = f64::from(each) * peers as f64;
        let window = Window { rate, warm_up_ns: settings.warm_up_ns, window_ns: settings.window_ns };
        let (beats, _) = window.measure(bench, row, &server, &mut load)?;
        let peer_seconds = peers as f64 * beats.window_ns as f64 / 1e9;
        let cost = beats.process_ns as f64 / peer_seconds;
        run.further.insert(format!("rate_{each}_process_ns_per_peer_second"), cost.round() as i64);
        load.end()?;
        server.end()?;
    }
    Ok(())
}

/// Measures from the first byte to the verdict on the FIN, by when all bytes are read.
fn stream(bench: &mut Bench<'_, '_>, row: &Row, run: &mut Run) -> io::Result<()> {
    let mut server = bench.stage.start(row, 0.0)?;
    let lasts = stream_lasts(bench.options);
    let plan = StreamPlan { server: server.address, lasts_ns: nanos(lasts) };
    let mut peer = bench.stage.start_role("stream", &plan)?;
    peer.wait_for("connected", PATIENCE)?;
    server.wait_held(1, "accepted")?;
    let before = server.cpu_ns()?;
    peer.tell(&"go")?;
    let streamed = peer.wait_for("streamed", lasts + PATIENCE)?;
    let (sent, from) = (streamed.bytes, streamed.mono_ns);
    if server.wait_deaths(1, PATIENCE)? == 0 {
        return Err(io::Error::other("no verdict on the peer that streamed and closed"));
    }
    let process_ns = server.cpu_ns()? - before;
    let death = server.deaths()?.next().map(|death| (death.mono_ns, death.bytes));
    let (at, counted) = death.ok_or_else(|| io::Error::other("the verdict is gone"))?;
    bench.doubts.bytes_uncounted(row.name, sent, counted);
    let seconds = at.saturating_sub(from) as f64 / 1e9;
    let gigabytes = sent as f64 / 1e9;
    run.further.insert("stream_bytes_per_second".into(), (sent as f64 / seconds) as i64);
    run.further.insert("stream_process_ns_per_gigabyte".into(), (process_ns as f64 / gigabytes) as i64);
    server.end()?;
    peer.finish(PATIENCE).map(drop)
}
