//! The sink: the queue between the loops and the output, and the thread that writes. An [`Encoder`] turns events into
//! bytes.
//!
//! # Intuition
//!
//! A pipe whose reader sleeps, or a full disk, must not delay the loop that keeps the time of a hundred thousand peers.
//! So a loop hands its batches to a thread that may block as long as it likes. But waking a thread costs more than
//! a single death. So where a write never waits ([`How`]: a socket, as journald's, or a file in memory), and nothing
//! is to be written before, a loop's thread writes a small batch itself.
//!
//! # Model
//!
//! ```text
//!                               at once, if nothing waits
//!   loop 0: Outlet ------------------------------------------\
//!              |  --batch-->  \                     coalesce,  v
//!              |  <--empty--   >  one bounded queue --------> OutputWriter: encode, one write
//!   loop 1: Outlet --batch--> /                     one thread
//! ```
//!
//! A loop may have [`EVENT_BATCHES`] batches on their way; each comes back empty, to be filled again. When all are on
//! their way, [`Outlet::offer`](crate::reactor::EventSink::offer) returns the batch, and the outlet's waker is called once there is room. Meanwhile
//! events wait where they came from: a tracker's peers keep their places until their deaths were accepted, which ends in
//! back-pressure at the connection limit.
//!
//! A full batch comes in a storm, where another core may encode it and one write serves many. So a loop's thread only
//! writes batches that are not full; what the kernel did not accept at once is left to the sink's thread.
//!
//! # Contract
//!
//! - `offer` never blocks. What it accepted is written, in order, or counted as undelivered.
//! - A loop's batches are written in the order in which they were offered.
//! - An encoder is called by one thread at a time: first its opening, then events, last its closing.
//! - When the reader has gone (a closed pipe) or nothing can be written (a full disk), the sink accepts what is
//!   offered, counts it as undelivered, and calls the callback of [`Sink::on_closed`] once, so that the program can end.
//! - [`Sink::finish`] takes no longer than its patience.
//!
//! # Example
//!
//! ```
//! use deadpeer::events::body::Body;
//! use deadpeer::events::counters::Totals;
//! use deadpeer::events::encoder::{Filter, Format, Kind, Record, Stream};
//! use deadpeer::events::human::{Colour, HumanEncoder};
//! use deadpeer::events::json::JsonEncoder;
//! use deadpeer::events::sink::{Finish, Output, Sink};
//! use deadpeer::reactor::EventSink;
//! use deadpeer::time::Instant;
//! use std::io::Read;
//! use std::time::Duration;
//!
//! /// Writes numbers, for programs.
//! struct Numbers;
//!
//! impl Stream for Numbers {
//!     const NAMES: &'static [&'static str] = &["number"];
//!     type Opening = End;
//!     type Event = u64;
//!     type Closing = End;
//!     type Counts = ();
//!
//!     fn kind(_: &u64) -> Kind {
//!         Kind { name: "number", at: Instant::ZERO, colour: Colour::Green, routine: None }
//!     }
//!     fn describe(&mut self, ring: usize, number: &u64, body: &mut Body<'_>) {
//!         body.field("thread", ring).field("number", number);
//!     }
//!     fn totals(_: &()) -> Totals { Totals::default() }
//!     fn status(_: &Totals, _: &[f64; 5]) -> String { String::new() }
//! }
//!
//! struct End(&'static str);
//!
//! impl Record for End {
//!     fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
//!         json.line(self.0, Instant::ZERO, out, |_| {});
//!     }
//!     fn human(&self, _: &mut HumanEncoder, _: &mut Vec<u8>) {}
//! }
//!
//! let (mut reader, writer) = std::io::pipe().unwrap();
//! let output = Output::writer("a pipe", writer);
//! let (sink, mut outlets) =
//!     Sink::spawn(Numbers, Format::JsonLines, Filter::default(), output, 1).unwrap();
//! sink.announce(End("hello"));
//!
//! let outlet = &mut outlets[0];
//! let mut batch = outlet.empty_batch();
//! batch.push(7);
//! let next = outlet.offer(batch).expect("there is room");
//! assert!(next.is_empty());
//!
//! assert!(matches!(sink.finish(End("goodbye"), Duration::from_secs(9)), Finish::Delivered));
//! let mut text = String::new();
//! reader.read_to_string(&mut text).unwrap();
//! assert!(text.contains(r#"{"event":"number","seq":1,"thread":0,"number":7,"#), "{text}");
//! ```

mod outlet;
mod output;
mod queue;
mod writer;

pub use outlet::Outlet;
pub use output::{Finish, Output, SinkError};

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::events::counters::Counters;
use crate::events::encoder::{Encoder, Filter, Format, Stream};
use crate::limits::EVENT_BATCHES;
use crate::sys::nowait::How;
use crate::sys::process;
use output::Out;
use queue::{Message, Ring, Shared, lock};
use writer::{LINE, OutputWriter, SinkThread, WRITE_AT};

/// A function that is called on the sink's thread. It must not block.
pub type Callback = Arc<dyn Fn() + Send + Sync>;

/// The thread that writes.
pub struct Sink<S: Stream> {
    shared: Arc<Shared>,
    queue: SyncSender<Message<S>>,
    counters: Arc<[Counters]>,
    ended: Receiver<Finish>,
    thread: thread::JoinHandle<()>,
}

impl<S: Stream> fmt::Debug for Sink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("closed", &self.closed())
            .field("undelivered", &self.undelivered())
            .finish()
    }
}

impl<S: Stream> Sink<S> {
    /// Starts the thread, with one outlet for each loop. Nothing is written before
    /// [`Sink::announce`].
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn spawn(
        stream: S,
        format: Format,
        filter: Filter,
        output: Output,
        rings: usize,
    ) -> Result<(Sink<S>, Vec<Outlet<S>>), SinkError> {
        let counters: Arc<[Counters]> = std::iter::repeat_with(Counters::default).take(rings).collect();
        let encoder = Encoder::with_counters(stream, format, filter, Arc::clone(&counters));
        let Output { name, out, drops } = output;
        let shared = Arc::new(Shared {
            rings: std::iter::repeat_with(Ring::default).take(rings).collect(),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            on_closed: Mutex::new(None),
        });
        // Three places more than all batches: for the first line and the last one, which must never wait, and for
        // what a loop's thread has left, which is there once at most.
        let (queue, messages) = sync_channel(rings * EVENT_BATCHES + 3);
        let (end, ended) = sync_channel(1);
        let status = encoder.has_status();
        // A status line is written anew with every write, by a thread that has the time.
        let at_once = match &out {
            Out::File(file) if !status => How::of(file),
            _ => None,
        };
        let writer = Arc::new(Mutex::new(OutputWriter {
            shared: shared.clone(),
            encoder,
            name,
            out,
            buffer: Vec::with_capacity(WRITE_AT + LINE),
            encoded: 0,
            begun: false,
            at_once,
            drops,
            lost: None,
            untold: None,
            torn: Vec::new(),
            mid_line: false,
            trouble: None,
        }));
        let mut empties = Vec::with_capacity(rings);
        let mut outlets = Vec::with_capacity(rings);
        for ring in 0..rings {
            let (give, take) = sync_channel(EVENT_BATCHES);
            empties.push(give);
            outlets.push(Outlet {
                ring,
                shared: shared.clone(),
                counters: Arc::clone(&counters),
                queue: queue.clone(),
                empties: take,
                writer: at_once.map(|_| Arc::clone(&writer)),
            });
        }
        let thread = SinkThread { shared: shared.clone(), messages, empties, status, writer };
        let thread = thread::Builder::new()
            .name("deadpeer-sink".to_owned())
            .spawn(move || {
                // A loop that hands over has more to do, and other deaths wait for it.
                process::schedule_as_batch();
                if let Some(outcome) = thread.run() {
                    let _ = end.send(outcome); // `finish` may have given up
                }
            })
            .map_err(SinkError::Thread)?;
        Ok((Sink { shared, queue, counters, ended, thread }, outlets))
    }

    /// Writes the first line, which says that everything is ready. Call it once, before any outlet offers anything.
    pub fn announce(&self, opening: S::Opening) {
        // If the thread panicked, `finish` says so.
        let _ = self.queue.try_send(Message::Opening(Box::new(opening)));
    }

    /// The counts of all loops, for a status line beside the sink's own.
    #[must_use]
    pub fn counters(&self) -> &Arc<[Counters]> {
        &self.counters
    }

    /// Sets what is called, on the sink's thread, when nothing can be written any more; at once, and
    /// on this thread, when it is so already.
    pub fn on_closed(&self, callback: Callback) {
        *lock(&self.shared.on_closed) = Some(callback);
        if self.closed() {
            self.shared.close();
        }
    }

    /// Whether nothing is written any more: the reader has gone, or the output failed.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.shared.closed.load(SeqCst)
    }

    /// Events that were accepted and are not written (yet).
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.shared.undelivered()
    }

    /// Lines that were dropped because a disk was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(SeqCst)
    }

    /// As [`dropped`](Sink::dropped), also when the sink has ended: what waits may be dropped at the end.
    pub fn count_dropped(&self) -> impl Fn() -> u64 + use<S> {
        let shared = Arc::clone(&self.shared);
        move || shared.dropped.load(SeqCst)
    }

    /// Writes what waits, then the last line. Call it when no outlet offers anything any more: what is offered later is
    /// not written.
    #[must_use]
    pub fn finish(self, closing: S::Closing, patience: Duration) -> Finish {
        // If the thread panicked, its end of `ended` is gone too.
        let _ = self.queue.try_send(Message::Closing(Box::new(closing)));
        let ended = self.ended.recv_timeout(patience);
        let undelivered = self.shared.undelivered();
        let finish = match ended {
            Ok(finish) => finish,
            Err(RecvTimeoutError::Timeout) => return Finish::Stuck { undelivered },
            Err(RecvTimeoutError::Disconnected) => Finish::Failed { error: SinkError::Panicked, undelivered },
        };
        let _ = self.thread.join();
        finish
    }
}

#[cfg(test)]
mod tests;
