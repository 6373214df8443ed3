//! `deadpeer beat`: the heartbeat client, for people and scripts.
//!
//! A status line while it runs if standard error is a terminal; at the end one line of totals on
//! standard output. Exit code 0 after an orderly end, 1 when nothing could be reached, when nobody
//! was left, or when the machine refused, 2 for wrong arguments.

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::duration;
use crate::cli::exit::{ExitError, exit};
use crate::client::{Client, ClientConfig, ClientError, Progress, Stop, Totals};
use crate::sys::describe;
use crate::time::Instant;

/// The status line is written this often; people cannot read faster.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `deadpeer beat`.
#[derive(Args, Clone, Debug)]
pub struct BeatArgs {
    /// The server: address or name, and port, as `127.0.0.1:7400`
    #[arg(value_name = "ADDR")]
    pub address: String,

    /// How many connections to hold
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: usize,

    /// The mean interval between two heartbeats of a connection
    #[arg(long, value_name = "D", default_value = "1s", value_parser = duration::parse)]
    pub every: Duration,

    /// The name to say HELLO with; with more than one connection, -0, -1, ... are added
    #[arg(long, value_name = "S")]
    pub identity: Option<String>,

    /// Stop after this long instead of at a signal
    #[arg(long = "for", value_name = "D", value_parser = duration::parse)]
    pub lasting: Option<Duration>,

    /// Seeds the jitter, to draw the same one again
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,

    /// Try again what failed or was lost, after a growing wait
    #[arg(long)]
    pub reconnect: bool,

    /// Show no status line
    #[arg(long)]
    pub quiet: bool,
}

impl From<ClientError> for ExitError {
    fn from(error: ClientError) -> ExitError {
        if error.is_configuration() { ExitError::usage(error) } else { ExitError::failed(error) }
    }
}

/// Runs `deadpeer beat` until its time is over, SIGINT or SIGTERM, or nobody is left.
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
    stop_at_a_signal(client.stop_handle()).map_err(ExitError::failed)?;
    let mut status = Status::new(!args.quiet && io::stderr().is_terminal());
    let outcome = client.run(|progress| status.show(progress, Instant::now()));
    status.clear();
    let totals = outcome?;
    match writeln!(io::stdout(), "{}", line(&totals)) {
        // Whoever closed our output does not want the line; that is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = describe(&error);
            return Err(ExitError::failed(format!(
                "cannot write the totals to standard output: {error}; send it elsewhere"
            )));
        }
        Ok(()) | Err(_) => {}
    }
    if totals.established == 0 && totals.refused + totals.failed > 0 {
        return Err(ExitError::failed(nobody_there(address, &others, &totals)));
    }
    if totals.lost() > 0 && totals.lost() == totals.established && !args.reconnect {
        return Err(ExitError::failed(nobody_left(address, &totals)));
    }
    Ok(())
}

/// The first address to try, and those that are left out. IPv4 comes first, since that is what
/// `deadpeer run` listens on unless it is told otherwise.
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

fn nobody_there(address: SocketAddr, others: &[SocketAddr], totals: &Totals) -> String {
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

fn nobody_left(address: SocketAddr, totals: &Totals) -> String {
    let question = if totals.lost_protocol > 0 {
        "what answers there speaks no heartbeat frames; is it `deadpeer run`?"
    } else {
        "is `deadpeer run` still there, and does its policy allow for this --every? --reconnect tries again"
    };
    format!("every connection to {address} was ended, and not by us: {question}")
}

/// The first signal asks for an orderly end; the second does not ask.
fn stop_at_a_signal(stop: Stop) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
        let error = describe(&error);
        format!("cannot listen for SIGINT and SIGTERM: {error}; raise `ulimit -n` if descriptors ran out")
    })?;
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            stop.stop();
        }
        if let Some(signal) = signals.next() {
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// The totals in one line, each number with its name.
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

/// One line on a terminal, written over itself.
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
        // Back to the first column, and the rest of an older line erased.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{} up, {} connecting, {} waiting; {} beats, {} refused, {} failed, {} lost",
            progress.connected,
            progress.connecting,
            progress.waiting,
            totals.beats,
            totals.refused,
            totals.failed,
            totals.lost(),
        );
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
        let message = nobody_there(address, &["[::1]:7400".parse().unwrap()], &totals);
        assert!(message.contains("127.0.0.1:7400") && message.contains("is `deadpeer run` listening there?"));
        assert!(message.ends_with("Not tried: [::1]:7400."));
    }
}
