//! Values of options that have names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::events::encoder::Format;
use crate::liveness::{Heartbeat, OnDuplicate, Preset, Wake};
use crate::proxy::{EventsStall, Forwarded, OnGone, SendProxy};

/// A parser of `values`: each has its name, its line of help, and what it stands for.
pub(super) fn one_of<T: Clone + Send + Sync + 'static>(
    values: &'static [(&str, &str, T)],
) -> impl TypedValueParser<Value = T> {
    let offered = values.iter().map(|(name, help, _)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(offered).try_map(|given| {
        let named = values.iter().find(|(name, ..)| *name == given);
        named.map(|(_, _, value)| value.clone()).ok_or("it is not offered")
    })
}

/// The values of `--policy` of `run`.
pub(super) static POLICIES: [(&str, &str, Preset); 2] = [
    ("standard", "A verdict after 32 s of silence", Preset::Standard),
    ("strict", "A verdict after 7 s of silence", Preset::Strict),
];

/// The values of `--wake`.
pub(super) static WAKES: [(&str, &str, Wake); 2] = [
    ("lazy", "When a peer could be overdue: then the kernel is asked for its last bytes", Wake::Lazy),
    ("beat", "As it comes: each beat wakes its thread", Wake::Beat),
];

/// The values of `--heartbeat`.
pub(super) static HEARTBEATS: [(&str, &str, Heartbeat); 3] = [
    ("bytes", "Any byte", Heartbeat::Bytes),
    ("frames", "A complete heartbeat frame; a suspect gets a PING", Heartbeat::Frames),
    ("none", "Only an answer of the peer's kernel: its program may be silent", Heartbeat::None),
];

/// The values of `--on-duplicate`.
pub(super) static DUPLICATES: [(&str, &str, OnDuplicate); 2] = [
    ("keep", "The older peer stays", OnDuplicate::Keep),
    ("replace", "The older peer dies as local (replaced), and its connection is reset", OnDuplicate::Replace),
];

/// The values of `--mode`.
pub(super) static MODES: [(&str, &str, &str); 2] = [
    ("http", "HTTP/1.0 and HTTP/1.1; anything else is relayed as in tcp", "http"),
    ("tcp", "Nothing: it relays bytes", "tcp"),
];

/// The values of `--on-gone`.
pub(super) static ON_GONE: [(&str, &str, OnGone); 3] = [
    ("reset", "It is aborted with a RST, which every server notices", OnGone::Reset),
    ("close", "It is closed with a FIN", OnGone::Close),
    ("ignore", "Nothing: the upstream works on", OnGone::Ignore),
];

/// The values of `--when-events-stall`.
pub(super) static ON_STALL: [(&str, &str, EventsStall); 2] = [
    ("drop", "It goes on, and drops and counts events: an event says how many", EventsStall::Drop),
    (
        "wait",
        "It takes nothing more from clients until there is room, and ends if a disk is full",
        EventsStall::Wait,
    ),
];

/// The values of `--access-format`.
pub(super) static ACCESS_FORMATS: [(&str, &str, Format); 2] = [
    (
        "combined",
        "The combined format of NCSA; behind it the seconds, the upstream, the cause, and who ended it",
        Format::Plain,
    ),
    ("json", "JSON Lines", Format::JsonLines),
];

/// The values of `--forwarded`.
pub(super) static FORWARDED: [(&str, &str, Forwarded); 3] = [
    ("off", "They are passed on as they came, whatever they say", Forwarded::Off),
    (
        "append",
        "The client is added to them: behind a proxy that is trusted. What cannot be followed is refused",
        Forwarded::Append,
    ),
    (
        "replace",
        "They name the client alone: before the internet. What cannot be followed is refused",
        Forwarded::Replace,
    ),
];

/// The values of `--log-query`.
pub(super) static LOG_QUERY: [(&str, &str, bool); 2] = [
    ("yes", "Targets are written as they came", true),
    ("no", "Without what is behind their `?`, in events too", false),
];

/// The values of `--send-proxy`.
pub(super) static VERSIONS: [(&str, &str, SendProxy); 2] =
    [("v1", "A line of text", SendProxy::V1), ("v2", "Binary", SendProxy::V2)];

/// The values of `--policy` of `proxy`, where the kernel finds the silence.
pub(super) static PROXY_POLICIES: [(&str, &str, Preset); 2] = [
    ("standard", "A verdict after 32 to 40 s of silence", Preset::Standard),
    ("strict", "A verdict after 7 to 9 s of silence", Preset::Strict),
];
