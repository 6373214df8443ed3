//! The access log: one line for each exchange, in the combined format or as JSON Lines.

use crate::events::body::{Body, Shown, append};
use crate::events::counters::Totals;
use crate::events::encoder::{DROPPED, Kind, Record, Stream};
use crate::events::human::{Colour, HumanEncoder};
use crate::events::json::{JsonEncoder, micros, millis};
use crate::proxy::{AccessLine, By, Counts, Logged, Parties};
use crate::reactor::Address;
use crate::safe_text::Quoted;
use crate::time::WallClock;

/// The access log of the proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessStream;

/// An access log has neither a first line nor a last one.
#[derive(Clone, Copy, Debug)]
pub struct NoRecord;

impl Record for NoRecord {
    fn json(&self, _: &mut JsonEncoder, _: &mut Vec<u8>) {}

    fn human(&self, _: &mut HumanEncoder, _: &mut Vec<u8>) {}
}

impl Stream for AccessStream {
    const NAMES: &'static [&'static str] = &["exchange", DROPPED];
    type Opening = NoRecord;
    type Event = AccessLine;
    type Closing = NoRecord;
    type Counts = Counts;

    fn kind(line: &AccessLine) -> Kind {
        let (name, at) = match line {
            AccessLine::Exchange { logged, .. } => ("exchange", logged.at),
            AccessLine::Dropped { at, .. } => (DROPPED, *at),
        };
        Kind { name, at, colour: Colour::Green, routine: None }
    }

    fn describe(&mut self, ring: usize, line: &AccessLine, body: &mut Body<'_>) {
        body.field("thread", ring);
        let (parties, logged) = match line {
            AccessLine::Exchange { parties, logged } => (parties, logged),
            AccessLine::Dropped { dropped, during, .. } => {
                body.field("dropped", dropped).field("during_ms", millis(*during));
                return;
            }
        };
        body.field("client", Shown(&parties.client)).maybe("upstream", parties.upstream.as_ref().map(Shown));
        if let Some(request) = &logged.request {
            body.field("method", &request.method)
                .field("target", &request.target)
                .field("version", if request.minor == 0 { "1.0" } else { "1.1" })
                .maybe("referer", request.referer.as_ref())
                .maybe("user_agent", request.user_agent.as_ref());
        }
        body.maybe("status", logged.status)
            .field("tunnel", logged.tunnel)
            .field("request_bytes", logged.request_bytes)
            .field("response_bytes", logged.response_bytes)
            .field("body_bytes", logged.body_bytes)
            .field("elapsed_us", micros(logged.elapsed))
            .maybe("first_byte_us", logged.first_byte.map(micros))
            .field("cause", logged.cause)
            .field("by", logged.by.as_str());
    }

    fn plain(&mut self, line: &AccessLine, wall: WallClock, out: &mut Vec<u8>) {
        if let AccessLine::Exchange { parties, logged } = line {
            combined(parties, logged, wall, out);
        }
    }

    fn totals(_: &Counts) -> Totals {
        Totals::default()
    }

    fn status(_: &Totals, _: &[f64; 5]) -> String {
        String::new()
    }
}

/// The line of the combined format, and behind it the seconds that it took, the upstream, the cause, and who ended it.
fn combined(parties: &Parties, logged: &Logged, wall: WallClock, out: &mut Vec<u8>) {
    match &parties.client {
        Address::Ip(address) => append(out, format_args!("{}", address.ip())),
        client => append(out, format_args!("{client}")),
    }
    append(out, format_args!(" - - [{}] ", clf_date(&wall.rfc3339(logged.at))));
    match &logged.request {
        Some(request) => {
            let (method, target) = (Quoted(&request.method), Quoted(&request.target));
            append(out, format_args!("\"{method} {target} HTTP/1.{}\" ", request.minor));
        }
        None => out.extend_from_slice(b"\"-\" "),
    }
    match (logged.status, logged.by) {
        (Some(status), _) => append(out, format_args!("{status} ")),
        (None, _) if logged.tunnel => out.extend_from_slice(b"- "),
        // The numbers of nginx: the client had left, or was cut off without an answer.
        (None, By::Peer | By::Path) => out.extend_from_slice(b"499 "),
        (None, _) => out.extend_from_slice(b"444 "),
    }
    append(out, format_args!("{}", logged.body_bytes));
    let request = logged.request.as_ref();
    let fields = request.map_or([&None, &None], |request| [&request.referer, &request.user_agent]);
    for field in fields {
        append(out, format_args!(" \"{}\"", Quoted(field.as_deref().unwrap_or("-"))));
    }
    append(out, format_args!(" {}.{:06} ", logged.elapsed.as_secs(), logged.elapsed.subsec_micros()));
    match &parties.upstream {
        Some(upstream) => append(out, format_args!("{upstream}")),
        None => out.push(b'-'),
    }
    append(out, format_args!(" {} {}\n", logged.cause, logged.by.as_str()));
}

/// `2025-11-24T16:00:09.000000Z` as the date of the common log format: `24/Nov/2025:16:00:09 +0000`.
fn clf_date(date: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day, time) = date.split_once('T').unwrap_or((date, ""));
    let mut parts = day.rsplitn(3, '-');
    let (day, month, year) = (parts.next(), parts.next(), parts.next());
    let month = month.and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).copied().unwrap_or("Jan");
    let time = time.split('.').next().unwrap_or_default();
    format!("{}/{month}/{}:{time} +0000", day.unwrap_or_default(), year.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::events::encoder::{Encoder, Filter, Format};
    use crate::events::tests::{names_all, shows_each_line};
    use crate::proxy::LoggedRequest;
    use crate::time::Instant;

    const DOCUMENT: &str = include_str!("../../../docs/HTTP.md");

    fn logged() -> Logged {
        Logged {
            at: Instant::from_nanos(9_000_000_000),
            request: Some(LoggedRequest {
                method: "GET".into(),
                target: "/report?year=2026".into(),
                minor: 1,
                referer: Some("https://example.com/".into()),
                user_agent: Some("curl/8.5.0".into()),
            }),
            tunnel: false,
            status: Some(200),
            request_bytes: 143,
            response_bytes: 65_700,
            body_bytes: 65_536,
            elapsed: Duration::from_micros(812_345),
            first_byte: Some(Duration::from_micros(502_345)),
            cause: "completed",
            by: By::Server,
        }
    }

    fn line(logged: Logged) -> AccessLine {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let parties =
            Parties { client: address("192.0.2.7:50000"), upstream: Some(address("127.0.0.1:9000")) };
        AccessLine::Exchange { parties, logged: Box::new(logged) }
    }

    fn written(format: Format, lines: &[AccessLine]) -> String {
        let mut encoder = Encoder::new(AccessStream, format, Filter::default());
        encoder.set_clock(WallClock::fixed(1_764_000_000_000_000_000));
        let mut out = Vec::new();
        encoder.opening(&NoRecord, &mut out);
        lines.iter().for_each(|line| encoder.event(0, line, &mut out));
        encoder.closing(&NoRecord, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn samples() -> Vec<AccessLine> {
        let left = Logged {
            status: None,
            response_bytes: 0,
            body_bytes: 0,
            first_byte: None,
            cause: "aborted",
            by: By::Peer,
            ..logged()
        };
        let at = Instant::from_nanos(9_000_000_000);
        let dropped = AccessLine::Dropped { at, dropped: 900, during: Duration::from_millis(5_300) };
        vec![line(logged()), line(left), dropped]
    }

    #[test]
    fn the_document_shows_each_line_as_it_is_written_and_names_every_field_and_every_word() {
        let json = written(Format::JsonLines, &samples());
        shows_each_line(DOCUMENT, &json);
        shows_each_line(DOCUMENT, &written(Format::Plain, &samples()));
        names_all(DOCUMENT, &json, By::ALL.map(By::as_str));
    }

    #[test]
    fn a_line_of_the_combined_format_cannot_be_forged() {
        let hostile = "\" 200 0 \"-\" \"-\"\\\"\n127.0.0.1 \u{1b}[2J\u{202e}\u{85}";
        let mut logged = logged();
        let request = logged.request.as_mut().unwrap();
        request.target = hostile.into();
        (request.referer, request.user_agent) = (Some(hostile.into()), Some("\\".into()));
        let text = written(Format::Plain, &[line(logged)]);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
        // A reader who knows what a backslash is finds the three quoted values, and nothing beside them.
        let (mut quoted, mut escaped, mut outside) = (false, false, String::new());
        for letter in text.chars() {
            match letter {
                _ if std::mem::take(&mut escaped) => {}
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ if !quoted => outside.push(letter),
                _ => {}
            }
        }
        let expected = "192.0.2.7 - - [24/Nov/2025:16:00:09 +0000]  200 65536   0.812345 127.0.0.1:9000 completed \
                        server\n";
        assert_eq!(outside, expected);
    }

    #[test]
    fn what_has_no_status_says_which_side_left() {
        for (tunnel, by, status) in [
            (false, By::Peer, " 499 "),
            (false, By::Path, " 499 "),
            (false, By::Us, " 444 "),
            (false, By::Server, " 444 "),
            (true, By::Peer, " - "),
        ] {
            let text = written(
                Format::Plain,
                &[line(Logged { status: None, request: None, tunnel, by, ..logged() })],
            );
            assert!(text.contains(&format!("] \"-\"{status}65536 \"-\" \"-\" ")), "{text}");
        }
    }

    #[test]
    fn a_date_is_that_of_the_common_log_format() {
        for (date, expected) in [
            ("2025-11-24T16:00:09.000000Z", "24/Nov/2025:16:00:09 +0000"),
            ("2000-01-01T00:00:00.999999Z", "01/Jan/2000:00:00:00 +0000"),
            ("9999-12-31T23:59:59.000000Z", "31/Dec/9999:23:59:59 +0000"),
        ] {
            assert_eq!(clf_date(date), expected);
        }
    }
}
