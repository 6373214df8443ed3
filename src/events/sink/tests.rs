use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant as StdInstant;

use serde_json::Value;

use super::writer::COALESCE;
use super::*;
use crate::events::body::Body;
use crate::events::counters::Totals;
use crate::events::encoder::{Kind, Record};
use crate::events::human::{Colour, HumanEncoder, Screen};
use crate::events::json::JsonEncoder;
use crate::limits::EVENT_BATCH;
use crate::reactor::EventSink;
use crate::time::Instant;

/// Far longer than anything here takes, so that a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of numbers. Sends the thread that describes each of them.
struct Numbers(mpsc::Sender<thread::ThreadId>);

/// The number at which it panics.
const BUG: u64 = u64::MAX;

impl Stream for Numbers {
    const NAMES: &'static [&'static str] = &["number"];
    type Opening = &'static str;
    type Event = u64;
    type Closing = &'static str;
    type Counts = ();

    fn kind(_: &u64) -> Kind {
        Kind { name: "number", at: Instant::ZERO, colour: Colour::Green, routine: None }
    }

    fn describe(&mut self, ring: usize, &number: &u64, body: &mut Body<'_>) {
        assert!(number != BUG, "a bug of the encoder's, for the test");
        let _ = self.0.send(thread::current().id()); // a test may have dropped its end
        body.field("thread", ring).field("number", number).text(format_args!("{number}"));
    }

    fn totals(_: &()) -> Totals {
        Totals::default()
    }

    fn status(_: &Totals, _: &[f64; 5]) -> String {
        "status".to_owned()
    }
}

impl Record for &'static str {
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        json.line(self, Instant::ZERO, out, |_| {});
    }

    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        human.plain(format_args!("{self}"), out);
    }
}

/// A sink that has said `opening`.
struct Rig {
    sink: Sink<Numbers>,
    outlets: Vec<Outlet<Numbers>>,
    /// The threads that described the numbers, in order.
    speakers: mpsc::Receiver<thread::ThreadId>,
}

impl Rig {
    fn new(format: Format, output: Output, rings: usize) -> Rig {
        let (send, speakers) = mpsc::channel();
        let (sink, outlets) = Sink::spawn(Numbers(send), format, Filter::default(), output, rings).unwrap();
        sink.announce("opening");
        Rig { sink, outlets, speakers }
    }

    fn on(rings: usize, take: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> Rig {
        Rig::new(Format::JsonLines, Output::writer("a function", Taker(take)), rings)
    }

    fn piped(rings: usize) -> (PipeReader, Rig) {
        let (reader, mut pipe) = io::pipe().unwrap();
        (reader, Rig::on(rings, move |bytes| pipe.write(bytes)))
    }

    /// On a pipe that takes nothing until the sender is dropped, as if its reader slept and it were full.
    fn stuck(rings: usize) -> (mpsc::Sender<()>, PipeReader, Rig) {
        let (open, gate) = mpsc::channel();
        let (reader, mut pipe) = io::pipe().unwrap();
        let rig = Rig::on(rings, move |bytes| {
            let _ = gate.recv(); // an error, for ever, once the other end was dropped: it is open
            pipe.write(bytes)
        });
        (open, reader, rig)
    }

    /// On a socket: no write to it waits.
    fn prompt(rings: usize) -> (UnixStream, Rig) {
        let (reader, writer) = UnixStream::pair().unwrap();
        let output = Output::open("a socket", File::from(OwnedFd::from(writer)));
        (reader, Rig::new(Format::JsonLines, output, rings))
    }

    /// Offers a batch for which there is room.
    fn offer(&mut self, first: u64, length: usize) {
        assert!(self.outlets[0].offer(batch(first, length)).is_ok_and(|empty| empty.is_empty()));
    }

    /// What receives the call of the closed output.
    fn on_closed(&self) -> mpsc::Receiver<()> {
        let (call, called) = waker();
        self.sink.on_closed(call);
        called
    }

    fn finish(self) -> Finish {
        self.sink.finish("closing", PATIENCE)
    }

    /// Ends in order; what the reader of `check` has found.
    fn delivers(self, reading: thread::JoinHandle<Vec<u64>>) -> Vec<u64> {
        assert!(matches!(self.finish(), Finish::Delivered));
        reading.join().unwrap()
    }

    /// Offers batches of one until this thread has written one itself; how many those were.
    fn until_prompt(&mut self, ring: usize) -> u64 {
        // The thread still has the writer for a moment after its first line can be read.
        let deadline = StdInstant::now() + PATIENCE;
        for number in 0.. {
            assert!(StdInstant::now() < deadline, "it is never written here");
            let outlet = &mut self.outlets[ring];
            assert!(outlet.offer(batch(number, 1)).is_ok());
            if self.speakers.recv_timeout(PATIENCE).expect("each is said") == thread::current().id() {
                assert_eq!((self.sink.undelivered(), outlet.in_flight()), (0, 0), "and then it is written");
                return number + 1;
            }
            self.wait_until_written();
        }
        unreachable!("there are numbers enough")
    }

    fn wait_until_written(&self) {
        while self.sink.undelivered() > 0 {
            thread::yield_now();
        }
    }
}

/// An output that a function is.
struct Taker<F>(F);

impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Taker<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Offers full batches until one is refused. Returns how many events were taken, and that batch.
fn fill(outlet: &mut Outlet<Numbers>) -> (u64, Vec<u64>) {
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

/// Offers at least `count` numbered events in batches of `length`, waiting for room where there is none. Returns how many.
fn offer_all(outlet: &mut Outlet<Numbers>, count: u64, length: impl Fn(u64) -> usize) -> u64 {
    let (call, called) = waker();
    outlet.set_waker(call);
    let mut number = 0;
    while number < count {
        let mut batch = batch(number, length(number));
        number += batch.len() as u64;
        while let Err(refused) = outlet.offer(batch) {
            called.recv_timeout(PATIENCE).expect("a call after the refusal");
            batch = refused;
        }
    }
    number
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

fn checking(reader: impl Read + Send + 'static, threads: usize) -> thread::JoinHandle<Vec<u64>> {
    thread::spawn(move || check(reader, threads))
}

#[test]
fn nothing_is_lost_of_a_hundred_thousand_events_from_two_threads() {
    let (reader, mut rig) = Rig::piped(2);
    let reading = checking(reader, 2);
    thread::scope(|scope| {
        for outlet in &mut rig.outlets {
            scope.spawn(|| offer_all(outlet, 50_000, |_| 25));
        }
    });
    assert_eq!(rig.delivers(reading), [50_000, 50_000]);
}

#[test]
fn a_stuck_pipe_is_refused_room_and_nothing_is_lost_when_it_moves_again() {
    let (open, reader, mut rig) = Rig::stuck(2);
    let (call, called) = waker();
    rig.outlets[0].set_waker(call);
    let (offered, refused) = fill(&mut rig.outlets[0]);
    assert_eq!(refused.len(), EVENT_BATCH);
    assert_eq!(rig.outlets[0].in_flight(), EVENT_BATCHES);
    assert_eq!(rig.sink.undelivered(), offered);
    assert_eq!(offered, (EVENT_BATCHES * EVENT_BATCH) as u64);
    // The other ring has room of its own.
    assert!(rig.outlets[1].offer(batch(0, 3)).is_ok());
    assert_eq!(called.try_recv(), Err(mpsc::TryRecvError::Empty));

    drop(open);
    let reading = checking(reader, 2);
    called.recv_timeout(PATIENCE).expect("there is room again");
    assert!(rig.outlets[0].offer(refused).is_ok());
    assert_eq!(rig.delivers(reading), [offered + EVENT_BATCH as u64, 3]);
}

#[test]
fn more_batches_than_one_write_takes_are_all_written() {
    let rings = 2 * COALESCE / EVENT_BATCHES + 1;
    let (open, reader, mut rig) = Rig::stuck(rings);
    let offered: Vec<_> = rig.outlets.iter_mut().map(|outlet| fill(outlet).0).collect();
    let reading = checking(reader, rings);
    drop(open);
    assert_eq!(rig.delivers(reading), offered);
}

#[test]
fn a_waker_that_is_set_after_the_refusal_is_called_too() {
    let (open, reader, mut rig) = Rig::stuck(1);
    let (offered, _) = fill(&mut rig.outlets[0]);
    drop(open);
    let reading = checking(reader, 1);
    while rig.outlets[0].in_flight() == EVENT_BATCHES {
        thread::yield_now();
    }
    let (call, called) = waker();
    rig.outlets[0].set_waker(call);
    called.recv_timeout(PATIENCE).expect("the room that came before the waker");
    assert_eq!(rig.delivers(reading), [offered]);
}

#[test]
fn a_reader_that_has_gone_ends_the_sink_quietly() {
    let (reader, mut rig) = Rig::piped(1);
    let called = rig.on_closed();
    drop(reader);
    // The first line may have been written before the reader went.
    rig.offer(0, 10);
    called.recv_timeout(PATIENCE).expect("the callback");
    assert!(rig.sink.closed());
    let again = called.recv_timeout(PATIENCE);
    assert_eq!(again, Err(RecvTimeoutError::Disconnected), "it is called once, and dropped");
    // What is offered from now on is taken, so that no ring thread waits for it, and is counted.
    for round in 0..4 * EVENT_BATCHES {
        while rig.outlets[0].offer(batch(round as u64, 1)).is_err() {
            thread::yield_now();
        }
    }
    assert_eq!(rig.sink.undelivered(), 10 + 4 * EVENT_BATCHES as u64);
    assert_eq!(rig.on_closed().try_recv(), Ok(()), "a late callback is called at once");
    assert!(matches!(rig.finish(), Finish::Closed));
}

#[test]
fn a_full_disk_is_an_error_with_its_path_and_cure() {
    let mut rig = Rig::new(Format::JsonLines, Output::file(Path::new("/dev/full")).unwrap(), 1);
    rig.on_closed().recv_timeout(PATIENCE).expect("the callback");
    rig.offer(0, 7);
    match rig.finish() {
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
    let (open, _reader, mut rig) = Rig::stuck(1);
    let (offered, _) = fill(&mut rig.outlets[0]);
    match rig.sink.finish("closing", Duration::from_millis(50)) {
        Finish::Stuck { undelivered } => assert_eq!(undelivered, offered),
        other => panic!("{other:?}"),
    }
    drop(open);
}

#[test]
fn what_cannot_be_opened_is_named_with_its_cure() {
    for (path, cure) in
        [("/nonexistent/directory/events", "create its directory"), ("/tmp", "name a file in it")]
    {
        let message = Output::file(Path::new(path)).unwrap_err().to_string();
        assert!(message.contains(path) && message.contains(cure), "{message}");
    }
}

#[test]
fn a_file_is_appended_to() {
    let path = std::env::temp_dir().join(format!("deadpeer-appended-{}", std::process::id()));
    for _ in 0..2 {
        let mut rig = Rig::new(Format::JsonLines, Output::file(&path).unwrap(), 1);
        rig.offer(0, 1);
        assert!(matches!(rig.finish(), Finish::Delivered));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let events: Vec<_> = text.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(events, ["opening", "number", "closing", "opening", "number", "closing"]);
}

#[test]
fn batches_come_back_and_no_more_of_them_are_made_than_are_needed() {
    let (mut reader, mut rig) = Rig::piped(1);
    let reading = thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
    let mut seen = HashSet::new();
    let outlet = &mut rig.outlets[0];
    let mut batch = outlet.empty_batch();
    for number in 0..1_000 {
        seen.insert(batch.as_ptr() as usize);
        batch.push(number);
        batch = outlet.offer(batch).unwrap();
        while outlet.in_flight() > 0 {
            thread::yield_now();
        }
    }
    assert!(seen.len() <= 3, "{}", seen.len());
    assert!(matches!(rig.finish(), Finish::Delivered));
    reading.join().unwrap();
}

#[test]
fn an_output_that_takes_little_at_a_time_gets_everything() {
    let (send, receive) = mpsc::channel();
    let mut calls = 0;
    let mut rig = Rig::on(1, move |bytes| {
        calls += 1;
        match calls % 40 {
            1 => Err(io::ErrorKind::WouldBlock.into()),
            2 => Err(io::ErrorKind::Interrupted.into()),
            _ => {
                let some = &bytes[..bytes.len().min(97)];
                some.iter().for_each(|&byte| send.send(byte).unwrap());
                Ok(some.len())
            }
        }
    });
    offer_all(&mut rig.outlets[0], 500, |_| 20);
    assert!(matches!(rig.finish(), Finish::Delivered));
    let bytes: Vec<u8> = receive.iter().collect();
    assert_eq!(check(&*bytes, 1), [500]);
}

#[test]
fn a_panic_on_the_sinks_thread_is_reported_and_spreads_no_further() {
    let mut rig = Rig::on(1, |_| panic!("a bug of the writer's, for the test"));
    rig.on_closed().recv_timeout(PATIENCE).expect("the callback");
    rig.offer(0, 3);
    let finish = rig.finish();
    assert!(matches!(finish, Finish::Failed { error: SinkError::Panicked, undelivered: 3 }), "{finish:?}");
}

/// What is read until as many status lines have ended.
fn read_statuses(reader: &mut impl Read, statuses: usize) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while text.matches("status").count() < statuses {
        reader.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text
}

#[test]
fn a_status_line_is_written_anew_when_nothing_happens_and_is_gone_at_the_end() {
    const CLEAR: &str = "\r\x1b[K";
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::writer("a pipe", writer);
    let format = Format::Human { colour: false, screen: Screen::Columns(80) };
    let mut rig = Rig::new(format, output, 1);
    let idle = read_statuses(&mut reader, 2);
    assert!(idle.starts_with(&format!("{CLEAR}opening\n{CLEAR}status{CLEAR}")), "{idle:?}");
    assert!(idle.ends_with(&format!("{CLEAR}status")), "{idle:?}");
    rig.offer(0, 1);
    assert!(matches!(rig.finish(), Finish::Delivered));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.rsplit(CLEAR).next().unwrap().ends_with("closing\n"), "{rest:?}");
}

#[test]
fn a_small_batch_is_written_by_the_loop_that_offers_it_and_a_full_one_by_the_thread() {
    let (reader, mut rig) = Rig::prompt(1);
    let reading = checking(reader, 1);
    let me = thread::current().id();
    let mut next = rig.until_prompt(0);
    for length in [EVENT_BATCH - 1, EVENT_BATCH, EVENT_BATCH - 1] {
        rig.offer(next, length);
        next += length as u64;
        let speakers: Vec<_> =
            (0..length).map(|_| rig.speakers.recv_timeout(PATIENCE).expect("each is said")).collect();
        if length == EVENT_BATCH {
            assert!(speakers.iter().all(|&speaker| speaker != me));
        } else if rig.outlets[0].in_flight() == 0 {
            assert!(speakers.windows(2).all(|pair| pair[0] == pair[1]), "a batch is one thread's");
        }
        rig.wait_until_written();
    }
    assert_eq!(rig.delivers(reading), [next]);
}

#[test]
fn no_loop_waits_for_a_socket_that_is_not_read_and_every_event_is_written_in_order() {
    let (reader, mut rig) = Rig::prompt(2);
    let mut next = [rig.until_prompt(0), rig.until_prompt(1)];
    // Small batches from both until neither has room: the socket is full then, and the thread is stuck.
    let mut refused = [None, None];
    while refused.iter().any(Option::is_none) {
        for (ring, outlet) in rig.outlets.iter_mut().enumerate() {
            if refused[ring].is_none() {
                let length = 1 + next[ring] % (EVENT_BATCH as u64 - 1);
                match outlet.offer(batch(next[ring], length as usize)) {
                    Ok(_) => next[ring] += length,
                    Err(batch) => refused[ring] = Some(batch),
                }
            }
        }
    }
    assert!(rig.sink.undelivered() > 0);
    let reading = checking(reader, 2);
    for (ring, refused) in refused.into_iter().enumerate() {
        let mut batch = refused.unwrap();
        next[ring] += batch.len() as u64;
        while let Err(again) = rig.outlets[ring].offer(batch) {
            batch = again;
            thread::yield_now();
        }
    }
    assert_eq!(rig.delivers(reading), next);
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
    let (reader, mut rig) = Rig::prompt(4);
    let reading = checking(Sleepy(reader, 0), 4);
    let uneven = |number| 1 + (number as usize * 7) % EVENT_BATCH;
    let offered: Vec<_> = thread::scope(|scope| {
        let offering =
            rig.outlets.iter_mut().map(|outlet| scope.spawn(move || offer_all(outlet, 50_000, uneven)));
        let offering: Vec<_> = offering.collect();
        offering.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(!rig.sink.closed(), "the reader is there");
    assert_eq!(rig.delivers(reading), offered);
}

#[test]
fn a_loop_that_writes_itself_reports_a_reader_that_has_gone() {
    let (reader, mut rig) = Rig::prompt(1);
    let called = rig.on_closed();
    rig.until_prompt(0);
    drop(reader);
    rig.offer(0, 3);
    assert_eq!(rig.speakers.recv_timeout(PATIENCE), Ok(thread::current().id()));
    called.recv_timeout(PATIENCE).expect("the callback");
    assert!(rig.sink.closed());
    rig.offer(0, 4);
    assert_eq!(rig.sink.undelivered(), 7);
    assert!(matches!(rig.finish(), Finish::Closed));
}

#[test]
fn after_the_last_word_an_outlet_writes_nothing_and_the_reader_meets_the_end() {
    let (mut reader, mut rig) = Rig::prompt(1);
    rig.until_prompt(0);
    let Rig { sink, mut outlets, .. } = rig;
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
    let (reader, mut rig) = Rig::prompt(1);
    let reading = thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect::<Vec<Value>>()
    });
    rig.until_prompt(0);
    let mut outlet = rig.outlets.pop().unwrap();
    let ring = thread::spawn(move || outlet.offer(vec![7, BUG]));
    ring.join().expect_err("a bug of the encoder's, for the test");
    assert!(matches!(rig.finish(), Finish::Delivered));
    assert_eq!(reading.join().unwrap().last().unwrap()["event"], "closing");
}
