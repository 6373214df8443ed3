//! The sink: where all ring threads say what they have to say. What that is, and in which words, is a
//! [`Voice`]'s affair.
//!
//! # Intuition
//!
//! A pipe whose reader sleeps, or a disk that is full, must not hold up the loop that keeps the time
//! of a hundred thousand peers. So a ring thread hands its batches to a thread that may block as long
//! as it likes. But to wake a thread for a single death costs more than the death. So where a writer
//! never waits ([`How`]: a socket, as journald's, or a file in memory), and nothing is to be written
//! before, a ring thread writes a small batch itself.
//!
//! # Model
//!
//! ```text
//!                               at once, if nothing waits
//!   ring 0: Outlet ------------------------------------------\
//!              |  --batch-->  \                     coalesce,  v
//!              |  <--empty--   >  one bounded queue --------> Pen: encode, one write
//!   ring 1: Outlet --batch--> /                     one thread
//! ```
//!
//! A ring may have [`EVENT_BATCHES`] batches on the way; each comes back empty, to be filled again.
//! When all are on the way, [`Outlet::offer`] gives the batch back, and the outlet's waker is called
//! once there is room again. Meanwhile events wait where they came from, so a sink that is stuck is
//! felt there: the daemon's peers keep their places until their deaths were taken, and it comes to
//! back-pressure at the connection limit.
//!
//! What a ring thread writes itself is a batch that is not full: full ones come in a storm, where
//! another core may encode them, and where one write serves many. What the kernel did not take of it
//! at once is the thread's.
//!
//! # Contract
//!
//! - `offer` never blocks, and what it took is written, in order, or counted as undelivered.
//! - A ring's batches are written in the order in which they were offered.
//! - A voice speaks on one thread at a time: first its opening, then events, last its closing.
//! - When nobody reads any more (a closed pipe) or nothing can be written (a full disk), the sink
//!   stays: it takes what is offered, counts it as undelivered, and says so once, by
//!   [`Sink::on_closed`], so that the program can end.
//! - [`Sink::finish`] takes no longer than its patience.
//!
//! # Example
//!
//! ```
//! use deadpeer::events::sink::{Finish, Output, Sink, Voice};
//! use deadpeer::time::WallClock;
//! use std::io::{Read, Write};
//! use std::time::Duration;
//!
//! /// Says numbers.
//! struct Teller;
//!
//! impl Voice for Teller {
//!     type Opening = &'static str;
//!     type Event = u64;
//!     type Closing = &'static str;
//!
//!     fn set_clock(&mut self, _: WallClock) {}
//!
//!     fn opening(&mut self, greeting: &&'static str, into: &mut Vec<u8>) {
//!         writeln!(into, "{greeting}").unwrap();
//!     }
//!
//!     fn event(&mut self, ring: usize, number: &u64, into: &mut Vec<u8>) {
//!         writeln!(into, "{number} from ring {ring}").unwrap();
//!     }
//!
//!     fn closing(&mut self, farewell: &&'static str, into: &mut Vec<u8>) {
//!         writeln!(into, "{farewell}").unwrap();
//!     }
//! }
//!
//! let (mut reader, writer) = std::io::pipe().unwrap();
//! let output = Output::Writer { name: "a pipe".into(), writer: Box::new(writer) };
//! let (sink, mut outlets) = Sink::spawn(Teller, output, 1).unwrap();
//! sink.announce("hello");
//!
//! let outlet = &mut outlets[0];
//! let mut batch = outlet.empty_batch();
//! batch.push(7);
//! let next = outlet.offer(batch).expect("there is room");
//! assert!(next.is_empty());
//!
//! assert!(matches!(sink.finish("goodbye", Duration::from_secs(9)), Finish::Delivered));
//! let mut text = String::new();
//! reader.read_to_string(&mut text).unwrap();
//! assert_eq!(text, "hello\n7 from ring 0\ngoodbye\n");
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::limits::{EVENT_BATCH, EVENT_BATCHES};
use crate::reactor::EventSink;
use crate::sys::nowait::How;
use crate::sys::{describe, process};
use crate::time::{Instant, WallClock};

/// A write is due when this many bytes are encoded, even if more events wait: what a pipe holds by
/// default (`pipe(7)`). The buffer is this and one line.
const WRITE_AT: usize = 64 * 1024;

/// Room for the line that goes beyond: the longest of the daemon's, a death, has about 1,100 bytes.
const LINE: usize = 4 * 1024;

/// Waiting batches that are written together before the clock is read anew.
const COALESCE: usize = 16;

/// How often the status line is written anew while nothing happens.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// Pause before a descriptor that is not ready is tried again. Only for a descriptor that somebody
/// else made non-blocking (a terminal shared with another program).
const NOT_READY: Duration = Duration::from_millis(5);

/// What is called when something happens on the sink's thread. It must not block.
pub type Callback = Arc<dyn Fn() + Send + Sync>;

/// What a sink writes, and how. Speaks on the sink's thread, and on a ring's where that writes itself.
///
/// Nothing here may fail or block: a voice appends to a buffer, and the sink has the trouble with the
/// output.
pub trait Voice: Send + 'static {
    /// What is said first: that everything is ready.
    type Opening: Send + 'static;
    /// What happens.
    type Event: Send + 'static;
    /// What is said last: the summary.
    type Closing: Send + 'static;

    /// Sets the relation between clock and date; called before everything that is written together.
    fn set_clock(&mut self, wall: WallClock);

    /// Appends what is said first.
    fn opening(&mut self, opening: &Self::Opening, into: &mut Vec<u8>);

    /// Appends an event of the ring thread `ring`.
    fn event(&mut self, ring: usize, event: &Self::Event, into: &mut Vec<u8>);

    /// Appends what is said last.
    fn closing(&mut self, closing: &Self::Closing, into: &mut Vec<u8>);

    /// Whether there is a status line, written anew when nothing happens. Asked once, by
    /// [`Sink::spawn`]; the two that follow are called only if there is one.
    fn has_status(&self) -> bool {
        false
    }

    /// Clears the status line, so that lines can take its place.
    fn clear_status(&mut self, into: &mut Vec<u8>) {
        let _ = into;
    }

    /// Writes the status line, without an end of line.
    fn status(&mut self, now: Instant, into: &mut Vec<u8>) {
        let _ = (now, into);
    }
}

/// For whom to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For programs: one JSON object a line.
    JsonLines,
    /// For people: one sentence a line.
    Human {
        /// Colour the words.
        colour: bool,
        /// Keep a status line at the bottom.
        status: bool,
    },
}

impl Format {
    /// For people, with colour and a status line where standard output is a terminal that can show
    /// them (not `TERM=dumb`), and without colour where `NO_COLOR` is set.
    #[must_use]
    pub fn human_on_stdout() -> Format {
        let capable =
            io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Format::Human { colour: capable && !colourless, status: capable }
    }
}

/// Where to write.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file: made where there is none, appended to where there is one. Opening a FIFO waits for
    /// its reader.
    File(PathBuf),
    /// What is open already: a file, a pipe, a socket.
    Open {
        /// What to call it in an error.
        name: String,
        /// It.
        file: File,
    },
    /// Anything else that takes bytes.
    Writer {
        /// What to call it in an error.
        name: String,
        /// What takes the bytes. Called on the sink's thread only; it may block.
        writer: Box<dyn Write + Send>,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Output {
    /// What it is called in an error.
    fn name(&self) -> String {
        match self {
            Output::Stdout => "standard output".to_owned(),
            Output::File(path) => path.display().to_string(),
            Output::Open { name, .. } | Output::Writer { name, .. } => name.clone(),
        }
    }

    /// Opens it now, for who must know when that is done: opening a FIFO waits for its reader.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn opened(self) -> Result<Output, SinkError> {
        let name = self.name();
        let opened = match self {
            // Not `io::stdout`: its buffer by lines would cut one write into many.
            Output::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Output::File(path) => OpenOptions::new().append(true).create(true).open(path),
            Output::Open { .. } | Output::Writer { .. } => return Ok(self),
        };
        match opened {
            Ok(file) => Ok(Output::Open { name, file }),
            Err(source) => Err(SinkError::Open { name, source }),
        }
    }

    fn open(self) -> Result<Out, SinkError> {
        match self.opened()? {
            Output::Open { file, .. } => Ok(Out::File(file)),
            Output::Writer { writer, .. } => Ok(Out::Writer(writer)),
            Output::Stdout | Output::File(_) => unreachable!("what was opened is open"),
        }
    }
}

/// Why there is no sink, or why it stopped.
#[derive(Debug)]
pub enum SinkError {
    /// The output could not be opened.
    Open {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The output took no more.
    Write {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The thread could not be started.
    Thread(io::Error),
    /// The thread panicked: a bug.
    Panicked,
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SinkError::Open { source, .. } | SinkError::Write { source, .. } => Some(source),
            SinkError::Thread(source) => Some(source),
            SinkError::Panicked => None,
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Open { name, source } => {
                write!(f, "cannot open {name} for events: {}; {}", describe(source), cure(source.kind()))
            }
            SinkError::Write { name, source } => {
                write!(f, "cannot write events to {name}: {}; {}", describe(source), cure(source.kind()))
            }
            SinkError::Thread(source) => write!(
                f,
                "cannot start the thread that writes events: {}; raise the limit on threads (ulimit -u, \
                 TasksMax= in a unit) or free memory",
                describe(source)
            ),
            SinkError::Panicked => {
                f.write_str("the thread that writes events panicked; this is a bug: please report it")
            }
        }
    }
}

fn cure(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind;
    match kind {
        ErrorKind::NotFound => "create its directory first, or name another path with --events",
        ErrorKind::PermissionDenied => {
            "allow this user to write there, or name another path with --events (--events - is standard output)"
        }
        ErrorKind::IsADirectory => "name a file in it with --events",
        ErrorKind::ReadOnlyFilesystem => "name a path on a writable file system with --events",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space there, or name a path on another disk with --events"
        }
        ErrorKind::FileTooLarge => "rotate the file, or raise the limit on file sizes (ulimit -f)",
        _ => "name another path with --events (--events - is standard output)",
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Finish {
    /// Everything is written, the summary too.
    Delivered,
    /// The reader had gone: whoever wanted the events wants no more.
    Closed,
    /// The output is stuck. Its thread is left behind, and ends with the program.
    Stuck {
        /// Events that were taken and not written.
        undelivered: u64,
    },
    /// The output had failed.
    Failed {
        /// Why, and the cure.
        error: SinkError,
        /// Events that were taken and not written.
        undelivered: u64,
    },
}

/// A panic of another thread leaves nothing half-done behind any of the locks here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the rings and the sink's thread share.
struct Shared {
    rings: Vec<Ring>,
    /// Events that were offered and taken.
    accepted: AtomicU64,
    /// Events that were written.
    delivered: AtomicU64,
    /// Nothing is written any more.
    closed: AtomicBool,
    /// There is a [`Message::Rest`] in the queue.
    rest: AtomicBool,
    on_closed: Mutex<Option<Callback>>,
}

/// One ring's part of it. On a cache line of its own, so that one ring's offer is not another's miss.
#[derive(Default)]
#[repr(align(64))]
struct Ring {
    /// Batches that were taken and not yet given back.
    in_flight: AtomicUsize,
    /// An offer was refused; the waker is to be called.
    waiting: AtomicBool,
    waker: Mutex<Option<Callback>>,
}

impl Shared {
    fn undelivered(&self) -> u64 {
        // In this order: what is delivered was accepted before.
        let delivered = self.delivered.load(SeqCst);
        self.accepted.load(SeqCst) - delivered
    }

    fn close(&self) {
        self.closed.store(true, SeqCst);
        // Taken out first: the callback may use the sink.
        let callback = lock(&self.on_closed).take();
        if let Some(callback) = callback {
            callback();
        }
    }
}

/// What waits in the queue. The first word and the last keep their place in it, and travel beside
/// it: an outlet knows the type of its events, and not the whole voice.
enum Message<E> {
    Opening,
    Batch {
        ring: usize,
        events: Vec<E>,
    },
    /// A ring thread has encoded what the output did not take at once.
    Rest,
    Closing,
}

/// A pen that a ring thread may take, if nobody has it.
trait AtOnce<E>: Send + Sync {
    fn write(&self, ring: usize, events: &[E]) -> Written;
}

/// What became of a batch that a ring thread wanted to write itself.
enum Written {
    /// It is written.
    All,
    /// It is encoded, and the thread has to write the rest.
    InPart,
    /// Nothing was done: it is the thread's.
    Not,
    /// Nothing was done, and nothing ever will be: this output does not say that it would have to wait.
    Never,
}

/// One ring thread's way to the sink.
pub struct Outlet<E> {
    ring: usize,
    shared: Arc<Shared>,
    queue: SyncSender<Message<E>>,
    empties: Receiver<Vec<E>>,
    /// Where this ring's thread may write itself.
    pen: Option<Arc<dyn AtOnce<E>>>,
}

impl<E> fmt::Debug for Outlet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("ring", &self.ring).field("in_flight", &self.in_flight()).finish()
    }
}

impl<E> Outlet<E> {
    /// Hands a batch over and returns an empty one, or returns the batch itself when there is no
    /// room: then keep it, offer it again once the waker was called, and let more events wait where
    /// they come from than it has room for. Never blocks; allocates only until there are
    /// as many batches as the sink is behind.
    ///
    /// # Errors
    ///
    /// The batch itself. [`EVENT_BATCHES`] are on their way already.
    ///
    /// # Panics
    ///
    /// When the batch has more than [`EVENT_BATCH`] events.
    pub fn offer(&mut self, batch: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        assert!(batch.len() <= EVENT_BATCH, "a batch of {} events", batch.len());
        if batch.is_empty() {
            return Ok(batch);
        }
        let mut batch = batch;
        if self.write_at_once(&batch) {
            batch.clear();
            return Ok(batch);
        }
        let ring = &self.shared.rings[self.ring];
        if ring.in_flight.load(SeqCst) >= EVENT_BATCHES {
            // Say first that we wait, then look again: the sink makes room first and then looks who
            // waits. Whatever the order of the four steps, one of the two sees the other.
            ring.waiting.store(true, SeqCst);
            if ring.in_flight.load(SeqCst) >= EVENT_BATCHES {
                return Err(batch);
            }
            ring.waiting.store(false, SeqCst);
        }
        ring.in_flight.fetch_add(1, SeqCst);
        self.shared.accepted.fetch_add(batch.len() as u64, SeqCst);
        // The queue has a place for every batch of every ring, so the only failure is that the
        // thread is gone, after a panic. The events are counted as undelivered.
        let sent = self.queue.try_send(Message::Batch { ring: self.ring, events: batch });
        if sent.is_err() {
            self.shared.close();
            ring.in_flight.fetch_sub(1, SeqCst);
        }
        Ok(self.empty_batch())
    }

    /// Writes a batch on this thread, if it is a small one and nothing waits to be written before it.
    fn write_at_once(&mut self, batch: &[E]) -> bool {
        let Some(pen) = &self.pen else { return false };
        if batch.len() == EVENT_BATCH || self.shared.undelivered() > 0 {
            return false;
        }
        match pen.write(self.ring, batch) {
            Written::All => true,
            Written::InPart => {
                // One place is kept for it, and one is enough: the thread writes all that is there.
                if !self.shared.rest.swap(true, SeqCst) && self.queue.try_send(Message::Rest).is_err() {
                    self.shared.close();
                }
                true
            }
            Written::Not => false,
            Written::Never => {
                self.pen = None;
                false
            }
        }
    }

    /// An empty batch: one that came back, or a new one.
    pub fn empty_batch(&mut self) -> Vec<E> {
        self.empties.try_recv().unwrap_or_else(|_| Vec::with_capacity(EVENT_BATCH))
    }

    /// Sets what is called, on the sink's thread, when there is room after a refusal. Once a
    /// refusal; a call too many is possible and harmless.
    pub fn set_waker(&mut self, waker: Callback) {
        let ring = &self.shared.rings[self.ring];
        *lock(&ring.waker) = Some(waker.clone());
        // A refusal from before, whose room came while nobody could be told.
        if ring.in_flight.load(SeqCst) < EVENT_BATCHES && ring.waiting.swap(false, SeqCst) {
            waker();
        }
    }

    /// Which ring this is, from 0: the `thread` of its events.
    #[must_use]
    pub fn ring(&self) -> usize {
        self.ring
    }

    /// Batches on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.rings[self.ring].in_flight.load(SeqCst)
    }
}

impl<E, C> EventSink<E, C> for Outlet<E> {
    fn offer(&mut self, batch: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        Outlet::offer(self, batch)
    }
}

/// The thread that writes.
pub struct Sink<V: Voice> {
    shared: Arc<Shared>,
    queue: SyncSender<Message<V::Event>>,
    opening: SyncSender<V::Opening>,
    closing: SyncSender<V::Closing>,
    ended: Receiver<Ended>,
    thread: thread::JoinHandle<()>,
}

impl<V: Voice> fmt::Debug for Sink<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("closed", &self.closed())
            .field("undelivered", &self.undelivered())
            .finish()
    }
}

impl<V: Voice> Sink<V> {
    /// Opens the output and starts the thread, with one outlet for each ring thread. Nothing is
    /// written before [`Sink::announce`].
    ///
    /// # Errors
    ///
    /// When the output cannot be opened or the thread cannot be started.
    #[allow(clippy::type_complexity)] // a pair that is taken apart at once needs no name
    pub fn spawn(
        voice: V,
        output: Output,
        rings: usize,
    ) -> Result<(Sink<V>, Vec<Outlet<V::Event>>), SinkError> {
        let name = output.name();
        let out = output.open()?;
        let shared = Arc::new(Shared {
            rings: std::iter::repeat_with(Ring::default).take(rings).collect(),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            on_closed: Mutex::new(None),
        });
        // Places more than all batches: for the first line and the last, which must never wait, and for
        // what a ring thread has left, which is there once at most.
        let (queue, messages) = sync_channel(rings * EVENT_BATCHES + 3);
        let (opening, first) = sync_channel(1);
        let (closing, last) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let status = voice.has_status();
        // A status line is written anew with every write, by a thread that has the time.
        let at_once = match &out {
            Out::File(file) if !status => How::of(file),
            _ => None,
        };
        let pen = Arc::new(Mutex::new(Pen {
            shared: shared.clone(),
            voice,
            name,
            out,
            buffer: Vec::with_capacity(WRITE_AT + LINE),
            encoded: 0,
            begun: false,
            at_once,
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
                queue: queue.clone(),
                empties: take,
                pen: at_once.map(|_| pen.clone() as Arc<dyn AtOnce<V::Event>>),
            });
        }
        let writer = Writer { shared: shared.clone(), messages, first, last, empties, status, pen };
        let thread = thread::Builder::new()
            .name("deadpeer-sink".to_owned())
            .spawn(move || {
                // A ring that hands over has more to do, and other deaths wait for it.
                process::schedule_as_batch();
                if let Some(outcome) = writer.run() {
                    let _ = end.send(outcome); // nobody listens who ran out of patience
                }
            })
            .map_err(SinkError::Thread)?;
        Ok((Sink { shared, queue, opening, closing, ended, thread }, outlets))
    }

    /// Writes the first line, which says that everything is ready. To be called once, before any
    /// outlet offers anything.
    pub fn announce(&self, opening: V::Opening) {
        // If the thread panicked, `finish` says so.
        let _ = self.opening.try_send(opening);
        let _ = self.queue.try_send(Message::Opening);
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

    /// Events that were taken and are not written (yet).
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.shared.undelivered()
    }

    /// Writes what waits, then the summary. To be called when no outlet offers anything any more:
    /// what is offered later is not written.
    #[must_use]
    pub fn finish(self, closing: V::Closing, patience: Duration) -> Finish {
        // If the thread panicked, its end of `ended` is gone too.
        let _ = self.closing.try_send(closing);
        let _ = self.queue.try_send(Message::Closing);
        let ended = self.ended.recv_timeout(patience);
        let undelivered = self.shared.undelivered();
        let finish = match ended {
            Ok(Ended::Delivered) => Finish::Delivered,
            Ok(Ended::Closed) => Finish::Closed,
            Ok(Ended::Failed(error)) => Finish::Failed { error, undelivered },
            Err(RecvTimeoutError::Timeout) => return Finish::Stuck { undelivered },
            Err(RecvTimeoutError::Disconnected) => Finish::Failed { error: SinkError::Panicked, undelivered },
        };
        let _ = self.thread.join();
        finish
    }
}

enum Ended {
    Delivered,
    Closed,
    Failed(SinkError),
}

/// Why nothing is written any more. `None`: the reader has gone.
type Trouble = Option<SinkError>;

/// Where it goes.
enum Out {
    File(File),
    Writer(Box<dyn Write + Send>),
}

/// What writes: one thread at a time has it.
struct Pen<V: Voice> {
    shared: Arc<Shared>,
    voice: V,
    name: String,
    out: Out,
    buffer: Vec<u8>,
    /// Events in the buffer.
    encoded: u64,
    /// The first line is written.
    begun: bool,
    /// How a ring's thread writes, as far as is known.
    at_once: Option<How>,
    trouble: Option<Trouble>,
}

impl<V: Voice> Pen<V> {
    /// Writes what is encoded, however long it takes. The first failure is the last.
    fn write(&mut self) {
        let encoded = std::mem::take(&mut self.encoded);
        if self.trouble.is_none() {
            let out: &mut dyn Write = match &mut self.out {
                Out::File(file) => file,
                Out::Writer(writer) => writer,
            };
            match write_out(out, &self.buffer) {
                Ok(()) => self.delivered(encoded),
                Err(source) => {
                    let name = self.name.clone();
                    let gone = source.kind() == io::ErrorKind::BrokenPipe;
                    self.trouble = Some((!gone).then_some(SinkError::Write { name, source }));
                    self.shared.close();
                }
            }
        }
        self.buffer.clear();
    }

    fn delivered(&self, events: u64) {
        self.shared.delivered.fetch_add(events, SeqCst);
    }
}

impl<V: Voice> AtOnce<V::Event> for Mutex<Pen<V>> {
    fn write(&self, ring: usize, events: &[V::Event]) -> Written {
        // The thread has it while it writes.
        let Ok(mut pen) = self.try_lock() else { return Written::Not };
        let pen = &mut *pen;
        if !pen.begun || pen.trouble.is_some() || !pen.buffer.is_empty() {
            return Written::Not;
        }
        let (Out::File(file), Some(how)) = (&pen.out, pen.at_once) else { return Written::Never };
        pen.voice.set_clock(WallClock::read());
        for event in events {
            pen.voice.event(ring, event, &mut pen.buffer);
        }
        pen.shared.accepted.fetch_add(events.len() as u64, SeqCst);
        let written = how.write(file, &pen.buffer).unwrap_or_else(|error| {
            // Whatever is wrong with the output, the thread meets it with the rest.
            let later = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            pen.at_once = later.then_some(how);
            0
        });
        if written < pen.buffer.len() {
            pen.buffer.drain(..written);
            pen.encoded = events.len() as u64;
            return Written::InPart;
        }
        pen.buffer.clear();
        pen.delivered(events.len() as u64);
        Written::All
    }
}

/// The thread's side.
struct Writer<V: Voice> {
    shared: Arc<Shared>,
    messages: Receiver<Message<V::Event>>,
    /// What is said first; there before its message is.
    first: Receiver<V::Opening>,
    /// What is said last; there before its message is.
    last: Receiver<V::Closing>,
    empties: Vec<SyncSender<Vec<V::Event>>>,
    status: bool,
    pen: Arc<Mutex<Pen<V>>>,
}

impl<V: Voice> Writer<V> {
    /// `None` when the sink and all outlets were dropped without a farewell.
    fn run(self) -> Option<Ended> {
        let Message::Opening = self.messages.recv().ok()? else {
            unreachable!("a stream begins before anything is offered");
        };
        let opening = self.first.recv().ok()?;
        {
            let pen = &mut *self.pen();
            self.begin(pen);
            pen.voice.opening(&opening, &mut pen.buffer);
            self.flush(pen);
            pen.begun = true;
        }
        let mut troubled = false;
        let closing = loop {
            // The status line is the only thing that happens by itself.
            let mut first = if self.status && !troubled {
                match self.messages.recv_timeout(STATUS_EVERY) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            } else {
                Some(self.messages.recv().ok()?)
            };
            let pen = &mut *self.pen();
            self.begin(pen);
            let mut closing = None;
            for _ in 0..COALESCE {
                // A message is received only where it is handled: one received ahead of the loop's
                // end was once lost there.
                match first.take().or_else(|| self.messages.try_recv().ok()) {
                    Some(Message::Batch { ring, events }) => self.take(pen, ring, events),
                    // It is in the buffer, before all that comes now.
                    Some(Message::Rest) => self.shared.rest.store(false, SeqCst),
                    Some(Message::Closing) => closing = Some(self.last.recv().ok()?),
                    Some(Message::Opening) => unreachable!("a stream begins once"),
                    None => break,
                }
            }
            if let Some(closing) = closing {
                break closing;
            }
            self.flush(pen);
            troubled = pen.trouble.is_some();
        };
        let pen = &mut *self.pen();
        if pen.trouble.is_none() {
            pen.voice.closing(&closing, &mut pen.buffer);
        }
        pen.write();
        // Outlets may outlive it: they write nothing more, and who reads to the end meets the end.
        pen.at_once = None;
        pen.out = Out::Writer(Box::new(io::sink()));
        Some(match pen.trouble.take() {
            None => Ended::Delivered,
            Some(None) => Ended::Closed,
            Some(Some(error)) => Ended::Failed(error),
        })
    }

    fn pen(&self) -> MutexGuard<'_, Pen<V>> {
        self.pen.lock().unwrap_or_else(|poisoned| {
            // A voice fell over on a ring's thread, in the middle of a line. It had begun with an empty buffer.
            let mut pen = poisoned.into_inner();
            pen.buffer.clear();
            pen.encoded = 0;
            self.pen.clear_poison();
            pen
        })
    }

    /// What every write begins with.
    fn begin(&self, pen: &mut Pen<V>) {
        pen.voice.set_clock(WallClock::read());
        if self.status {
            pen.voice.clear_status(&mut pen.buffer);
        }
    }

    /// Encodes a batch and gives it back empty.
    fn take(&self, pen: &mut Pen<V>, ring: usize, mut events: Vec<V::Event>) {
        for event in &events {
            if pen.trouble.is_some() {
                break;
            }
            pen.voice.event(ring, event, &mut pen.buffer);
            pen.encoded += 1;
            if pen.buffer.len() >= WRITE_AT {
                pen.write();
            }
        }
        events.clear();
        // There is a place for each; only an outlet that was dropped takes none.
        let _ = self.empties[ring].try_send(events);
        let ring = &self.shared.rings[ring];
        // See `Outlet::offer` for the order.
        ring.in_flight.fetch_sub(1, SeqCst);
        if ring.waiting.load(SeqCst) {
            let waker = lock(&ring.waker).clone();
            // Without a waker the refusal stands until `set_waker` sees it.
            if let Some(waker) = waker
                && ring.waiting.swap(false, SeqCst)
            {
                waker();
            }
        }
    }

    /// Ends a write: with the status line, where there is one.
    fn flush(&self, pen: &mut Pen<V>) {
        if self.status {
            pen.voice.status(Instant::now(), &mut pen.buffer);
        }
        pen.write();
    }
}

impl<V: Voice> Drop for Writer<V> {
    /// A writer of the caller's may panic; then somebody has to hear that nothing is written.
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.close();
        }
    }
}

/// `write_all` that also has patience with a non-blocking descriptor.
fn write_out(out: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(NOT_READY),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests;
