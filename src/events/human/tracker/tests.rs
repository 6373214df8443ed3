use super::*;
use crate::events::json::tracker::tests::samples;
use crate::liveness::TrackerCounts;

fn printer(colour: bool, status: bool) -> Printer {
    let mut printer = Printer::new(samples::locals(), colour, status);
    printer.set_clock(samples::WALL);
    printer
}

fn lines(colour: bool, events: impl IntoIterator<Item = (usize, Event)>) -> String {
    let mut printer = printer(colour, false);
    let mut out = Vec::new();
    for (thread, event) in events {
        printer.event(thread, &event, &mut out);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn a_session_reads_like_this() {
    let mut printer = printer(false, false);
    let mut out = Vec::new();
    printer.listening(&samples::listening(), &mut out);
    for (thread, event) in samples::events() {
        printer.event(thread, &event, &mut out);
    }
    printer.summary(&samples::closing(), &mut out);
    let text = String::from_utf8(out).unwrap().replace(env!("CARGO_PKG_VERSION"), "0.1.0");
    let expected = "\
deadpeer 0.1.0 listens on 127.0.0.1:7400, [2001:db8::1]:7400
policy standard: any byte is life; suspect after 20 s, dead after 32 s (20 s + 3 x 4 s)
io_uring (defer_taskrun, no_sqarray, min_wait, no_iowait, restricted), 2 threads, room for 1048512 connections
12:00:02.000Z  up           192.0.2.7:40312        on 127.0.0.1:7400  [sensor-7]
12:00:05.500Z  recovered    [2001:db8::7]:50000    spoke again after 0.812 s of doubt
12:00:05.900Z  half_closed  [2001:db8::7]:50000    writes no more (FIN), may still read
12:00:06.001Z  suspected    192.0.2.7:40312        silent 4.001 s, being asked  [sensor-7]
12:00:06.234Z  died         127.0.0.1:40312        aborted            reset the connection (ECONNRESET); \
lived 4.234 s, 480 bytes
12:00:09.001Z  died         192.0.2.7:40312        heartbeat_expired  silent 7.001 s, program silent, \
kernel answering (last ack 0.900 s ago); lived 7.001 s, 24 bytes  [sensor-7]
12:00:09.600Z  stall        our own loop was held up for 2.512 s; every deadline is put off by as much (thread 1)
12:00:09.700Z  path_outage  512 of 600 peers are silent and their kernels too: a path is down (thread 1)
12:00:09.800Z  saturated    at the limit (max_connections): new connections wait in the backlog (thread 0)
12:00:09.900Z  resumed      accepting again (thread 0)
12:00:10.000Z  160 opened, 9 open, 151 died in 9 s
  aborted                 149
  heartbeat_expired         1
  unreachable               1
  3 suspected, 2 recovered, 1 stall of our own
  wake to verdict          min 1 us, p50 75 us, p90 135 us, max 150 us, of 150
  lateness of expiries     min 1250 us, p50 1250 us, max 1250 us, of 1
  silence before a verdict min 7001 ms, p50 7001 ms, max 7001 ms, of 1
";
    assert_eq!(text, expected);
}

#[test]
fn every_cause_has_its_sentence() {
    let sentences: Vec<_> = samples::deaths()
        .into_iter()
        .map(|event| match event.kind {
            EventKind::Died(death) => {
                let sentence = Sentence(&death).to_string();
                let end = "; lived 4.234 s, 480 bytes";
                format!("{}: {}", death.cause.as_str(), sentence.strip_suffix(end).unwrap())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let outage = "; half of all peers are silent, so rather a path than this peer";
    assert_eq!(
        sentences,
        [
            "closed: said goodbye (BYE)",
            "aborted: reset the connection (EPIPE)",
            &format!(
                "heartbeat_expired: silent 1.234 s, program silent, kernel silent too (3 probes unanswered){outage}"
            ),
            "keepalive_expired: silent 1.234 s, its kernel answered no keepalive (ETIMEDOUT)",
            "user_timeout: did not acknowledge what we sent (ETIMEDOUT)",
            "unreachable: its host cannot be reached (EHOSTUNREACH)",
            "unreachable: its network cannot be reached (ENETUNREACH)",
            &format!(
                "handshake_expired: connected and did not speak for 1.234 s (no complete heartbeat){outage}"
            ),
            "protocol: sent what is no heartbeat: a frame begins with f5 ad, this does not",
            "local: killed on this machine, as by ss -K (ECONNABORTED)",
            "local: our own side was shut down",
            "local: could not be watched: our fault, not the peer's (133133)",
        ]
    );
}

#[test]
fn what_the_proof_leaves_out_the_sentence_leaves_out() {
    let hung_up = samples::death(Cause::Closed);
    assert!(Sentence(&hung_up).to_string().starts_with("hung up (FIN); lived"));
    let unasked = samples::death(Cause::HeartbeatExpired);
    assert!(Sentence(&unasked).to_string().contains("kernel not asked"));
    let mut unreachable = samples::death(Cause::KeepaliveExpired);
    unreachable.proof.evidence.probes = 1;
    unreachable.proof.evidence.retransmits = 2;
    let sentence = Sentence(&unreachable).to_string();
    assert!(sentence.contains("does not answer (1 probe and 2 retransmissions unanswered)"), "{sentence}");
}

#[test]
fn a_name_cannot_touch_the_terminal() {
    for (identity, shown) in [
        ("a\u{1b}[2Jb", r"[a\u{1b}[2Jb]"),
        ("a\r\nb\u{7f}\u{9b}", r"[a\u{d}\u{a}b\u{7f}\u{9b}]"),
        ("\u{202e}gnp.exe", r"[\u{202e}gnp.exe]"),
        ("größe-7 \u{1f980}", "[größe-7 \u{1f980}]"),
    ] {
        let mut event = samples::reset();
        event.subject.as_mut().unwrap().identity = Some(identity.into());
        let line = lines(false, [(0, event)]);
        assert!(line.ends_with(&format!("  {shown}\n")), "{line}");
        assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line}");
    }
}

#[test]
fn colour_is_around_the_word_and_nowhere_without_being_asked_for() {
    let coloured = lines(true, [(0, samples::reset())]);
    assert!(coloured.contains("  \x1b[31mdied       \x1b[0m  127.0.0.1"), "{coloured:?}");
    let plain = lines(false, samples::events());
    assert!(!plain.contains('\x1b'));
    let coloured = lines(true, samples::events());
    let stripped = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[36m", "\x1b[0m"]
        .iter()
        .fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn a_long_address_widens_the_column_for_what_follows() {
    let mut long = samples::reset();
    long.subject.as_mut().unwrap().address =
        "[2001:db8:1111:2222:3333:4444:5555:6666]:50000".parse().unwrap();
    let text = lines(false, [(0, long), (0, samples::reset())]);
    let columns: Vec<_> = text.lines().map(|line| line.find("aborted").unwrap()).collect();
    assert_eq!(columns[0], columns[1]);
}

#[test]
fn the_status_line_counts_and_stays_on_its_line() {
    let mut printer = printer(false, true);
    let counters = crate::events::counters::Counters::default();
    let counts =
        TrackerCounts { opened: 120, living: 100, suspects: 3, half_closed: 1, ..Default::default() };
    let mut out = Vec::new();
    printer.status(counters.load(), samples::at_millis(1_000), &mut out);
    counters.store(&counts);
    printer.status(counters.load(), samples::at_millis(3_000), &mut out);
    let text = String::from_utf8(out).unwrap();
    let last = text.rsplit("\r\x1b[K").next().unwrap();
    assert_eq!(last, "96 alive, 3 suspect, 1 half-closed, 0 died  (+60/s -0/s)");
    assert!(!text.contains('\n'));

    let mut silent = self::printer(false, false);
    let mut out = Vec::new();
    silent.clear_status(&mut out);
    silent.status(counters.load(), samples::at_millis(1_000), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_span_is_told_in_the_units_that_matter() {
    for (millis, text) in [
        (0, "0 s"),
        (7_003, "7.003 s"),
        (59_999, "59.999 s"),
        (60_000, "1 min 0 s"),
        (3_725_000, "1 h 2 min"),
        (180_000_000, "2 d 2 h"),
    ] {
        assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
    }
}
