//! `deadpeer beat`: its connections, its output, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::daemon::{Daemon, Killed};
use crate::outcome::{Outcome, deadpeer, nobody, outcome};
use crate::skip::skip;

fn start(to: SocketAddr, options: &str) -> Killed {
    let mut command = deadpeer(&format!("beat {to} {options}"));
    Killed(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The totals by name, from the one line of output.
#[track_caller]
fn totals(outcome: &Outcome) -> BTreeMap<&str, u64> {
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:#?}");
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    let totals = words.chunks(2).map(|pair| (pair[0], pair[1].parse().unwrap())).collect::<BTreeMap<_, _>>();
    let names = [
        "beats",
        "pongs_answered",
        "skipped",
        "established",
        "refused",
        "failed",
        "lost_closed",
        "lost_reset",
        "lost_path",
        "lost_protocol",
        "byes",
    ];
    assert_eq!(totals.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(names));
    totals
}

#[test]
fn it_holds_as_many_as_it_is_told_beats_under_their_names_and_says_goodbye_at_a_signal() {
    for signal in ["-INT", "-TERM"] {
        let mut daemon = Daemon::start(None, "127.0.0.1:0", &["--heartbeat", "frames"]);
        let client = start(daemon.address, "--count 3 --every 20ms --identity camera");
        daemon.wait_for_many("up", 3);
        client.signal(signal);
        daemon.wait_for_many("died", 3);
        let outcome = Outcome::after(client);
        outcome.assert_quiet_success();
        let totals = totals(&outcome);
        assert_eq!((totals["established"], totals["byes"]), (3, 3), "{outcome:#?}");
        assert_eq!(totals["refused"] + totals["failed"] + totals["lost_closed"] + totals["lost_reset"], 0);

        let died: Vec<_> = daemon.seen.iter().filter(|event| event["event"] == "died").collect();
        assert!(
            died.iter().all(|died| died["cause"] == "closed" && died["proof"]["bye"] == true),
            "{died:#?}"
        );
        let names: BTreeSet<_> = died.iter().map(|died| died["identity"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["camera-0", "camera-1", "camera-2"]));
        // A HELLO with its name, the beats and a BYE, 16 bytes each, are all that was sent.
        let bytes: u64 = died.iter().map(|died| died["bytes"].as_u64().unwrap()).sum();
        assert_eq!(bytes, 3 * ("camera-0".len() as u64 + 2 * 16) + 16 * totals["beats"]);
    }
}

#[test]
fn one_connection_has_the_name_as_it_was_given() {
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &["--heartbeat", "frames"]);
    outcome(&format!("beat {} --identity door --for 50ms", daemon.address)).assert_quiet_success();
    assert_eq!(daemon.wait_for("died")["identity"], "door");
}

#[test]
fn it_beats_as_often_as_it_is_told_and_stops_by_itself_when_its_time_is_over() {
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &[]);
    let often = outcome(&format!("beat {} --every 20ms --for 1s", daemon.address));
    often.assert_quiet_success();
    let often = totals(&often);
    // 49 are due; on a busy machine some are skipped, and these are counted.
    assert!(often["beats"] + often["skipped"] >= 25, "{often:?}");
    let seldom = outcome(&format!("beat {} --every 1h --for 100ms", daemon.address));
    assert_eq!(totals(&seldom)["beats"], 0);
    daemon.wait_for_many("died", 2);
}

#[test]
fn where_no_program_listens_it_says_so_and_asks_for_the_server() {
    let address = nobody();
    for options in ["", "--count 3", "--reconnect --for 300ms"] {
        let outcome = outcome(&format!("beat {address} {options}"));
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        for word in [&address.to_string(), "Connection refused", "is `deadpeer run` listening there?"] {
            assert!(outcome.stderr.contains(word), "{outcome:#?}");
        }
        assert!(!outcome.stderr.contains("os error"), "{outcome:#?}");
        let totals = totals(&outcome);
        assert!(totals["refused"] >= 1 && totals["established"] == 0, "{totals:?}");
    }
}

#[test]
fn a_server_that_goes_away_ends_it_with_the_reason_and_the_cure() {
    let mut daemon = Daemon::start(None, "127.0.0.1:0", &[]);
    let client = start(daemon.address, "--count 2 --every 20ms");
    daemon.wait_for_many("up", 2);
    daemon.child.signal("-KILL");
    let outcome = Outcome::after(client);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    for word in [
        &daemon.address.to_string(),
        "ended every connection",
        "is `deadpeer run` still there",
        "--reconnect",
    ] {
        assert!(outcome.stderr.contains(word), "{outcome:#?}");
    }
    let totals = totals(&outcome);
    assert_eq!(totals["lost_closed"] + totals["lost_reset"], 2, "{totals:?}");
}

#[test]
fn with_reconnect_it_comes_back_to_a_server_that_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(listener.local_addr().unwrap(), "--reconnect --every 20ms");
    drop(listener.accept().unwrap());
    let (mut again, _) = listener.accept().unwrap();
    again.read_exact(&mut [0; 16]).unwrap();
    client.signal("-INT");
    // It waits for our FIN before it leaves.
    while again.read(&mut [0; 64]).unwrap() > 0 {}
    drop(again);
    let outcome = Outcome::after(client);
    outcome.assert_quiet_success();
    let totals = totals(&outcome);
    assert_eq!((totals["established"], totals["byes"]), (2, 1), "{totals:?}");
}

#[test]
fn a_server_of_another_kind_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(listener.local_addr().unwrap(), "--every 20ms");
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    let outcome = Outcome::after(client);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("sends no heartbeat frames; is it `deadpeer run`?"), "{outcome:#?}");
    assert_eq!(totals(&outcome)["lost_protocol"], 1);
}

#[test]
fn without_a_terminal_it_prints_only_the_totals() {
    let daemon = Daemon::start(None, "127.0.0.1:0", &[]);
    for options in ["--for 300ms", "--for 300ms --quiet"] {
        let outcome = outcome(&format!("beat {} --every 20ms {options}", daemon.address));
        outcome.assert_quiet_success();
        assert!(!outcome.stdout.contains('\x1b') && totals(&outcome)["established"] == 1, "{outcome:#?}");
    }
}

#[test]
fn a_terminal_shows_a_status_line_while_it_runs_unless_that_is_not_wanted() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("no `script`: install bsdutils");
    }
    let daemon = Daemon::start(None, "127.0.0.1:0", &[]);
    for (options, status) in [("", true), ("--quiet", false)] {
        let beat = deadpeer(&format!("beat {} --every 20ms --for 700ms {options}", daemon.address));
        let words: Vec<_> = std::iter::once(beat.get_program()).chain(beat.get_args()).collect();
        let line = words.join(" ".as_ref());
        let mut command = Command::new("script");
        command.arg("-qec").arg(line).arg("/dev/null");
        let outcome = Outcome::of(&mut command);
        outcome.assert_quiet_success();
        let shown = outcome.stdout.contains("\r\x1b[K1 up, ");
        assert_eq!(shown, status, "{options}: {outcome:#?}");
        // The totals replace the status line.
        let last_line = outcome.stdout.trim_end().rsplit('\n').next().unwrap();
        assert!(last_line.rsplit("\x1b[K").next().unwrap().starts_with("beats "), "{outcome:#?}");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start(listener.local_addr().unwrap(), "--every 20ms");
    // A server that never sends its FIN: an orderly end would wait for it.
    let (mut server, _): (TcpStream, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 16]).unwrap();
    for signal in ["-STOP", "-TERM", "-INT", "-CONT"] {
        client.signal(signal);
    }
    let outcome = Outcome::after(client);
    let code = outcome.code.expect("it exits, and is not killed");
    assert!(code == 128 + libc::SIGTERM || code == 128 + libc::SIGINT, "{outcome:#?}");
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
}
