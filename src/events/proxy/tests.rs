//! docs/HTTP.md, held against what is written.

use std::time::Duration;

use super::*;
use crate::events::encoder::{Filter, Format, Stream};
use crate::events::human::Screen;
use crate::events::start::{self, Start};
use crate::events::tests::{names_all, shows_each_line};
use crate::http::Reason;
use crate::liveness::Cause;
use crate::proxy::{
    Answered, Asked, Counts, Failure, Interrupted, Line, Parties, Phase, ProxyEvent, ProxyFault, Refusal,
    Shown, Sign, UpstreamAction, UpstreamFailed,
};
use crate::reactor::Address;
use crate::time::{Instant, WallClock};

const DOCUMENT: &str = include_str!("../../../docs/HTTP.md");

const AT: Instant = Instant::from_nanos(9_000_000_000);

fn parties() -> Parties {
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    Parties { client: address("192.0.2.7:50000"), upstream: Some(address("127.0.0.1:9000")) }
}

fn interrupted() -> Interrupted {
    Interrupted {
        phase: Phase::Waiting,
        method: Some("GET".into()),
        target: Some("/report?year=2026".into()),
        status: None,
        request_bytes: 143,
        response_bytes: 0,
        elapsed: Duration::from_micros(812_345),
        after: None,
        cause: Cause::Aborted,
        asked: Some(Asked { ago: Duration::from_micros(34), acknowledged: false }),
        action: UpstreamAction::Reset,
        saved: true,
    }
}

fn resolved() -> Vec<Address> {
    ["192.0.2.9:9000", "192.0.2.10:9000"].map(|text| Address::Ip(text.parse().unwrap())).to_vec()
}

fn told(told: ProxyEvent) -> Line {
    Line::Told { at: AT, parties: parties(), shown: Shown { mask: 0x2018, errno: Some(104) }, told }
}

fn lines() -> Vec<Line> {
    let sending = Interrupted {
        phase: Phase::Sending,
        status: Some(200),
        response_bytes: 65_536,
        after: Some(Duration::from_millis(310)),
        asked: None,
        ..interrupted()
    };
    let failed = UpstreamFailed {
        failure: Failure::Refused,
        phase: Phase::Waiting,
        method: Some("GET".into()),
        target: Some("/".into()),
        status: None,
        response_bytes: 0,
        answered: Some(502),
    };
    let answered = Answered {
        refusal: Refusal::BodyTimeout,
        phase: Phase::Receiving,
        method: Some("POST".into()),
        target: Some("/upload".into()),
        request_bytes: 4_096,
    };
    vec![
        told(ProxyEvent::Interrupted(Box::new(interrupted()))),
        told(ProxyEvent::Interrupted(Box::new(sending))),
        Line::Completed { at: AT, completed: 120, completed_total: 4_711, interrupted_total: 3 },
        told(ProxyEvent::UpstreamFailed(Box::new(failed))),
        Line::Upstream {
            at: AT,
            upstream: parties().upstream.unwrap(),
            failure: Some(Failure::Reset),
            sign: Sign::Request,
        },
        Line::Upstream { at: AT, upstream: parties().upstream.unwrap(), failure: None, sign: Sign::Check },
        told(ProxyEvent::NotFollowed { reason: Reason::BothLengths, refused: false }),
        Line::Stall { at: AT, held: Duration::from_millis(1_234) },
        Line::Saturated { at: AT, limit: "max_connections" },
        Line::Resumed { at: AT },
        Line::Dropped { at: AT, dropped: 900, during: Duration::from_millis(5_300) },
        told(ProxyEvent::Answered(Box::new(answered))),
        Line::Draining { at: AT, exchanges: 3, tunnels: 1, idle: 12 },
        Line::Resolved { at: AT, name: "app:9000".into(), addresses: resolved(), error: None },
        Line::Resolved {
            at: AT,
            name: "app:9000".into(),
            addresses: resolved(),
            error: Some("failed to lookup address information: Name or service not known".into()),
        },
        told(ProxyEvent::HeaderRefused(ProxyFault::Missing)),
    ]
}

fn opening() -> Listening {
    Listening {
        start: Start { at: AT, ..start::sample() },
        upstreams: vec!["127.0.0.1:9000".to_owned()],
        mode: "http",
        half_close: "probe".to_owned(),
        on_gone: "reset",
        detection_time: Duration::from_secs(32),
    }
}

fn closing() -> Closing {
    let mut counts = Counts { opened: 160, open: 9, completed: 4_711, saved: 2, ..Counts::default() };
    counts.interrupted = 3;
    counts.by_phase[2][1] = 2;
    counts.by_phase[1][0] = 1;
    (counts.asked, counts.asked_gone, counts.asked_here) = (3, 1, 2);
    (counts.upstream_failed, counts.upstream_down, counts.not_followed) = (1, 1, 1);
    counts.gave_way = 6;
    (counts.connects, counts.reused, counts.repeated) = (40, 4_680, 1);
    (counts.client_bytes, counts.upstream_bytes) = (700_000, 9_000_000);
    (counts.cut[Phase::Tunnel as usize], counts.dropped) = (1, 900);
    (counts.answered[1], counts.answered[3]) = (4, 1);
    let drained = Duration::from_secs(30);
    Closing { at: AT, uptime: Duration::from_secs(60), counts, undelivered: 0, drained }
}

fn written(format: Format, lines: Vec<Line>) -> String {
    let mut encoder = ProxyEncoder::new(ProxyStream, format, Filter::default());
    encoder.set_clock(WallClock::fixed(1_764_000_000_000_000_000));
    let mut out = Vec::new();
    encoder.opening(&opening(), &mut out);
    for line in &lines {
        encoder.event(0, line, &mut out);
    }
    encoder.closing(&closing(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_document_shows_each_line_as_it_is_written() {
    shows_each_line(DOCUMENT, &written(Format::JsonLines, lines()));
}

#[test]
fn the_document_names_every_field_and_every_word() {
    let failures = [
        Failure::Refused,
        Failure::TimedOut,
        Failure::Unreachable,
        Failure::Closed,
        Failure::Reset,
        Failure::Truncated,
        Failure::Status,
        Failure::Full,
        Failure::Local,
    ];
    let words = Reason::ALL.map(Reason::as_str).into_iter().chain(Phase::ALL.map(Phase::as_str));
    let words = words.chain(failures.map(Failure::as_str)).chain(Refusal::ALL.map(Refusal::as_str));
    let words = words.chain(ProxyFault::ALL.map(ProxyFault::as_str));
    names_all(DOCUMENT, &written(Format::JsonLines, lines()), words);
}

#[test]
fn people_get_one_sentence_a_line_and_nothing_that_a_client_could_have_put_in_their_terminal() {
    let mut events = lines();
    let hostile = Interrupted { target: Some("/\u{1b}[2J\u{7}\u{202e}".into()), ..interrupted() };
    events.push(told(ProxyEvent::Interrupted(Box::new(hostile))));
    let text = written(Format::Human { colour: false, screen: Screen::None }, events);
    assert!(text.chars().all(|letter| letter == '\n' || (' '..='~').contains(&letter)), "{text:?}");
    for word in [
        "GET /report?year=2026 while waiting",
        "aborted, 34 us after a question of ours; upstream reset",
        "aborted; upstream reset",
        "192.0.2.7:50000 POST /upload was answered 408: its body stood still for too long",
        "3 exchanges and 1 tunnel under way, 12 idle",
        "answered 502",
        "4711 exchanges completed, 3 interrupted in 1 min",
        "\n  while waiting: aborted                     2\n",
        "\n  upstreams stopped early                    2\n",
        "\n  cut off at the end: tunnel                 1\n",
        "\n  answered here: 408                         4\n",
        "\n  half-closed clients: asked                 3\n",
        "\n  clients                                  160\n",
        "io_uring (defer_taskrun, no_sqarray, min_wait, no_iowait, restricted), 2 threads, room for 9965 clients",
        "policy standard: dead after at least 32 s of silence",
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn the_samples_have_every_event_by_its_name() {
    let names: Vec<_> = lines().iter().map(|line| ProxyStream::kind(line).name).collect();
    assert!(ProxyStream::NAMES.iter().all(|name| names.contains(name)), "{names:?}");
    assert!(names.iter().all(|name| ProxyStream::NAMES.contains(name)), "{names:?}");
}

#[test]
fn quiet_leaves_out_what_is_routine_and_nothing_that_went_wrong() {
    let quiet = Filter { quiet: true, ..Filter::default() };
    let mut encoder = ProxyEncoder::new(ProxyStream, Format::JsonLines, quiet);
    let mut out = Vec::new();
    lines().iter().for_each(|line| encoder.event(0, line, &mut out));
    let text = String::from_utf8(out).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert!(names.len() == lines().len() - 2 && !names.contains(&"completed"), "{names:?}");
    assert!(!names.contains(&"not_followed"), "{names:?}");
}
