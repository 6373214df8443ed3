//! `deadpeer beat`: the heartbeat client on the command line.
//!
//! It shows a status line while it runs, if standard error is a terminal, and one line of totals on standard output at the
//! end. Exit code 0 after an orderly end, 1 if no connection came up, the server ended every connection or the machine
//! refused something, 2 for wrong arguments.

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use crate::cli::duration;
use crate::cli::exit::{ExitError, exit, print, spawn_thread, thread_ended, watch_signals};
use crate::client::{Client, ClientConfig, ClientError, Progress, Stop, Totals};
use crate::sys::describe;
use crate::time::Instant;

/// The status line is written at most this often.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `deadpeer beat`.
#[derive(Args, Clone, Debug)]
pub struct BeatArgs {
    /// The server's address or name, and its port: 127.0.0.1:7400
    #[arg(value_name = "ADDR")]
    pub address: String,

    /// Number of connections, 1 to 64512
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: usize,

    /// Mean interval between two heartbeats of a connection; a third of the server's detection time is a good choice
    #[arg(long, value_name = "D", default_value = "1s", value_parser = duration::parse)]
    pub every: Duration,

    /// Name to send in the HELLO; with more than one connection -0, -1, ... is appended
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,

    /// Stop after this time [default: at Ctrl-C or SIGTERM]
    #[arg(long = "for", value_name = "D", value_parser = duration::parse)]
    pub lasting: Option<Duration>,

    /// Seed of the jitter: the same seed gives the same times
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,

    /// Connect again after a failure or a loss, after 100 ms to 10 s
    #[arg(long)]
    pub reconnect: bool,

    /// Do not show a status line
    #[arg(long)]
    pub quiet: bool,
}

impl From<ClientError> for ExitError {
    fn from(error: ClientError) -> ExitError {
        if error.is_configuration() { ExitError::usage(error) } else { ExitError::failed(error) }
    }
}

/// Runs `deadpeer beat` until its time is over, SIGINT or SIGTERM, or no connection is left.
#[must_use]
pub fn beat(args: BeatArgs) -> ExitCode {
    exit("beat", hold(&args))
}

fn hold(args: &BeatArgs) -> Result<(), ExitError> {
    let (address, others) = resolve(&args.address).map_err(ExitError::usage)?;
    let client = Client::new(ClientConfig {
        address,
        count: args.count,
        every: args.every,
        identity: args.identity.clone(),
        seed: args.seed,
        reconnect: args.reconnect,
        lasting: args.lasting,
    })?;
    let signals_ended = stop_at_a_signal(client.stop_handle())?;
    let mut status = Status::new(!args.quiet && io::stderr().is_terminal());
    let outcome = client.run(|progress| status.show(progress, Instant::now()));
    status.clear();
    let totals = outcome?;
    if signals_ended.load(Ordering::Acquire) {
        return Err(ExitError::failed(thread_ended("signals")));
    }
    print(&format!("{}\n", line(&totals))).map_err(|error| {
        let error = describe(&error);
        ExitError::failed(format!("cannot write the totals to standard output: {error}; send it elsewhere"))
    })?;
    if totals.established == 0 && totals.refused + totals.failed > 0 {
        return Err(ExitError::failed(no_server(address, &others, &totals)));
    }
    if totals.lost() > 0 && totals.lost() == totals.established && !args.reconnect {
        return Err(ExitError::failed(all_lost(address, &totals)));
    }
    Ok(())
}

/// Resolves the address: the one to use, and the others. IPv4 comes first, since `deadpeer run` listens on it by
/// default.
fn resolve(text: &str) -> Result<(SocketAddr, Vec<SocketAddr>), String> {
    let cure = "write it as host:port, 127.0.0.1:7400 or [::1]:7400";
    let found = text
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve `{text}`: {}; {cure}", describe(&error)))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6); // stable: the resolver's order is kept otherwise
    if found.is_empty() {
        return Err(format!("`{text}` has no address; {cure}"));
    }
    let others = found.split_off(1);
    Ok((found[0], others))
}

fn no_server(address: SocketAddr, others: &[SocketAddr], totals: &Totals) -> String {
    let reason = totals
        .last_errno
        .map_or_else(String::new, |errno| format!(" ({})", describe(&io::Error::from_raw_os_error(errno))));
    let mut message = if totals.refused > 0 {
        format!("every connect to {address} was refused{reason}: is `deadpeer run` listening there?")
    } else {
        format!(
            "no connect to {address} succeeded{reason}: is the address right, and does a firewall drop it?"
        )
    };
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(SocketAddr::to_string).collect();
        message.push_str(&format!(" Not tried: {}.", others.join(", ")));
    }
    message
}

fn all_lost(address: SocketAddr, totals: &Totals) -> String {
    let question = if totals.lost_protocol > 0 {
        "it sends no heartbeat frames; is it `deadpeer run`?"
    } else {
        "is `deadpeer run` still there, and is --every well below its detection time? --reconnect tries again"
    };
    format!("the server {address} ended every connection: {question}")
}

/// Starts the thread that waits for signals: the first one ends the client in order, the second one at once. Without that
/// thread no signal would end the client, so its own end stops the client too, and sets the returned flag.
fn stop_at_a_signal(stop: Stop) -> Result<Arc<AtomicBool>, ExitError> {
    let ended = Arc::new(AtomicBool::new(false));
    let guard = StopOnDrop { stop: stop.clone(), ended: Arc::clone(&ended) };
    let watch = watch_signals(1, move || stop.stop())?;
    spawn_thread("signals", move || {
        let _guard = guard;
        watch();
    })?;
    Ok(ended)
}

/// Stops the client at the end of a thread, also if the thread panics.
struct StopOnDrop {
    stop: Stop,
    ended: Arc<AtomicBool>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.stop.stop();
    }
}

/// The totals in one line: each name with its number.
fn line(totals: &Totals) -> String {
    format!(
        "beats {} pongs_answered {} skipped {} established {} refused {} failed {} lost_closed {} lost_reset {} \
         lost_path {} lost_protocol {} byes {}",
        totals.beats,
        totals.pongs_answered,
        totals.skipped,
        totals.established,
        totals.refused,
        totals.failed,
        totals.lost_closed,
        totals.lost_reset,
        totals.lost_path,
        totals.lost_protocol,
        totals.byes,
    )
}

/// A line on a terminal that is overwritten with each change.
struct Status {
    shown: bool,
    next: Option<Instant>,
}

impl Status {
    fn new(wanted: bool) -> Status {
        Status { shown: false, next: wanted.then_some(Instant::ZERO) }
    }

    fn show(&mut self, progress: &Progress, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + STATUS_EVERY);
        self.shown = true;
        let totals = &progress.totals;
        let mut line = format!("{} up, {} beats", progress.connected, totals.beats);
        for (count, what) in [
            (progress.connecting as u64, "connecting"),
            (progress.waiting as u64, "waiting"),
            (totals.refused, "refused"),
            (totals.failed, "failed"),
            (totals.lost(), "lost"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        // To the first column; the rest of an older line is erased. A line that wraps could not be overwritten.
        line.truncate(79);
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_refused_with_its_cure() {
        for text in ["127.0.0.1", "::1", "", "127.0.0.1:port"] {
            let message = resolve(text).unwrap_err();
            assert!(message.contains("host:port"), "{message}");
        }
        assert_eq!(resolve("[::1]:7400").unwrap().0, "[::1]:7400".parse().unwrap());
    }

    #[test]
    fn a_refusal_asks_whether_the_server_runs() {
        let totals = Totals { refused: 3, last_errno: Some(libc::ECONNREFUSED), ..Totals::default() };
        let address = "127.0.0.1:7400".parse().unwrap();
        let message = no_server(address, &["[::1]:7400".parse().unwrap()], &totals);
        assert!(message.contains("127.0.0.1:7400") && message.contains("is `deadpeer run` listening there?"));
        assert!(message.ends_with("Not tried: [::1]:7400."));
    }
}
