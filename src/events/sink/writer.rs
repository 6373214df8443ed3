//! The thread that writes, and the writer that it shares with the loops.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::output::{Finish, Out, SinkError};
use super::queue::{Message, Shared, lock};
use crate::events::encoder::{Encoder, Stream};
use crate::sys::nowait::How;
use crate::time::{Instant, WallClock};

/// A write is due when this many bytes are encoded, even if more events wait: what a pipe holds by default (`pipe(7)`).
/// The buffer is this and one line.
pub(super) const WRITE_AT: usize = 64 * 1024;

/// Room for the line that goes beyond: the longest, a death, has about 1,100 bytes.
pub(super) const LINE: usize = 4 * 1024;

/// Batches that are written together before the clock is read anew.
pub(super) const COALESCE: usize = 16;

/// The time between two status lines while nothing happens.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// The pause before a descriptor that is not ready is tried again. Only another program makes a descriptor of ours
/// non-blocking (a terminal that is shared).
const NOT_READY: Duration = Duration::from_millis(5);

/// Why nothing is written any more. `None` stands for a reader that has gone.
pub(super) type Trouble = Option<SinkError>;

/// The outcome of a batch that a loop's thread wanted to write itself.
pub(super) enum Written {
    /// The batch is written.
    All,
    /// The batch is encoded, and the sink's thread has to write the rest.
    InPart,
    /// Nothing was done: the sink's thread has to write the batch.
    Not,
    /// Nothing was done, and never will be: a write to this output may wait.
    Never,
}

/// The encoder, its buffer and the output. One thread at a time has it.
pub(super) struct OutputWriter<S: Stream> {
    pub(super) shared: Arc<Shared>,
    pub(super) encoder: Encoder<S>,
    pub(super) name: String,
    pub(super) out: Out,
    pub(super) buffer: Vec<u8>,
    /// Events in the buffer.
    pub(super) encoded: u64,
    /// The first line is written.
    pub(super) begun: bool,
    /// How a ring's thread writes, as far as is known.
    pub(super) at_once: Option<How>,
    /// What a full disk does not take is dropped.
    pub(super) drops: bool,
    /// What was dropped and not told yet.
    pub(super) lost: Option<Lost>,
    /// What was dropped where nothing is told of it, until a write shows that the disk has room again.
    pub(super) untold: Option<Lost>,
    /// The rest of a line that was written in part.
    pub(super) torn: Vec<u8>,
    /// The buffer begins with the rest of a line: a loop's thread has written the beginning.
    pub(super) mid_line: bool,
    pub(super) trouble: Option<Trouble>,
}

/// Lines that a full disk did not take.
pub(super) struct Lost {
    events: u64,
    /// Their numbers, where lines have numbers.
    lines: Option<Range<u64>>,
    /// Why the first of them was not taken.
    source: io::Error,
}

impl<S: Stream> OutputWriter<S> {
    /// Writes what is encoded, however long that takes. After a failure nothing is written any more; after a failure that
    /// may pass, nothing before [`catch_up`](OutputWriter::catch_up).
    fn write(&mut self) {
        let encoded = std::mem::take(&mut self.encoded);
        let buffer = std::mem::take(&mut self.buffer);
        if self.trouble.is_none() {
            let (written, result) =
                if self.is_behind() { (0, Ok(())) } else { write_out(self.out.writer(), &buffer) };
            match result {
                Ok(()) if written == buffer.len() => {
                    if written > 0 {
                        self.untold = None;
                    }
                    self.delivered(encoded);
                }
                Err(source) if !self.may_pass(&source) => self.fail(source),
                result => self.lose(&buffer, written, encoded, result.err()),
            }
        }
        self.buffer = buffer;
        self.buffer.clear();
        self.mid_line = false;
    }

    /// Whether lines are missing that were not told of.
    fn is_behind(&self) -> bool {
        self.lost.is_some() || !self.torn.is_empty()
    }

    fn may_pass(&self, source: &io::Error) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        self.drops && self.begun && matches!(source.kind(), FileTooLarge | QuotaExceeded | StorageFull)
    }

    fn fail(&mut self, source: io::Error) {
        let name = self.name.clone();
        let gone = source.kind() == io::ErrorKind::BrokenPipe;
        self.trouble = Some((!gone).then_some(SinkError::Write { name, source }));
        self.shared.close();
    }

    /// Drops the lines of which nothing was written. The rest of one that was begun is kept.
    fn lose(&mut self, buffer: &[u8], written: usize, events: u64, source: Option<io::Error>) {
        let begun = if written > 0 { buffer[written - 1] != b'\n' } else { self.mid_line };
        let end = buffer[written..].iter().position(|&byte| begun && byte == b'\n');
        let (torn, lost) = buffer[written..].split_at(end.map_or(0, |end| end + 1));
        self.torn.extend_from_slice(torn);
        self.delivered(events); // nobody is to wait for them
        let next = self.encoder.next_line();
        // A line for people may have several lines.
        let count = if self.encoder.has_a_line_each() {
            lost.iter().filter(|&&byte| byte == b'\n').count() as u64
        } else {
            events
        };
        if count == 0 {
            return;
        }
        self.shared.dropped.fetch_add(count, SeqCst);
        let first = self.lost.as_ref().map_or_else(
            || next.map(|next| next - count),
            |lost| lost.lines.as_ref().map(|lines| lines.start),
        );
        let lines = first.zip(next).map(|(first, next)| first..next);
        let before = self.lost.take().or(self.untold.take());
        let events = count + before.as_ref().map_or(0, |lost| lost.events);
        let source =
            before.map(|lost| lost.source).or(source).unwrap_or_else(|| io::ErrorKind::StorageFull.into());
        self.lost = Some(Lost { events, lines, source });
    }

    /// Writes what a failure has left: the rest of a line, and how many are missing behind it. Nothing may be encoded.
    fn catch_up(&mut self) {
        if self.trouble.is_some() || !self.is_behind() {
            return;
        }
        let (written, result) = write_out(self.out.writer(), &self.torn);
        self.torn.drain(..written);
        if let Err(source) = result {
            if !self.may_pass(&source) {
                self.fail(source);
            }
            return;
        }
        let Some(lost) = self.lost.take() else { return };
        let line = self.encoder.next_line();
        let mut notice = Vec::new();
        self.encoder.dropped(lost.events, lost.lines.clone(), &mut notice);
        if notice.is_empty() {
            self.untold = Some(lost);
            return;
        }
        let (written, result) = write_out(self.out.writer(), &notice);
        match result {
            Err(source) if !self.may_pass(&source) => self.fail(source),
            Err(_) if written == 0 => {
                self.encoder.go_back(line);
                self.lost = Some(lost);
            }
            _ => self.torn.extend_from_slice(&notice[written..]),
        }
    }

    fn delivered(&self, events: u64) {
        self.shared.delivered.fetch_add(events, SeqCst);
    }

    /// Writes a batch of the loop `ring` on that loop's thread, while no other thread has the writer.
    pub(super) fn write_at_once(
        writer: &Mutex<OutputWriter<S>>,
        ring: usize,
        events: &[S::Event],
    ) -> Written {
        // The sink's thread has the writer while it writes.
        let Ok(mut writer) = writer.try_lock() else { return Written::Not };
        let writer = &mut *writer;
        let waits = writer.is_behind() || !writer.buffer.is_empty();
        if !writer.begun || writer.trouble.is_some() || waits {
            return Written::Not;
        }
        let (Out::File(file), Some(how)) = (&writer.out, writer.at_once) else { return Written::Never };
        writer.encoder.set_clock(WallClock::read());
        for event in events {
            writer.encoder.event(ring, event, &mut writer.buffer);
        }
        writer.shared.accepted.fetch_add(events.len() as u64, SeqCst);
        if writer.buffer.is_empty() {
            writer.delivered(events.len() as u64); // the filter passed none
            return Written::All;
        }
        let written = how.write(file, &writer.buffer).unwrap_or_else(|error| {
            // The sink's thread meets any other error with the rest.
            let later = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            writer.at_once = later.then_some(how);
            0
        });
        if written < writer.buffer.len() {
            writer.mid_line = written > 0 && writer.buffer[written - 1] != b'\n';
            writer.buffer.drain(..written);
            writer.encoded = events.len() as u64;
            return Written::InPart;
        }
        writer.buffer.clear();
        writer.untold = None;
        writer.delivered(events.len() as u64);
        Written::All
    }
}

/// The sink's thread.
pub(super) struct SinkThread<S: Stream> {
    pub(super) shared: Arc<Shared>,
    pub(super) messages: Receiver<Message<S>>,
    pub(super) empties: Vec<SyncSender<Vec<S::Event>>>,
    pub(super) status: bool,
    pub(super) writer: Arc<Mutex<OutputWriter<S>>>,
}

impl<S: Stream> SinkThread<S> {
    /// Runs until the last line; `None` when the sink and all outlets were dropped before it.
    pub(super) fn run(self) -> Option<Finish> {
        let Message::Opening(opening) = self.messages.recv().ok()? else {
            unreachable!("a stream begins before anything is offered");
        };
        {
            let writer = &mut *self.writer();
            self.begin(writer);
            writer.encoder.opening(&opening, &mut writer.buffer);
            self.flush(writer);
            writer.begun = true;
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
            let writer = &mut *self.writer();
            self.begin(writer);
            let mut closing = None;
            for _ in 0..COALESCE {
                // A message is received only where it is handled: one received ahead of the loop's
                // end was once lost there.
                match first.take().or_else(|| self.messages.try_recv().ok()) {
                    Some(Message::Batch { ring, events }) => self.take(writer, ring, events),
                    // It is in the buffer, before all that comes now.
                    Some(Message::Rest) => self.shared.rest.store(false, SeqCst),
                    Some(Message::Closing(last)) => closing = Some(last),
                    Some(Message::Opening(_)) => unreachable!("a stream begins once"),
                    None => break,
                }
            }
            if let Some(closing) = closing {
                break closing;
            }
            self.flush(writer);
            troubled = writer.trouble.is_some();
        };
        let writer = &mut *self.writer();
        if writer.trouble.is_none() {
            writer.encoder.closing(&closing, &mut writer.buffer);
        }
        writer.write();
        // Outlets may outlive the sink: they write nothing more, and the output is closed for its reader.
        writer.at_once = None;
        writer.out = Out::Other(Box::new(io::sink()));
        Some(match (writer.trouble.take(), writer.lost.take().or(writer.untold.take())) {
            (None, None) => Finish::Delivered,
            (None, Some(Lost { events, source, .. })) => {
                let error = SinkError::Write { name: writer.name.clone(), source };
                Finish::Failed { error, undelivered: events }
            }
            (Some(None), _) => Finish::Closed,
            (Some(Some(error)), _) => Finish::Failed { error, undelivered: self.shared.undelivered() },
        })
    }

    fn writer(&self) -> MutexGuard<'_, OutputWriter<S>> {
        self.writer.lock().unwrap_or_else(|poisoned| {
            // An encoder panicked on a loop's thread, in the middle of a line. It had begun with an empty buffer.
            let mut writer = poisoned.into_inner();
            writer.buffer.clear();
            writer.encoded = 0;
            self.writer.clear_poison();
            writer
        })
    }

    /// Begins a write: with the date, and without the status line.
    fn begin(&self, writer: &mut OutputWriter<S>) {
        writer.encoder.set_clock(WallClock::read());
        writer.catch_up();
        writer.encoder.clear_status(&mut writer.buffer);
    }

    /// Encodes a batch and gives its memory back.
    fn take(&self, writer: &mut OutputWriter<S>, ring: usize, mut events: Vec<S::Event>) {
        for event in &events {
            if writer.trouble.is_some() {
                break;
            }
            writer.encoder.event(ring, event, &mut writer.buffer);
            writer.encoded += 1;
            if writer.buffer.len() >= WRITE_AT {
                writer.write();
            }
        }
        events.clear();
        // There is a place for each; only an outlet that was dropped accepts none.
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
    fn flush(&self, writer: &mut OutputWriter<S>) {
        writer.encoder.status(Instant::now(), &mut writer.buffer);
        writer.write();
    }
}

impl<S: Stream> Drop for SinkThread<S> {
    /// An output of the caller's may panic; the program has to know that nothing is written any more.
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.close();
        }
    }
}

/// `write_all` that waits for a descriptor that is not ready. Also returns how much was written.
fn write_out(out: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(NOT_READY),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}
