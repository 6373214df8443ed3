//! The figures by which subjects are compared.

use serde::Serialize;

use crate::measure::report::unit::Unit;
use crate::measure::result::{Beats, Cost, Run};

/// A figure of a comparison. Less is better in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// CPU of the server's process per beat.
    Cpu,
    /// Busy time of the machine per beat.
    Machine,
    /// CPU of the process per accepted connection.
    Accept,
    /// CPU of the process per death of a quiet connection.
    Death,
    /// Detection among beats: the median.
    DetectP50,
    /// Detection among beats: p99.
    DetectP99,
    /// Detection among beats: the greatest.
    DetectMax,
    /// Memory of the process per quiet connection.
    User,
    /// Memory of the kernel per quiet connection.
    Kernel,
    /// Memory of the kernel per connection that beats.
    Unread,
    /// Time until all deaths of a storm are known.
    Storm,
    /// Time until all deaths of a storm were caused.
    StormReset,
    /// The longest turn of the loop.
    StormTurn,
    /// CPU of the process per second and peer that beats once a second.
    Rate1,
    /// CPU of the process per second and peer that beats 10 times a second.
    Rate10,
    /// CPU of the process per second and peer that beats 100 times a second.
    Rate100,
    /// The time that a peer takes to send 10^9 bytes.
    StreamTime,
    /// CPU of the process for 10^9 bytes.
    StreamCpu,
}

impl Figure {
    /// All figures, in the order of tables.
    pub const ALL: [Figure; 18] = [
        Figure::Cpu,
        Figure::Machine,
        Figure::Accept,
        Figure::Death,
        Figure::DetectP50,
        Figure::DetectP99,
        Figure::DetectMax,
        Figure::User,
        Figure::Kernel,
        Figure::Unread,
        Figure::Storm,
        Figure::StormReset,
        Figure::StormTurn,
        Figure::Rate1,
        Figure::Rate10,
        Figure::Rate100,
        Figure::StreamTime,
        Figure::StreamCpu,
    ];

    /// The name in thresholds and JSON, the head of a column, and what the figure counts.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Figure::Cpu => [
                "cpu",
                "CPU per beat",
                "User and system time of the server's process in the window, divided by the beats sent in it.",
            ],
            Figure::Machine => [
                "machine",
                "machine per beat",
                "Busy time of the cores in use (wall time less idle and stolen time), divided by the same beats. It \
                 includes kernel work in interrupts and the load's own share.",
            ],
            Figure::Accept => [
                "accept",
                "CPU per accept",
                "User and system time of the process until all connections were accepted, divided by their number.",
            ],
            Figure::Death => [
                "death",
                "CPU per death",
                "User and system time of the process while quiet connections were reset, divided by their number.",
            ],
            Figure::DetectP50 => [
                "detect-p50",
                "detection p50",
                "From the scheduled FIN or RST to the verdict, while the other peers beat; the median of a round.",
            ],
            Figure::DetectP99 => ["detect-p99", "detection p99", "The same, p99 of a round."],
            Figure::DetectMax => ["detect-max", "detection max", "The same, the greatest of a round."],
            Figure::User => [
                "user",
                "user memory per connection",
                "Resident memory that quiet connections added to the process, divided by their number.",
            ],
            Figure::Kernel => [
                "kernel",
                "kernel memory per connection",
                "Slab memory above that of a process that only accepts, divided by the number of connections. \
                 Measured as root only.",
            ],
            Figure::Unread => [
                "unread",
                "unread kernel memory per connection",
                "Slab memory at the end of the window, above that before the first beat, divided by the connections \
                 that beat: unread bytes, and what the kernel keeps of a connection that has sent. Measured as root \
                 only.",
            ],
            Figure::Storm => [
                "storm",
                "storm all known",
                "All idle connections are reset at one instant: from that instant to the last verdict.",
            ],
            Figure::StormReset => {
                ["storm-reset", "all reset", "From that instant to the last reset: the injector's own time."]
            }
            Figure::StormTurn => [
                "storm-turn",
                "longest turn",
                "The longest turn of a deadpeer's loop during the storm and the quiet time before it.",
            ],
            Figure::Rate1 => [
                "rate-1",
                "CPU per peer-second, 1 beat/s",
                "User and system time of the process per second of the window and peer that beats once a second.",
            ],
            Figure::Rate10 => ["rate-10", "10 beats/s", "The same, for peers that beat 10 times a second."],
            Figure::Rate100 => {
                ["rate-100", "100 beats/s", "The same, for peers that beat 100 times a second."]
            }
            Figure::StreamTime => [
                "stream-time",
                "time per GB streamed",
                "One peer sends all it can: from its first byte to the verdict on its FIN, per 10^9 bytes.",
            ],
            Figure::StreamCpu => {
                ["stream-cpu", "CPU per GB streamed", "User and system time of the process for 10^9 bytes."]
            }
        }
    }

    /// The name in thresholds and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.words()[0]
    }

    /// The head of a column.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.words()[1]
    }

    /// What the figure counts, in a sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.words()[2]
    }

    /// The unit of its values.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Figure::User | Figure::Kernel | Figure::Unread => Unit::Bytes,
            _ => Unit::Nanos,
        }
    }

    /// The figure of one run. `None`: not measured.
    #[must_use]
    pub fn of(self, run: &Run) -> Option<f64> {
        let detection = |percentile| run.detection.as_ref()?.latency.percentile(percentile);
        let further = |name: &str| run.further.get(name).map(|value| *value as f64);
        match self {
            Figure::Cpu => per_beat(run.beats, |beats| beats.process_ns),
            Figure::Machine => per_beat(run.beats, |beats| beats.machine_ns),
            Figure::Accept => each(run.accept),
            Figure::Death => each(run.death),
            Figure::DetectP50 => detection(50.0).map(|nanos| nanos as f64),
            Figure::DetectP99 => detection(99.0).map(|nanos| nanos as f64),
            Figure::DetectMax => run.detection.as_ref()?.latency.max().map(|nanos| nanos as f64),
            Figure::User => run.idle.and_then(|idle| divide(idle.user_bytes as f64, idle.connections)),
            Figure::Kernel => run.idle.and_then(|idle| divide(idle.kernel_bytes? as f64, idle.connections)),
            Figure::Unread => {
                run.beats.and_then(|beats| divide(beats.unread_kernel_bytes? as f64, beats.connections))
            }
            Figure::Storm => run.storm?.last_verdict_ns.map(|nanos| nanos as f64),
            Figure::StormReset => run.storm.map(|storm| storm.last_reset_ns as f64),
            Figure::StormTurn => run.storm?.longest_turn_ns.map(|nanos| nanos as f64),
            Figure::Rate1 => further("rate_1_process_ns_per_peer_second"),
            Figure::Rate10 => further("rate_10_process_ns_per_peer_second"),
            Figure::Rate100 => further("rate_100_process_ns_per_peer_second"),
            Figure::StreamTime => {
                further("stream_bytes_per_second").filter(|speed| *speed > 0.0).map(|speed| 1e18 / speed)
            }
            Figure::StreamCpu => further("stream_process_ns_per_gigabyte"),
        }
    }
}

fn divide(whole: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| whole / count as f64)
}

fn each(cost: Option<Cost>) -> Option<f64> {
    cost.and_then(|cost| divide(cost.process_ns as f64, cost.count))
}

fn per_beat(beats: Option<Beats>, nanos: impl Fn(&Beats) -> u64) -> Option<f64> {
    beats.and_then(|beats| divide(nanos(&beats) as f64, beats.count))
}
