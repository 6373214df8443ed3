//! What is written of trackers: exact lines, and the filter.

mod human;
mod json;
pub(super) mod samples;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::events::counters::Counters;
use crate::events::encoder::Stream;
use crate::events::encoder::{Filter, Format};
use crate::events::human::Screen;
use crate::events::sink::{Finish, Output, Sink};
use crate::liveness::{Event, TrackerCounts};
use crate::reactor::EventSink;

/// Far longer than anything here takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

fn filtered(format: Format, filter: Filter) -> TrackerEncoder {
    let mut encoder = TrackerEncoder::new(TrackerStream::new(samples::locals()), format, filter);
    encoder.set_clock(samples::WALL);
    encoder
}

fn encoder(format: Format) -> TrackerEncoder {
    filtered(format, Filter::default())
}

fn written(encoder: &mut TrackerEncoder, events: impl IntoIterator<Item = (usize, Event)>) -> String {
    let mut out = Vec::new();
    for (thread, event) in events {
        encoder.event(thread, &event, &mut out);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn the_samples_have_every_event_by_its_name() {
    let mut names: Vec<_> =
        event::samples().iter().map(|(_, event)| TrackerStream::kind(event).name).collect();
    names.dedup();
    for name in TrackerStream::NAMES {
        assert!(names.contains(name), "{name} has no sample");
    }
    assert!(names.iter().all(|name| TrackerStream::NAMES.contains(name)), "{names:?}");
}

#[test]
fn a_filter_leaves_the_named_events_and_seq_has_no_gap() {
    let only = vec!["died".to_owned(), "stall".to_owned()];
    let mut json = filtered(Format::JsonLines, Filter { only: only.clone(), quiet: false });
    let lines = written(&mut json, event::samples());
    let names: Vec<_> = lines.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(names, ["died", "died", "stall"]);
    assert!(
        lines.lines().enumerate().all(|(seq, line)| line.contains(&format!(r#""seq":{seq},"#))),
        "{lines}"
    );
    let plain = Format::Human { colour: false, screen: Screen::None };
    let lines = written(&mut filtered(plain, Filter { only, quiet: false }), event::samples());
    assert_eq!(lines.lines().count(), 3, "{lines}");
}

#[test]
fn quiet_leaves_problems_and_for_people_no_first_line() {
    let quiet = Filter { quiet: true, ..Filter::default() };
    let closed = samples::died(samples::death(crate::liveness::Cause::Closed));
    let events = || event::samples().into_iter().chain([(0, closed.clone())]);
    let lines = written(&mut filtered(Format::JsonLines, quiet.clone()), events());
    let names: Vec<_> = lines.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(names, ["died", "died", "stall", "path_outage", "saturated", "resumed", "duplicate"]);
    let mut human = filtered(Format::Human { colour: false, screen: Screen::Columns(80) }, quiet);
    let mut out = Vec::new();
    human.opening(&samples::listening(), &mut out);
    assert!(out.is_empty() && !human.has_status());
}
