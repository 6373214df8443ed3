//! Every maximum in the program, with its reason, and the relations between them.
//!
//! A limit without a reason is a guess that nobody dares to change; a limit without a name is one
//! that nobody finds. What happens when a limit is reached is said beside it.

use std::time::Duration;

/// Bits of a generation in a completion's `user_data`; see `Token`.
pub const GENERATION_BITS: u32 = 24;

/// Peers that one tracker may hold. An index must fit 31 bits (the wheel's links use the last one);
/// 16 million is far above what one ring was measured with (1 million).
pub const MAX_PEERS: usize = 1 << 24;

/// Deaths that a tracker may be told to keep after they were reported: less than 3 MB a thread. The oldest goes first.
pub const MAX_DEAD_KEPT: usize = 10_000;

/// Transitions that a living peer's record keeps. With four, the sequence `up, suspected,
/// recovered, died` is told whole. Three may wait for the sink; the fourth place is kept for the
/// death, so that a death never waits for room.
pub const HISTORY: usize = 4;

/// Keys that the wheel names at one go, and visits that ask for something in one turn of a loop: a mass expiry is
/// spread over turns that each stay below 20 ms.
pub const MAX_VISITS_PER_TURN: usize = 1_024;

/// Visits that ask for something at one go. That is a `getsockopt` (1.4 us) or the `recv` of a drain (2.5 us), and an end that
/// comes meanwhile waits for all of them: with 1,024 the points of the grid were the p99 of detection (370 to 830 us;
/// 235 to 320 with 32 or 64; `deadpeer bench --connections 10000 --beats 20000 --deaths 1000 --duration 7s --ways fin,rst`).
/// A turn more for each 32 costs less than the noise: 88 to 103 ns of CPU per beat with 32, 64 and 1,024 alike.
pub const VISITS_AT_ONCE: usize = 32;

/// Where a loop is busy with other things, visits get as much of its time: so many at one go for each 200 us of it, and
/// [`MAX_VISITS_PER_TURN`] at most. Otherwise a flood of completions would put silences off for ever.
pub const VISIT_ROUND: Duration = Duration::from_micros(200);

/// Completions taken in one turn. The rest wait in the completion queue, in order.
pub const MAX_COMPLETIONS_PER_TURN: usize = 512;

/// Completions that a batch window waits for: more end it early.
pub const WAIT_BATCH: u32 = 256;

/// The longest wait for a batch. A longer wait makes everything else late: with a
/// verdict, with the end of the program, and in the end with noticing its own stalls.
pub const MAX_BATCH_WINDOW: Duration = Duration::from_millis(100);

/// Connections accepted in one turn by one listener; the rest wait in the backlog. In a rush of connects an accept
/// was measured at up to 130 us, the handshakes of others that came in between included.
pub const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Submission queue entries (64 KiB, all of which are touched as the queue goes round). A full queue is
/// submitted and refilled within the turn: a system call more for each 1,024 operations of a storm.
pub const SQ_ENTRIES: u32 = 1_024;

/// Completion queue entries (512 KiB). When it is full the kernel keeps the rest (NODROP) and
/// raises the overflow flag; the loop flushes before it judges anybody.
pub const CQ_ENTRIES: u32 = 32_768;

/// The slots of a wheel, one a millisecond: 16.4 s a round. A deadline beyond it is looked at once
/// a round.
pub const WHEEL_SLOTS: usize = 1 << 14;

/// How much one discarding `recv` may take. Nothing is copied, but the socket stays locked
/// meanwhile; 1 MiB takes about 0.1 ms.
pub const MAX_DISCARD: u32 = 1 << 20;

/// After a read of the proxy's that did not fill its room the socket is taken for empty: such a read may also have stopped
/// before an urgent byte. A socket of which nothing was read for one to two such times is looked at once more. Looking at
/// once cost a twelfth of all that a request costs, and looking at busy sockets a quarter of all reads with 1,000 clients.
/// A ring's poll does not tell: it says POLLPRI of every byte.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Ends that a turn reads with a plain `recv` each, as soon as they show. A batch of so few gains nothing
/// by the ring, and costs each of them another turn; the ends of a storm gain by it.
pub const ENDS_AT_ONCE: u32 = 8;

/// A recv that took this much off is a stream's: it is read on at once, without waiting to be woken. A
/// thousand heartbeats do not come to it; a stream lost a quarter of its speed when it had to wait.
pub const STREAM_BYTES: u32 = 16 * 1024;

/// While a peer streams, its next bytes are waited for together for this long: to be woken by each segment
/// costs four times the CPU and makes the sender wait. As long as this a verdict may wait meanwhile.
pub const STREAM_WINDOW: Duration = Duration::from_micros(100);

/// A turn whose completions took this long leaves the others to the next one, so that events go out and
/// connections are taken in between; and so does one whose accepts took this long. With the visits, which have
/// a bound of their own, a turn stays below 20 ms.
pub const TURN_BUDGET: Duration = Duration::from_millis(4);

/// Buffers for frames in one ring, and the size of each. A peer that sends more than one buffer
/// holds is read again in the next turn, so a flood from one does not starve the others.
pub const FRAME_BUFFERS: u16 = 256;
/// Bytes of one frame buffer: 256 heartbeats.
pub const FRAME_BUFFER_BYTES: u32 = 4_096;

/// The longest identity that a HELLO may carry, in bytes.
pub const MAX_IDENTITY: usize = 64;

/// Events in one batch that goes to the sink: 10 KB of events, or one write of 25 KB.
pub const EVENT_BATCH: usize = 32;

/// Batches that may wait for the sink, for one ring. When they are used up, transitions wait in
/// the slab; nothing is dropped. More of them would only move the queue from the slab, where it costs
/// nothing, into memory of its own.
pub const EVENT_BATCHES: usize = 4;
/// Lines for routine events (`up`, `closed`, ...) that a terminal shows in one second: more scroll by faster than they can
/// be read. Beyond it they are counted in one line a second. A pipe or a file gets every line.
pub const ROUTINE_LINES_PER_SECOND: u32 = 20;

/// The shortest interval of a latency log. Shorter ones would hold a few turns each, and are 100 KB a second.
pub const MIN_LATENCY_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval of a latency log: as much is lost by a crash.
pub const MAX_LATENCY_INTERVAL: Duration = Duration::from_secs(3_600);

/// The loop wakes at least this often, so that its own stalls can be told from quiet.
pub const MAX_WAIT: Duration = Duration::from_secs(1);

/// A loop that comes back this much later than it asked for was held up. Far above what the
/// scheduler does to a busy machine, far below every policy.
pub const STALL_THRESHOLD: Duration = Duration::from_millis(500);

/// Own stalls that are remembered for putting off deadlines: each is longer than [`STALL_THRESHOLD`], so
/// these are half a minute of stalls alone, and 1 KiB. When there are more, the two oldest become one,
/// which can only make a verdict later.
pub const MAX_STALLS: usize = 64;

/// Descriptors kept back from the capacity: standard streams, ring, event sink, listeners, and
/// what libraries open behind our back.
pub const RESERVED_FDS: u64 = 64;

/// Descriptors that room is made for at the start: 8 MiB of kernel memory at most. Beyond it the kernel's
/// table doubles as it has to, and the accept that meets it waits some milliseconds.
pub const MAX_RESERVED_TABLE: u64 = 1 << 20;

/// After EMFILE or ENFILE, how long accepting rests. Short enough not to be noticed, long enough
/// not to spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A limit of connections or descriptors counts as left (`resumed`) when it was not met for this long. A program at the
/// edge of a limit meets and leaves it many times a second, and would report each time.
pub const RESUME_AFTER: Duration = Duration::from_secs(1);

/// In beat mode a woken but undrained peer is looked at after this long at the latest: a receive
/// window that filled up in one stroke gives no second wake.
pub const MAX_UNDRAINED: Duration = Duration::from_secs(2);

/// In beat mode, two wakes closer than this are no heartbeat but a stream, and are drained at once.
pub const STREAM_GAP: Duration = Duration::from_millis(20);

/// Sockets that a [`Watcher`](crate::watch::Watcher) is made for unless told otherwise. More descriptors than a
/// process is given nearly everywhere; only address space is set aside, 8 bytes each.
pub const MAX_WATCHED: usize = 1 << 20;

/// Sockets that a watcher looks at under one lock: 64 of those that woke and 64 whose hour has come, 0.3 ms. An
/// owner that enters a socket may wait that long; the other sockets are looked at right after.
pub const WATCH_PORTION: usize = 64;

/// How long an orderly end waits for others, such as a reader that is stuck, before the program leaves anyway. A second
/// is promised; what is left of it is for the work itself, which takes 20 ms on a quiet machine and more on a busy one.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(700);

/// Bytes of a result file that a report reads. One of eight ways and twelve subjects over five rounds has half a
/// million.
pub const MAX_RESULT_BYTES: u64 = 16 * 1_048_576;

/// Bytes of a latency log that a report reads. A day of two threads in intervals of 10 s has 30 MB.
pub const MAX_LOG_BYTES: u64 = 256 * 1_048_576;

/// Tags of a latency log that a report reads. `run` writes 6, `report` one for each way and subject.
pub const MAX_LOG_TAGS: usize = 64;

/// Histograms of a result file. Each takes 256 KiB once it is read, however short it was written, so a file of a
/// few megabytes could ask for all memory there is: these are 1 GiB. A minute of all ways by half-seconds has 1,000.
pub const MAX_RESULT_HISTOGRAMS: usize = 4_096;

/// Bytes of one histogram once it is inflated: it has 34,000 counts of at most nine bytes.
pub const MAX_HISTOGRAM_BYTES: u64 = 512 * 1_024;

/// Samples of one histogram: more than any experiment has deaths, and sums of them stay far below 64 bits.
pub const MAX_HISTOGRAM_SAMPLES: u64 = 1 << 40;

const _: () = assert!(SHUTDOWN_PATIENCE.as_millis() <= 750);
const _: () = assert!(MAX_PEERS < (1 << 31));
const _: () = assert!(WHEEL_SLOTS.is_power_of_two());
const _: () = assert!(FRAME_BUFFERS.is_power_of_two());
const _: () = assert!(CQ_ENTRIES >= 2 * SQ_ENTRIES);
const _: () = assert!(MAX_BATCH_WINDOW.as_millis() < STALL_THRESHOLD.as_millis() / 2);
const _: () = assert!(HISTORY >= 4 && HISTORY < 16);
const _: () = assert!(MAX_DISCARD > 0 && FRAME_BUFFER_BYTES > 0); // a recv of nothing looks like a FIN

/// Bytes of a head, of a request's or a response's: what nginx and HAProxy refuse is 8 to 32 KiB, and RFC 9112 asks for
/// 8,000 at least. A longer request is answered with 431; behind a longer response its connection is not followed any more.
pub const MAX_HEAD: usize = 64 * 1024;

/// Headers in a head. HAProxy takes 101, hyper 100. More are refused as too long a head.
pub const MAX_HEADERS: usize = 128;

/// Bytes of one chunk extension. Nobody uses them, and each is one that is not looked at.
pub const MAX_CHUNK_EXTENSION: u32 = 4 * 1024;

/// Digits of a chunk's size: those of 64 bits. Leading zeros beyond are what nobody writes.
pub const MAX_CHUNK_DIGITS: u32 = 16;

/// Bytes of a method that are kept for events. The longest that is registered has 17.
pub const MAX_TOLD_METHOD: usize = 64;

/// Bytes of a target that are kept for telling of its exchange; a longer one is cut off there.
pub const MAX_TOLD_TARGET: usize = 1_024;

/// Exchanges and requests whose memory a proxy's thread keeps for others when they are over: an exchange takes up to 1.3 KB.
pub const MAX_SPARE: usize = 1_024;

/// The longest request whose memory is kept. A longer one is allocated and freed each time.
pub const MAX_SPARE_BYTES: usize = 4 * 1_024;

/// Bytes that one side of a relayed connection may be ahead of the other, beyond what its sockets hold: then it is not
/// read any more. Also how much is read at once, so that nothing is kept of what the other side takes.
pub const MAX_HELD: usize = 64 * 1024;

/// Bytes of further requests that are taken off a socket while one is worked at. The rest waits in the socket, where it
/// slows its sender down.
pub const MAX_PIPELINED: usize = 16 * 1024;

/// How long after its FIN a client that waits for a response is asked first. A response that comes before spares the
/// question, and one of a handler that works for a millisecond does (measured).
pub const FIRST_QUESTION: Duration = Duration::from_millis(2);

/// When a half-closed client that was there is asked again, after the first question, the second, and the third. The
/// first pause is for a forwarder between the client and the proxy, whose kernel answers the first question for its
/// client.
pub static HALF_CLOSE_PROBES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(8)];

/// Interim responses before a final one, the server's and the proxy's questions. Go's client (before 1.23) takes no more.
pub const MAX_INTERIM: u8 = 5;

/// The pause before all upstreams are tried again, when none could be connected to. It doubles each time.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Digits of a chunk's size with the zeros of the proxy's questions. curl and Go take no more.
pub const MAX_SIZE_DIGITS: u32 = 16;

/// How often it is looked whether the upstream of a client that is gone has everything that the client had sent.
pub const DELIVERY_CHECK: Duration = Duration::from_millis(20);

/// When the acknowledgement of a question is looked for: the kernel does not tell of it. The last repeats.
pub static PROBE_CHECKS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// How long a connection that we have ended with a FIN may go on sending before it is closed: a close with unread bytes
/// would be a RST, and could take our last answer from the client.
pub const LINGER: Duration = Duration::from_secs(2);

/// And how long in all, however it goes on sending.
pub const MAX_LINGER: Duration = Duration::from_secs(30);

/// How long a new client may take to send its first byte while the proxy drains.
pub const FIRST_BYTE: Duration = Duration::from_millis(500);

/// How long a loop that stops to listen goes on to take the connections that its kernel has already made. The rest is reset.
pub const LAST_ACCEPTS: Duration = Duration::from_millis(100);

/// How long a client may take nothing of an answer that ends its connection.
pub const FLUSH_PATIENCE: Duration = Duration::from_secs(60);

/// Idle connections to upstreams that are kept by default: as many as there are exchanges at once in a busy server.
pub const POOL: u64 = 1_024;

/// How long ago a connection to an upstream was used at most for a request that cannot be sent again. No known server closes
/// one that early.
pub const YOUNG_UPSTREAM: Duration = Duration::from_millis(500);

/// How long a connection to an upstream may be idle before it is closed. Servers close theirs after 5 to 75 s by default.
pub const IDLE_UPSTREAM: Duration = Duration::from_secs(60);

/// How long an upstream that failed is left out, at first, and at most: the time doubles with each failure in a row.
pub const UPSTREAM_PAUSE: Duration = Duration::from_millis(100);
/// The longest [pause](UPSTREAM_PAUSE) of an upstream that fails again and again.
pub const MAX_UPSTREAM_PAUSE: Duration = Duration::from_secs(30);

/// Addresses of upstreams that there may have been since the start, those of names included. What is known of one is kept for
/// its connections, and for when it comes back: 120 bytes each.
pub const MAX_UPSTREAMS: usize = 65_536;

/// Checks in a row that have to fail before an upstream is down, and to pass before it is up again: one that is lost says
/// nothing yet, and one that passes may be luck.
pub const CHECKS_DOWN: u32 = 3;
/// See [`CHECKS_DOWN`].
pub const CHECKS_UP: u32 = 2;

/// Bytes of the body of a check's response that are read before its connection is closed.
pub const MAX_CHECK_BODY: usize = 64 * 1024;

/// The shortest pause between two checks of an upstream. They are requests that serve nobody.
pub const MIN_CHECK_PAUSE: Duration = Duration::from_millis(20);

/// Upstreams that are checked at the same time, each by a thread.
pub const CHECKS_AT_ONCE: usize = 64;

/// Events of one proxy thread that the sink has not taken. Beyond that they are dropped, or it takes no more from its clients.
pub const MAX_UNTOLD: usize = 4_096;

/// Bytes that the kernel may hold unsent for a proxy's client (`TCP_NOTSENT_LOWAT`). Without it each client that does not
/// read would cost megabytes of the machine's TCP memory (measured: 3.8 MB); what is in flight is not bounded by it.
pub const CLIENT_UNSENT: u32 = 128 * 1024;

/// Bytes that the kernel may hold of an upstream's response that nobody reads, doubled by the kernel for its own use
/// (`SO_RCVBUF`). Without it the kernel lets them grow to the 6 MB of `tcp_rmem`; behind a millisecond it is 2 Gbit/s.
pub const UPSTREAM_UNREAD: u32 = 256 * 1024;

/// Bytes of a PROXY header of version 2 that are taken, with everything that a load balancer may say beside the addresses.
/// It is what HAProxy takes. A line of version 1 has 107 at most.
pub const MAX_PROXY_HEADER: usize = 16 * 1024;
