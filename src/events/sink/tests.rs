use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant as StdInstant;

use serde_json::Value;

use super::writer::COALESCE;
use super::*;
use crate::limits::EVENT_BATCH;
use crate::time::{Instant, WallClock};

/// Far longer than anything here takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes numbers as JSON lines, and `<` and `>` around a status line.
#[derive(Default)]
struct Numbers {
    seq: u64,
    status: bool,
    /// Receives the thread that encodes each event.
    spoke: Option<mpsc::Sender<thread::ThreadId>>,
}

impl Numbers {
    /// The number at which it panics.
    const BUG: u64 = u64::MAX;

    fn line(&mut self, event: &str, rest: fmt::Arguments<'_>, into: &mut Vec<u8>) {
        writeln!(into, r#"{{"event":"{event}","seq":{}{rest}}}"#, self.seq).unwrap();
        self.seq += 1;
    }
}

impl Encode for Numbers {
    type Opening = &'static str;
    type Event = u64;
    type Closing = &'static str;

    fn set_clock(&mut self, _: WallClock) {}

    fn opening(&mut self, word: &&'static str, into: &mut Vec<u8>) {
        self.line(word, format_args!(""), into);
    }

    fn event(&mut self, ring: usize, number: &u64, into: &mut Vec<u8>) {
        if *number == Numbers::BUG {
            into.extend_from_slice(b"half a li");
            panic!("a bug of the encoder's, for the test");
        }
        if let Some(spoke) = &self.spoke {
            let _ = spoke.send(thread::current().id()); // a test may have dropped its end
        }
        self.line("number", format_args!(r#","thread":{ring},"number":{number}"#), into);
    }

    fn closing(&mut self, word: &&'static str, into: &mut Vec<u8>) {
        self.line(word, format_args!(""), into);
    }

    fn has_status(&self) -> bool {
        self.status
    }

    fn clear_status(&mut self, into: &mut Vec<u8>) {
        into.push(b'<');
    }

    fn status(&mut self, _: Instant, into: &mut Vec<u8>) {
        into.extend_from_slice(b"status>");
    }
}

fn spawn(output: Output, rings: usize) -> (Sink<Numbers>, Vec<Outlet<u64>>) {
    let (sink, outlets) = Sink::spawn(Numbers::default(), output, rings).unwrap();
    sink.announce("opening");
    (sink, outlets)
}

fn piped(rings: usize) -> (PipeReader, Sink<Numbers>, Vec<Outlet<u64>>) {
    let (reader, writer) = io::pipe().unwrap();
    let output = Output::Writer { name: "a pipe".to_owned(), writer: Box::new(writer) };
    let (sink, outlets) = spawn(output, rings);
    (reader, sink, outlets)
}

/// A pipe that takes nothing until the gate is opened, as if its reader slept and it were full.
struct Gated {
    gate: mpsc::Receiver<()>,
    pipe: io::PipeWriter,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.gate.recv(); // an error, for ever, once the other end was dropped: it is open
        self.pipe.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that is stuck until the sender is dropped.
fn stuck(rings: usize) -> (mpsc::Sender<()>, PipeReader, Sink<Numbers>, Vec<Outlet<u64>>) {
    let (open, gate) = mpsc::channel();
    let (reader, pipe) = io::pipe().unwrap();
    let output = Output::Writer { name: "a pipe".to_owned(), writer: Box::new(Gated { gate, pipe }) };
    let (sink, outlets) = spawn(output, rings);
    (open, reader, sink, outlets)
}

/// Offers full batches until one is refused. Returns how many events were taken, and that batch.
fn fill(outlet: &mut Outlet<u64>) -> (u64, Vec<u64>) {
    let mut offered = 0;
    for _ in 0..=EVENT_BATCHES {
        match outlet.offer(batch(offered, EVENT_BATCH)) {
            Ok(empty) => assert!(empty.is_empty()),
            Err(refused) => return (offered, refused),
        }
        offered += EVENT_BATCH as u64;
    }
    panic!("nothing was written, and still there was room");
}

fn batch(first: u64, length: usize) -> Vec<u64> {
    (first..).take(length).collect()
}

fn waker() -> (Callback, mpsc::Receiver<()>) {
    let (send, receive) = mpsc::channel();
    (Arc::new(move || send.send(()).unwrap()), receive)
}

/// Offers `count` numbered events in batches, waiting for room where there is none.
fn offer_all(outlet: &mut Outlet<u64>, count: u64) {
    let (call, called) = waker();
    outlet.set_waker(call);
    let mut batch = outlet.empty_batch();
    for number in 0..count {
        batch.push(number);
        if batch.len() == EVENT_BATCH || number + 1 == count {
            while let Err(refused) = outlet.offer(std::mem::take(&mut batch)) {
                called.recv_timeout(PATIENCE).expect("a call after the refusal");
                batch = refused;
            }
            batch = outlet.empty_batch();
        }
    }
}

/// Reads to the end and checks that `seq` has no gap and that every thread's numbers are complete
/// and in order. Returns how many events each thread had.
fn check(reader: impl Read, threads: usize) -> Vec<u64> {
    let mut next = vec![0; threads];
    let mut seq = 0;
    let mut last = String::new();
    for line in BufReader::new(reader).lines() {
        let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(value["seq"], seq);
        last = value["event"].as_str().unwrap().to_owned();
        if let Some(thread) = value["thread"].as_u64() {
            let next = &mut next[thread as usize];
            assert_eq!(value["number"], *next);
            *next += 1;
        }
        seq += 1;
    }
    assert_eq!(last, "closing");
    assert_eq!(seq, 2 + next.iter().sum::<u64>());
    next
}

#[test]
fn nothing_is_lost_of_a_hundred_thousand_events_from_two_threads() {
    let (reader, sink, outlets) = piped(2);
    let reading = thread::spawn(move || check(reader, 2));
    thread::scope(|scope| {
        for mut outlet in outlets {
            scope.spawn(move || offer_all(&mut outlet, 50_000));
        }
    });
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), [50_000, 50_000]);
}

#[test]
fn a_stuck_pipe_is_refused_room_and_nothing_is_lost_when_it_moves_again() {
    let (open, reader, sink, mut outlets) = stuck(2);
    let (call, called) = waker();
    outlets[0].set_waker(call);
    let (offered, refused) = fill(&mut outlets[0]);
    assert_eq!(refused.len(), EVENT_BATCH);
    assert_eq!(outlets[0].in_flight(), EVENT_BATCHES);
    assert_eq!(sink.undelivered(), offered);
    assert_eq!(offered, (EVENT_BATCHES * EVENT_BATCH) as u64);
    // The other ring has room of its own.
    assert!(outlets[1].offer(batch(0, 3)).is_ok());
    assert_eq!(called.try_recv(), Err(mpsc::TryRecvError::Empty));

    drop(open);
    let reading = thread::spawn(move || check(reader, 2));
    called.recv_timeout(PATIENCE).expect("there is room again");
    assert!(outlets[0].offer(refused).is_ok());
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), [offered + EVENT_BATCH as u64, 3]);
}

#[test]
fn more_batches_than_one_write_takes_are_all_written() {
    let rings = 2 * COALESCE / EVENT_BATCHES + 1;
    let (open, reader, sink, mut outlets) = stuck(rings);
    let offered: Vec<_> = outlets.iter_mut().map(|outlet| fill(outlet).0).collect();
    let reading = thread::spawn(move || check(reader, rings));
    drop(open);
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), offered);
}

#[test]
fn a_waker_that_is_set_after_the_refusal_is_called_too() {
    let (open, reader, sink, mut outlets) = stuck(1);
    let (offered, _) = fill(&mut outlets[0]);
    drop(open);
    let reading = thread::spawn(move || check(reader, 1));
    while outlets[0].in_flight() == EVENT_BATCHES {
        thread::yield_now();
    }
    let (call, called) = waker();
    outlets[0].set_waker(call);
    called.recv_timeout(PATIENCE).expect("the room that came before the waker");
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), [offered]);
}

#[test]
fn a_reader_that_has_gone_ends_the_sink_quietly() {
    let (reader, sink, mut outlets) = piped(1);
    let (call, called) = waker();
    sink.on_closed(call);
    drop(reader);
    // The first line may have been written before the reader went.
    assert!(outlets[0].offer(batch(0, 10)).is_ok());
    called.recv_timeout(PATIENCE).expect("the callback");
    assert!(sink.closed());
    let again = called.recv_timeout(PATIENCE);
    assert_eq!(again, Err(RecvTimeoutError::Disconnected), "it is called once, and dropped");
    // What is offered from now on is taken, so that no ring thread waits for it, and is counted.
    for round in 0..4 * EVENT_BATCHES {
        while outlets[0].offer(batch(round as u64, 1)).is_err() {
            thread::yield_now();
        }
    }
    assert_eq!(sink.undelivered(), 10 + 4 * EVENT_BATCHES as u64);
    let (late, called) = waker();
    sink.on_closed(late);
    assert_eq!(called.try_recv(), Ok(()), "a late callback is called at once");
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Closed));
}

#[test]
fn a_full_disk_is_an_error_with_its_path_and_cure() {
    let (sink, mut outlets) = spawn(Output::File("/dev/full".into()), 1);
    let (call, called) = waker();
    sink.on_closed(call);
    called.recv_timeout(PATIENCE).expect("the callback");
    assert!(outlets[0].offer(batch(0, 7)).is_ok());
    match sink.finish("closing", PATIENCE) {
        Finish::Failed { error, undelivered: 7 } => {
            let message = error.to_string();
            assert!(message.contains("/dev/full") && message.contains("free some space"), "{message}");
            assert!(std::error::Error::source(&error).is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn finishing_gives_up_on_a_stuck_pipe() {
    let (open, _reader, sink, mut outlets) = stuck(1);
    let (offered, _) = fill(&mut outlets[0]);
    let start = StdInstant::now();
    match sink.finish("closing", Duration::from_millis(50)) {
        Finish::Stuck { undelivered } => assert_eq!(undelivered, offered),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(start.elapsed() < PATIENCE);
    drop(open);
}

#[test]
fn what_cannot_be_opened_is_named_with_its_cure() {
    for (path, cure) in
        [("/nonexistent/directory/events", "create its directory"), ("/tmp", "name a file in it")]
    {
        let refused = Sink::spawn(Numbers::default(), Output::File(path.into()), 1);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(path) && message.contains(cure), "{message}");
    }
}

/// A file that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("deadpeer-{name}-{}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_appended_to() {
    let file = Scratch::new("appended");
    for _ in 0..2 {
        let (sink, mut outlets) = spawn(Output::File(file.path().to_owned()), 1);
        assert!(outlets[0].offer(batch(0, 1)).is_ok());
        assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    }
    let text = std::fs::read_to_string(file.path()).unwrap();
    let events: Vec<_> = text.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(events, ["opening", "number", "closing", "opening", "number", "closing"]);
}

#[test]
fn batches_come_back_and_no_more_of_them_are_made_than_are_needed() {
    let (mut reader, sink, mut outlets) = piped(1);
    let reading = thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
    let mut seen = HashSet::new();
    let mut batch = outlets[0].empty_batch();
    for number in 0..1_000 {
        seen.insert(batch.as_ptr() as usize);
        batch.push(number);
        batch = outlets[0].offer(batch).unwrap();
        while outlets[0].in_flight() > 0 {
            thread::yield_now();
        }
    }
    assert!(seen.len() <= 3, "{}", seen.len());
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    reading.join().unwrap();
}

/// Takes a few bytes at a time, and often none.
struct Reluctant(mpsc::Sender<u8>, u32);

impl Write for Reluctant {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        match self.1 % 40 {
            1 => Err(io::ErrorKind::WouldBlock.into()),
            2 => Err(io::ErrorKind::Interrupted.into()),
            _ => {
                let some = &bytes[..bytes.len().min(97)];
                some.iter().for_each(|&byte| self.0.send(byte).unwrap());
                Ok(some.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_takes_little_at_a_time_gets_everything() {
    let (send, receive) = mpsc::channel();
    let writer = Box::new(Reluctant(send, 0));
    let (sink, mut outlets) = spawn(Output::Writer { name: "reluctant".to_owned(), writer }, 1);
    offer_all(&mut outlets[0], 500);
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    let bytes: Vec<u8> = receive.iter().collect();
    assert_eq!(check(&*bytes, 1), [500]);
}

struct Bug;

impl Write for Bug {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("a bug of the writer's, for the test");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_on_the_sinks_thread_is_reported_and_spreads_no_further() {
    let (sink, mut outlets) = spawn(Output::Writer { name: "bug".to_owned(), writer: Box::new(Bug) }, 1);
    let (call, called) = waker();
    sink.on_closed(call);
    called.recv_timeout(PATIENCE).expect("the callback");
    let empty = outlets[0].offer(batch(0, 3)).unwrap();
    assert!(empty.is_empty());
    let finish = sink.finish("closing", PATIENCE);
    assert!(matches!(finish, Finish::Failed { error: SinkError::Panicked, undelivered: 3 }), "{finish:?}");
}

/// What is read until as many status lines have ended.
fn read_statuses(reader: &mut impl Read, statuses: usize) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while text.matches('>').count() < statuses {
        reader.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text
}

#[test]
fn a_status_line_is_written_anew_when_nothing_happens_and_is_gone_at_the_end() {
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::Writer { name: "a pipe".to_owned(), writer: Box::new(writer) };
    let (sink, mut outlets) = Sink::spawn(Numbers { status: true, ..Numbers::default() }, output, 1).unwrap();
    sink.announce("opening");
    let idle = read_statuses(&mut reader, 2);
    assert!(idle.starts_with("<{") && idle.ends_with("}\nstatus><status>"), "{idle}");
    assert!(outlets[0].offer(batch(0, 1)).is_ok());
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let last = rest.rsplit('<').next().unwrap();
    assert!(last.contains("closing") && last.ends_with("}\n"), "{rest}");
}

/// A socket as an output: no write to it waits.
fn socket() -> (UnixStream, Output) {
    let (reader, writer) = UnixStream::pair().unwrap();
    let file = File::from(OwnedFd::from(writer));
    (reader, Output::Open { name: "a socket".to_owned(), file })
}

/// A sink on a socket, and the threads that encode each event.
fn prompt(rings: usize) -> (UnixStream, Sink<Numbers>, Vec<Outlet<u64>>, mpsc::Receiver<thread::ThreadId>) {
    let (reader, output) = socket();
    let (send, spoke) = mpsc::channel();
    let encoder = Numbers { spoke: Some(send), ..Numbers::default() };
    let (sink, outlets) = Sink::spawn(encoder, output, rings).unwrap();
    sink.announce("opening");
    (reader, sink, outlets, spoke)
}

/// Offers batches of one until this thread has written one itself; how many those were.
fn until_prompt(
    sink: &Sink<Numbers>,
    outlet: &mut Outlet<u64>,
    spoke: &mpsc::Receiver<thread::ThreadId>,
) -> u64 {
    // The thread still has the writer for a moment after its first line can be read.
    let deadline = StdInstant::now() + PATIENCE;
    for number in 0.. {
        assert!(StdInstant::now() < deadline, "it is never written here");
        assert!(outlet.offer(batch(number, 1)).is_ok());
        if spoke.recv_timeout(PATIENCE).expect("each is said") == thread::current().id() {
            assert_eq!((sink.undelivered(), outlet.in_flight()), (0, 0), "and then it is written");
            return number + 1;
        }
        while sink.undelivered() > 0 {
            thread::yield_now();
        }
    }
    unreachable!("there are numbers enough")
}

#[test]
fn a_small_batch_is_written_by_the_loop_that_offers_it_and_a_full_one_by_the_thread() {
    let (reader, sink, mut outlets, spoke) = prompt(1);
    let reading = thread::spawn(move || check(reader, 1));
    let me = thread::current().id();
    let mut next = until_prompt(&sink, &mut outlets[0], &spoke);
    for length in [EVENT_BATCH - 1, EVENT_BATCH, EVENT_BATCH - 1] {
        assert!(outlets[0].offer(batch(next, length)).is_ok());
        next += length as u64;
        let speakers: Vec<_> =
            (0..length).map(|_| spoke.recv_timeout(PATIENCE).expect("each is said")).collect();
        if length == EVENT_BATCH {
            assert!(speakers.iter().all(|&speaker| speaker != me));
        } else if outlets[0].in_flight() == 0 {
            assert!(speakers.windows(2).all(|pair| pair[0] == pair[1]), "a batch is one thread's");
        }
        while sink.undelivered() > 0 {
            thread::yield_now();
        }
    }
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), [next]);
}

#[test]
fn no_loop_waits_for_a_socket_that_is_not_read_and_every_event_is_written_in_order() {
    let (reader, sink, mut outlets, spoke) = prompt(2);
    let [first, second] = &mut outlets[..] else { panic!("two") };
    let mut next = [until_prompt(&sink, first, &spoke), until_prompt(&sink, second, &spoke)];
    drop(spoke);
    // Small batches from both until neither has room: the socket is full then, and the thread is stuck.
    let mut refused = [None, None];
    while refused.iter().any(Option::is_none) {
        for (ring, outlet) in [&mut *first, &mut *second].into_iter().enumerate() {
            if refused[ring].is_none() {
                let length = 1 + next[ring] % (EVENT_BATCH as u64 - 1);
                match outlet.offer(batch(next[ring], length as usize)) {
                    Ok(_) => next[ring] += length,
                    Err(batch) => refused[ring] = Some(batch),
                }
            }
        }
    }
    assert!(sink.undelivered() > 0);
    let reading = thread::spawn(move || check(reader, 2));
    for (ring, refused) in refused.into_iter().enumerate() {
        let mut batch = refused.unwrap();
        next[ring] += batch.len() as u64;
        while let Err(again) = outlets[ring].offer(batch) {
            batch = again;
            thread::yield_now();
        }
    }
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap(), next);
}

#[test]
fn four_threads_that_write_themselves_and_a_reader_that_sleeps_now_and_then() {
    struct Sleepy(UnixStream, u32);
    impl Read for Sleepy {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(64) {
                thread::sleep(Duration::from_millis(3));
            }
            self.0.read(into)
        }
    }
    let (reader, sink, outlets, spoke) = prompt(4);
    drop(spoke);
    let reading = thread::spawn(move || check(Sleepy(reader, 0), 4));
    thread::scope(|scope| {
        for mut outlet in outlets {
            scope.spawn(move || {
                let (call, called) = waker();
                outlet.set_waker(call);
                let mut number = 0;
                while number < 50_000 {
                    let mut batch = batch(number, 1 + (number as usize * 7) % EVENT_BATCH);
                    number += batch.len() as u64;
                    while let Err(refused) = outlet.offer(batch) {
                        called.recv_timeout(PATIENCE).expect("a call after the refusal");
                        batch = refused;
                    }
                }
            });
        }
    });
    assert!(!sink.closed(), "the reader is there");
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    for count in reading.join().unwrap() {
        assert!(count >= 50_000);
    }
}

#[test]
fn a_loop_that_writes_itself_reports_a_reader_that_has_gone() {
    let (reader, sink, mut outlets, spoke) = prompt(1);
    let (call, called) = waker();
    sink.on_closed(call);
    until_prompt(&sink, &mut outlets[0], &spoke);
    drop(reader);
    assert!(outlets[0].offer(batch(0, 3)).is_ok());
    assert_eq!(spoke.recv_timeout(PATIENCE), Ok(thread::current().id()));
    called.recv_timeout(PATIENCE).expect("the callback");
    assert!(sink.closed());
    assert!(outlets[0].offer(batch(0, 4)).is_ok());
    assert_eq!(sink.undelivered(), 7);
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Closed));
}

#[test]
fn after_the_last_word_an_outlet_writes_nothing_and_the_reader_meets_the_end() {
    let (mut reader, sink, mut outlets, spoke) = prompt(1);
    until_prompt(&sink, &mut outlets[0], &spoke);
    let shared = sink.shared.clone();
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert!(outlets[0].offer(batch(0, 3)).is_ok());
    assert_eq!(shared.undelivered(), 3);
    // Although the outlet is still there.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.lines().last().unwrap().contains("closing"), "{text}");
}

#[test]
fn an_encoder_that_panics_on_a_rings_thread_leaves_whole_lines() {
    let (reader, sink, mut outlets, spoke) = prompt(1);
    let reading = thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect::<Vec<Value>>()
    });
    until_prompt(&sink, &mut outlets[0], &spoke);
    let mut outlet = outlets.pop().unwrap();
    let ring = thread::spawn(move || outlet.offer(vec![7, Numbers::BUG]));
    ring.join().expect_err("a bug of the encoder's, for the test");
    assert!(matches!(sink.finish("closing", PATIENCE), Finish::Delivered));
    assert_eq!(reading.join().unwrap().last().unwrap()["event"], "closing");
}
