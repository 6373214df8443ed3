//! The lines for people.

use super::*;
use crate::events::tracker::death::sentence;
use crate::liveness::{Cause, EventKind};

const PLAIN: Format = Format::Human { colour: false, screen: Screen::None };
const COLOURED: Format = Format::Human { colour: true, screen: Screen::None };

fn lines(format: Format, events: impl IntoIterator<Item = (usize, Event)>) -> String {
    written(&mut encoder(format), events)
}

#[test]
fn a_session_reads_like_this() {
    let mut encoder = encoder(PLAIN);
    let mut out = Vec::new();
    encoder.opening(&samples::listening(), &mut out);
    for (thread, event) in event::samples() {
        encoder.event(thread, &event, &mut out);
    }
    encoder.closing(&samples::closing(), &mut out);
    let text = String::from_utf8(out).unwrap().replace(env!("CARGO_PKG_VERSION"), "0.1.0");
    let expected = "\
deadpeer 0.1.0 listens on 127.0.0.1:7400, [2001:db8::1]:7400
policy standard: any byte is life; suspect after 20 s, dead after 32 s (20 s + 3 x 4 s)
io_uring (defer_taskrun, no_sqarray, min_wait, no_iowait, restricted), 2 threads, room for 1048512 connections
12:00:02.000Z  up           192.0.2.7:40312        on 127.0.0.1:7400  [sensor-7]
12:00:05.500Z  recovered    [2001:db8::7]:50000    spoke again after 0.812 s of doubt
12:00:05.900Z  half_closed  [2001:db8::7]:50000    writes no more (FIN), may still read
12:00:07.001Z  suspected    192.0.2.7:40312        silent 5.001 s, being asked  [sensor-7]
12:00:06.234Z  died         127.0.0.1:40312        aborted            reset the connection (ECONNRESET); \
lived 4.234 s, 480 bytes
12:00:09.001Z  died         192.0.2.7:40312        heartbeat_expired  silent 7.001 s, program silent, \
kernel answering (last ack 0.900 s ago); lived 7.001 s, 24 bytes  [sensor-7]
12:00:09.600Z  stall        our own loop was held up for 2.512 s; every deadline is put off by as much (thread 1)
12:00:09.700Z  path_outage  512 of 600 peers are silent and their kernels too: a path is down (thread 1)
12:00:09.800Z  saturated    at the limit (max_connections): new connections wait in the backlog (thread 0)
12:00:09.900Z  resumed      accepting again (thread 0)
12:00:09.950Z  duplicate    [2001:db8::7]:50000    has the identity of [2001:db8::7]:49000, which is still connected
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
                let sentence = sentence(&death);
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
            "local: replaced by a newer connection of its identity",
            "local: took nothing of what was sent for too long",
        ]
    );
}

#[test]
fn what_the_proof_leaves_out_the_sentence_leaves_out() {
    let hung_up = samples::death(Cause::Closed);
    assert!(sentence(&hung_up).starts_with("hung up (FIN); lived"));
    let unasked = samples::death(Cause::HeartbeatExpired);
    assert!(sentence(&unasked).contains("kernel not asked"));
    let mut unreachable = samples::death(Cause::KeepaliveExpired);
    unreachable.proof.evidence.probes = 1;
    unreachable.proof.evidence.retransmits = 2;
    let sentence = sentence(&unreachable);
    assert!(sentence.contains("does not answer (1 probe and 2 retransmissions unanswered)"), "{sentence}");
}

#[test]
fn a_name_cannot_touch_the_terminal() {
    let mut event = samples::reset();
    event.subject.as_mut().unwrap().identity = Some("a\u{1b}[2Jb\u{e0041}größe".into());
    let line = lines(PLAIN, [(0, event)]);
    assert!(line.ends_with("  [a\\u{1b}[2Jb\\u{e0041}größe]\n"), "{line}");
}

#[test]
fn an_orderly_end_is_not_red() {
    let closed = lines(COLOURED, [(0, samples::died(samples::death(Cause::Closed)))]);
    assert!(closed.contains("\x1b[36mdied") && !closed.contains("\x1b[31m"), "{closed:?}");
}

#[test]
fn colour_is_around_the_word_and_nowhere_without_being_asked_for() {
    let coloured = lines(COLOURED, [(0, samples::reset())]);
    assert!(coloured.contains("  \x1b[31mdied       \x1b[0m  127.0.0.1"), "{coloured:?}");
    let plain = lines(PLAIN, event::samples());
    assert!(!plain.contains('\x1b'));
    let coloured = lines(COLOURED, event::samples());
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
    let text = lines(PLAIN, [(0, long), (0, samples::reset())]);
    let columns: Vec<_> = text.lines().map(|line| line.find("aborted").unwrap()).collect();
    assert_eq!(columns[0], columns[1]);
}

#[test]
fn the_status_line_counts_and_stays_on_its_row() {
    let counts =
        TrackerCounts { opened: 120, living: 100, suspects: 3, half_closed: 1, ..Default::default() };
    let totals = TrackerStream::totals(&counts);
    assert_eq!(totals, [120, 96, 3, 1, 0]);
    let status = TrackerStream::status(&totals, &[60.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(status, "96 alive, 3 suspect, 1 half-closed, 0 died  (+60/s -0/s)");
}

#[test]
fn people_get_sentences_and_the_status_line_is_gone_at_the_end() {
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::writer("a pipe", writer);
    let format = Format::Human { colour: false, screen: Screen::Columns(200) };
    let stream = TrackerStream::new(samples::locals());
    let (sink, mut outlets) = Sink::spawn(stream, format, Filter::default(), output, 2).unwrap();
    sink.announce(samples::listening());
    for (outlet, living) in outlets.iter_mut().zip([5, 2]) {
        let counts = TrackerCounts { opened: 5, living, suspects: 1, ..TrackerCounts::default() };
        outlet.progress(&counts);
    }
    assert_eq!(Counters::sum(sink.counters()), [10, 5, 2, 0, 0]);
    assert!(outlets[0].offer(vec![samples::reset()]).is_ok());
    assert!(matches!(sink.finish(samples::closing(), PATIENCE), Finish::Delivered));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("died         127.0.0.1:40312        aborted"), "{text}");
    let last = text.rsplit("\x1b[K").next().unwrap();
    assert!(last.contains("151 died") && last.ends_with('\n'), "{last}");
    assert!(!last.contains("half-closed, "), "{last}");
}
