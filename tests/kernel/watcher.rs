//! Sockets that the program reads and writes itself, watched from beside.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use deadpeer::liveness::{Cause, Heartbeat, LocalCause, Policy, Transport};
use deadpeer::watch::{Token, Verdict, WatchError, Watched, Watcher, WatcherConfig};

use crate::path::Net;

const PATIENCE: Duration = Duration::from_secs(30);
const ABORTED: Verdict = Verdict::Gone(Cause::Aborted);
const CLOSED: Verdict = Verdict::Gone(Cause::Closed);

/// Judges only the peer's kernel, and leaves a FIN time.
const GRACEFUL: Policy =
    Policy { half_closed_grace: Duration::from_secs(3_600), ..Policy::STANDARD.transport_only() };

fn start() -> Watcher {
    Watcher::start(WatcherConfig::default()).unwrap()
}

fn pairs(count: usize) -> Vec<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (0..count)
        .map(|_| {
            let client = TcpStream::connect(address).unwrap();
            (listener.accept().unwrap().0, client)
        })
        .collect()
}

fn pair() -> (TcpStream, TcpStream) {
    pairs(1).remove(0)
}

fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The waker of an executor that is one thread, which sleeps.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits without a runtime, and not for ever: a foreign executor at its smallest.
fn within(waiting: impl Future<Output = Verdict>) -> Verdict {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut waiting = std::pin::pin!(waiting);
    let late = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(verdict) = waiting.as_mut().poll(&mut context) {
            return verdict;
        }
        thread::park_timeout(late.saturating_duration_since(Instant::now()));
        // Before the next poll, which would find a verdict for which no waiter was woken.
        assert!(Instant::now() < late, "no waiter was woken for a verdict");
    }
}

fn watched(policy: Policy) -> (Watcher, Watched<TcpStream>, TcpStream) {
    let watcher = start();
    let (server, client) = pair();
    let server = watcher.watch(server, policy).unwrap();
    (watcher, server, client)
}

/// Everything that came before has been looked at: another one's verdict has come behind it.
fn settle(watcher: &Watcher) {
    let (server, client) = pair();
    let server = watcher.watch(server, Policy::STANDARD.transport_only()).unwrap();
    drop(client);
    assert_eq!(within(server.gone()), CLOSED);
}

#[test]
fn a_fin_behind_unread_bytes_is_seen_and_the_bytes_are_still_there() {
    let (_watcher, mut server, mut client) = watched(GRACEFUL);
    client.write_all(b"GET /next").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(within(server.left()), Verdict::HalfClosed);
    assert_eq!(server.proof().unwrap().evidence.received, 9);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "GET /next");
    server.write_all(b"200").unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "200");
}

#[test]
fn a_fin_is_the_end_under_a_preset() {
    let (_watcher, server, client) = watched(Policy::STANDARD);
    drop(client);
    assert_eq!(within(server.gone()), CLOSED);
    assert_eq!(server.state(), CLOSED);
}

#[test]
fn a_reset_is_seen_and_its_error_is_left_to_the_program() {
    let (_watcher, mut server, mut client) = watched(GRACEFUL);
    client.write_all(b"unread").unwrap();
    reset(client);
    assert_eq!(within(server.gone()), ABORTED);
    let proof = server.proof().unwrap();
    assert_eq!(proof.errno, None);
    let error = server.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_whose_error_the_program_has_taken_is_a_reset() {
    for _ in 0..50 {
        let (_watcher, server, client) = watched(GRACEFUL);
        let mut reader = server.try_clone().unwrap();
        let reading = thread::spawn(move || reader.read(&mut [0; 9]).unwrap_err().kind());
        reset(client);
        assert_eq!(within(server.gone()), ABORTED);
        assert_eq!(reading.join().unwrap(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_behind_a_fin_is_a_second_fact() {
    let (_watcher, server, client) = watched(GRACEFUL);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(within(server.left()), Verdict::HalfClosed);
    reset(client);
    assert_eq!(within(server.gone()), ABORTED);
}

#[test]
fn whichever_side_finishes_first_an_orderly_end_is_closed() {
    // The program first, as after a response with `Connection: close`.
    let (_watcher, mut server, mut client) = watched(GRACEFUL);
    server.write_all(b"a response").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    assert_eq!(within(server.gone()), CLOSED);
    // The peer first.
    let (_watcher, mut server, client) = watched(GRACEFUL);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(within(server.left()), Verdict::HalfClosed);
    server.read_to_end(&mut Vec::new()).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(within(server.gone()), CLOSED);
}

#[test]
fn ordinary_bytes_and_out_of_band_ones_say_nothing() {
    let (watcher, mut server, mut client) = watched(Policy::STANDARD);
    for _ in 0..100 {
        client.write_all(&[7; 1_000]).unwrap();
        server.read_exact(&mut [0; 1_000]).unwrap();
    }
    client.write_all(b"pipelined").unwrap();
    socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
    settle(&watcher);
    assert_eq!(server.state(), Verdict::Here);
    assert_eq!(server.proof().unwrap().evidence.received, 100_010);
}

#[test]
fn a_program_that_is_silent_is_judged_by_its_bytes_and_its_kernel_is_heard() {
    // Its kernel is asked by keepalive after 2 s.
    let policy = Policy { idle: Duration::from_secs(2), probes: 2, ..Policy::STRICT };
    let (watcher, server, mut client) = watched(policy);
    let (lasting, _other) = pair();
    let lasting = watcher.watch(lasting, policy.transport_only()).unwrap();
    client.write_all(b"x").unwrap();
    let spoke = deadpeer::time::Instant::now();
    assert_eq!(within(server.gone()), Verdict::Gone(Cause::HeartbeatExpired));
    assert!(deadpeer::time::Instant::now().since(spoke) >= policy.detection_time(), "never early");
    assert_eq!(server.proof().unwrap().transport, Transport::Answering);
    assert_eq!(lasting.state(), Verdict::Here, "its kernel answers");
}

const ROLE: &str = "DEADPEER_TEST_ROLE";

/// The server of the next test, which runs this same program in a namespace of its own: watches two
/// connections and says what becomes of them.
fn play_the_server(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    println!("AT {}", listener.local_addr().unwrap());
    let watcher = start();
    let policy = Policy { idle: Duration::from_secs(2), probes: 2, ..Policy::STRICT }.transport_only();
    let streams: Vec<_> =
        (0..2).map(|_| watcher.watch(listener.accept().unwrap().0, policy).unwrap()).collect();
    println!("UP");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // The second has something under way, so that keepalive rests.
    (&**streams.last().unwrap()).write_all(b"a response").unwrap();
    for stream in &streams {
        let verdict = stream.wait_gone();
        let proof = stream.proof().unwrap();
        println!("GONE {verdict:?} {:?} unacked {}", proof.transport, proof.evidence.unacked);
    }
}

#[test]
fn a_machine_that_vanishes_is_judged_by_the_silence_of_its_kernel() {
    if let Ok(address) = std::env::var(ROLE) {
        return play_the_server(&address);
    }
    let Some(net) = Net::new() else { return };
    let program = std::env::current_exe().unwrap();
    let mut server = Command::new("ip")
        .args(["netns", "exec", &net.ours])
        .arg(program)
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("watcher::a_machine_that_vanishes_is_judged_by_the_silence_of_its_kernel")
        .env(ROLE, format!("{}:0", crate::path::OURS))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    let mut line_of = |word: &str| -> String {
        loop {
            let mut line = String::new();
            assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0, "no {word}");
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
    };
    let address: SocketAddr = line_of("AT ").parse().unwrap();
    let peer = crate::daemon::beat(Some(&net.theirs), address, &["--count", "2", "--every", "100s"]);
    line_of("UP");
    thread::sleep(Duration::from_secs(6)); // longer than the detection time: its kernel answers
    net.vanish();
    server.stdin.take().unwrap().write_all(b"\n").unwrap();
    for unacked in [0, 1] {
        let told = line_of("GONE ");
        assert_eq!(told, format!("Gone(KeepaliveExpired) Silent unacked {unacked}"));
    }
    assert!(server.wait().unwrap().success());
    peer.signal("-KILL");
}

#[test]
fn a_drop_sends_the_fin_also_in_a_crowd() {
    let watcher = start();
    let mut crowd: Vec<_> = pairs(1_000)
        .into_iter()
        .map(|(server, client)| (watcher.watch(server, GRACEFUL).unwrap(), client))
        .collect();
    // A thread of its own drops half of them at the same time, and some are dying meanwhile.
    let others = crowd.split_off(500);
    let dying = pairs(500);
    let dying: Vec<_> = dying
        .into_iter()
        .map(|(server, client)| (watcher.watch(server, GRACEFUL).unwrap(), client))
        .collect();
    let dropping = thread::spawn(move || crowd_drops(others));
    let killing = thread::spawn(move || {
        dying
            .into_iter()
            .map(|(server, client)| {
                drop(client);
                server
            })
            .collect::<Vec<_>>()
    });
    crowd_drops(crowd);
    dropping.join().unwrap();
    drop(killing.join().unwrap());
    assert!(watcher.is_empty());
}

#[test]
fn a_thousand_drops_in_flight_at_once_send_a_thousand_fins() {
    const COUNT: usize = 1_000;
    /// A machine with much to do is granted that; to wait for the policy's hour takes half a minute.
    const BOUND: Duration = Duration::from_secs(2);
    deadpeer::sys::rlimit::raise_nofile().unwrap();
    let watcher = start();
    let (mut clients, mut dropping) = (Vec::new(), Vec::new());
    let together = Arc::new(Barrier::new(COUNT + 1));
    for (server, client) in pairs(COUNT) {
        let server = watcher.watch(server, GRACEFUL).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(client);
        let together = together.clone();
        // A thread each: so all are in their drop, or before the lock in it, at the same time.
        let thread = thread::Builder::new().stack_size(128 << 10).spawn(move || {
            together.wait();
            drop(server);
        });
        dropping.push(thread.unwrap());
    }
    let word = |client: &mut TcpStream| client.read(&mut [0]).map_err(|error| error.kind());
    assert!(clients.iter_mut().all(|client| word(client) == Err(ErrorKind::WouldBlock)), "all are there");
    assert_eq!(watcher.len(), COUNT);
    let begin = Instant::now();
    together.wait();
    // From the peers' side, while the drops go on.
    let mut waiting = clients;
    while !waiting.is_empty() && begin.elapsed() < BOUND {
        waiting.retain_mut(|client| match word(client) {
            Ok(length) => {
                assert_eq!(length, 0, "a FIN and no byte");
                false
            }
            Err(kind) => {
                assert_eq!(kind, ErrorKind::WouldBlock, "a FIN and no reset");
                true
            }
        });
        thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(waiting.len(), 0, "peers without a FIN {BOUND:?} after the drops");
    dropping.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(watcher.is_empty());
}

#[test]
fn when_a_drop_returns_its_socket_is_no_longer_established() {
    // What the kernel says of it does not depend on how busy loopback is.
    let watcher = start();
    for (server, client) in pairs(100) {
        let [ours, theirs] = [&server, &client].map(|socket| socket.local_addr().unwrap().port());
        let server = watcher.watch(server, GRACEFUL).unwrap();
        drop(server);
        assert!(!stands(ours, theirs));
    }
}

/// Whether a connection of ours stands, our own FIN not sent. Others may come and go while the table is read.
fn stands(local: u16, remote: u16) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let [local, remote] = [local, remote].map(|port| format!(":{port:04X}"));
    table.lines().any(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        // ESTABLISHED, CLOSE_WAIT
        matches!(cells[..], [_, ours, theirs, "01" | "08", ..] if ours.ends_with(&local) && theirs.ends_with(&remote))
    })
}

fn crowd_drops(crowd: Vec<(Watched<TcpStream>, TcpStream)>) {
    for (server, mut client) in crowd {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(server);
        // It was sent when the drop returned; on a busy machine loopback brings it a little later.
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the FIN is on its way when the drop returns");
    }
}

#[test]
fn callbacks_are_called_once_and_one_that_panics_ends_only_itself() {
    let (watcher, server, client) = watched(Policy::STANDARD);
    let (told, verdicts) = channel();
    server.on_gone(|_| panic!("a callback of the program's, on purpose"));
    let early = told.clone();
    server.on_gone(move |verdict| early.send(verdict).unwrap());
    drop(client);
    assert_eq!(verdicts.recv_timeout(PATIENCE), Ok(CLOSED));
    server.on_gone(move |verdict| told.send(verdict).unwrap());
    assert_eq!(verdicts.try_recv(), Ok(CLOSED), "at once for one that is gone");
    settle(&watcher);
    assert_eq!(verdicts.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn a_callback_may_watch_drop_and_stop() {
    let watcher = start();
    let (server, client) = pair();
    let (other, _its_client) = pair();
    let watched = watcher.watch(server, Policy::STANDARD).unwrap();
    let (told, results) = channel();
    let inner = watcher.clone();
    watched.on_gone(move |_| {
        let other = inner.watch(other, Policy::STANDARD).unwrap();
        assert_eq!(other.state(), Verdict::Here);
        drop(other);
        inner.stop();
        told.send(()).unwrap();
    });
    drop(client);
    results.recv_timeout(PATIENCE).unwrap();
    let (again, _client) = pair();
    assert!(matches!(watcher.watch(again, Policy::STANDARD), Err(WatchError::Stopped)));
}

#[test]
fn a_watch_that_ends_looks_once_more() {
    // Whoever reads may see the end first, and drop the stream for it.
    for _ in 0..100 {
        let (_watcher, mut server, client) = watched(Policy::STANDARD);
        let token = server.token();
        let dropping = thread::spawn(move || {
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            drop(server);
        });
        drop(client);
        dropping.join().unwrap();
        assert_eq!(token.state(), CLOSED);
    }
}

/// Holds the thread of a watcher in a callback until the sender is used or dropped.
fn hold(watcher: &Watcher) -> (Watched<TcpStream>, std::sync::mpsc::Sender<()>) {
    let (server, client) = pair();
    let server = watcher.watch(server, GRACEFUL).unwrap();
    let (entered, entry) = channel();
    let (release, released) = channel();
    server.on_gone(move |_| {
        entered.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
    });
    reset(client);
    entry.recv_timeout(PATIENCE).unwrap();
    (server, release)
}

#[test]
fn a_verdict_that_was_reached_is_told_however_soon_its_stream_is_dropped() {
    const PEERS: usize = 40; // one portion of the thread, so that all are judged before one is told
    let watcher = start();
    let (_held, release) = hold(&watcher);
    let (told, verdicts) = channel();
    let (entered, entry) = channel();
    let (release_first, released) = channel::<()>();
    let first = Arc::new(std::sync::Mutex::new(Some((entered, released))));
    let (mut servers, mut tokens) = (Vec::new(), Vec::new());
    for (peer, (server, client)) in pairs(PEERS).into_iter().enumerate() {
        let server = watcher.watch(server, GRACEFUL).unwrap();
        let (told, first) = (told.clone(), first.clone());
        server.on_gone(move |verdict| {
            let gate = first.lock().unwrap().take();
            if let Some((entered, released)) = gate {
                entered.send(()).unwrap();
                let _ = released.recv_timeout(PATIENCE);
            }
            told.send((peer, verdict)).unwrap();
        });
        tokens.push(server.token());
        servers.push(server);
        reset(client);
    }
    drop(release);
    entry.recv_timeout(PATIENCE).unwrap();
    drop(servers); // all are judged, and one is being told
    drop((release_first, told, first));
    for token in &tokens {
        assert_eq!(within(token.gone()), ABORTED);
    }
    let mut verdicts: Vec<_> = verdicts.iter().collect();
    verdicts.sort_unstable_by_key(|&(peer, _)| peer);
    assert_eq!(verdicts, (0..PEERS).map(|peer| (peer, ABORTED)).collect::<Vec<_>>());
}

#[test]
fn every_watch_has_one_verdict_also_where_callbacks_are_slow_and_owners_read_the_reset_themselves() {
    let watcher = start();
    let (told, verdicts) = channel();
    let (mut owners, mut tokens) = (Vec::new(), Vec::new());
    let crowd = pairs(400);
    let barrier = Arc::new(Barrier::new(5));
    let mut clients = Vec::new();
    let mut shares: Vec<Vec<Watched<TcpStream>>> = (0..4).map(|_| Vec::new()).collect();
    for (peer, (server, client)) in crowd.into_iter().enumerate() {
        let server = watcher.watch(server, GRACEFUL).unwrap();
        let told = told.clone();
        server.on_gone(move |verdict| {
            thread::sleep(Duration::from_micros(200)); // a slow callback, and no wait for anything
            told.send((peer, verdict)).unwrap();
        });
        tokens.push(server.token());
        shares[peer % 4].push(server);
        clients.push(client);
    }
    for share in shares {
        let barrier = barrier.clone();
        owners.push(thread::spawn(move || {
            barrier.wait();
            for mut server in share {
                assert!(server.read(&mut [0]).is_err());
                drop(server);
            }
        }));
    }
    barrier.wait();
    clients.into_iter().for_each(reset);
    owners.into_iter().for_each(|owner| owner.join().unwrap());
    drop(told);
    for token in &tokens {
        assert_eq!(within(token.gone()), ABORTED);
    }
    let mut peers: Vec<_> = verdicts.iter().map(|(peer, verdict)| (verdict == ABORTED, peer)).collect();
    peers.sort_unstable();
    assert_eq!(peers, (0..400).map(|peer| (true, peer)).collect::<Vec<_>>());
}

#[test]
fn all_waiters_are_woken_when_the_watch_ends() {
    let (watcher, server, _client) = watched(Policy::STANDARD);
    let (token, waiting): (Token, _) = (server.token(), server.gone());
    let waiter = thread::spawn(move || within(waiting));
    drop(server);
    assert_eq!(waiter.join().unwrap(), Verdict::Here);
    assert_eq!(within(token.gone()), Verdict::Here);

    let (server, _client) = pair();
    let server = watcher.watch(server, Policy::STANDARD).unwrap();
    let waiting = server.gone();
    let waiter = thread::spawn(move || within(waiting));
    watcher.stop();
    assert_eq!(waiter.join().unwrap(), Verdict::Here);
    assert_eq!(server.wait_gone(), Verdict::Here);
}

#[test]
fn a_future_that_is_dropped_leaves_nothing_behind() {
    let (_watcher, server, client) = watched(Policy::STANDARD);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for _ in 0..1_000 {
            tokio::select! {
                biased;
                _ = server.gone() => panic!("it is here"),
                () = tokio::task::yield_now() => {}
            }
        }
        let token = server.token();
        let work = tokio::spawn(async move {
            tokio::select! {
                verdict = token.gone() => verdict,
                () = std::future::pending() => unreachable!(),
            }
        });
        tokio::task::yield_now().await;
        drop(client);
        assert_eq!(work.await.unwrap(), CLOSED);
    });
}

#[test]
fn a_verdict_is_awaited_on_any_executor() {
    // One that sleeps in a thread and knows no reactor, no timer and no runtime.
    let (watcher, server, client) = watched(Policy::STANDARD);
    let waiting = server.gone();
    let sleeping = thread::spawn(move || within(waiting));
    let token = server.token();
    let composed = thread::spawn(move || {
        within(async move {
            let half = token.left().await;
            assert_eq!(token.gone().await, half);
            half
        })
    });
    drop(client);
    assert_eq!((sleeping.join().unwrap(), composed.join().unwrap()), (CLOSED, CLOSED));

    // One on which a task wanders from thread to thread, and has another waker each time.
    let (server, client) = pair();
    let server = watcher.watch(server, Policy::STANDARD).unwrap();
    let wakes = [(); 2].map(|()| Arc::new(Counting(AtomicU32::new(0))));
    let mut wandering = Box::pin(server.gone());
    for counting in &wakes {
        let waker = Waker::from(counting.clone());
        let task = thread::spawn(move || {
            assert!(wandering.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            wandering
        });
        wandering = task.join().unwrap();
    }
    drop(client);
    assert_eq!(server.wait_gone(), CLOSED);
    settle(&watcher);
    assert_eq!(wakes.map(|counting| counting.0.load(Ordering::Relaxed)), [0, 1], "the last to poll, once");
    assert_eq!(within(wandering), CLOSED);
}

/// A waker of an executor that polls in its own good time.
struct Counting(AtomicU32);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn two_descriptors_of_one_socket_are_two_watches() {
    let watcher = start();
    let slow = Policy { idle: Duration::from_secs(60), ..GRACEFUL };
    let (server, mut client) = pair();
    let other = server.try_clone().unwrap();
    let server = watcher.watch(server, GRACEFUL).unwrap();
    let other = watcher.watch(other, slow).unwrap();
    assert_eq!(watcher.len(), 2);
    for socket in [&*server, &*other] {
        let time = socket2::SockRef::from(socket).tcp_keepalive_time().unwrap();
        assert_eq!(
            time,
            Duration::from_secs(u64::from(slow.keepalive().idle)),
            "the later policy's, for both"
        );
    }
    assert!(matches!(watcher.observe(&*other, slow).map(drop), Err(WatchError::Twice)));

    // Either is told, and the one that ends takes nothing from the other, nor from the peer.
    client.write_all(b"x").unwrap();
    let token = server.token();
    drop(server);
    assert_eq!((token.state(), other.state(), watcher.len()), (Verdict::Here, Verdict::Here, 1));
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "no FIN: it is open still");
    let again = other.try_clone().unwrap();
    let again = watcher.watch(again, GRACEFUL).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((within(other.left()), within(again.left())), (Verdict::HalfClosed, Verdict::HalfClosed));
    reset(client);
    assert_eq!((within(other.gone()), within(again.gone())), (ABORTED, ABORTED));
    drop((other, again));
    assert!(watcher.is_empty());
}

#[test]
fn the_last_of_two_descriptors_sends_the_fin_when_it_is_dropped() {
    let (watcher, server, mut client) = watched(GRACEFUL);
    let other = watcher.watch(server.try_clone().unwrap(), GRACEFUL).unwrap();
    drop(server);
    drop(other);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_reading_side_that_the_program_shuts_itself_is_no_end_of_its_peer() {
    for how in [Shutdown::Read, Shutdown::Both] {
        let (watcher, server, mut client) = watched(GRACEFUL);
        server.shutdown(how).unwrap(); // wakes the watch as a FIN would
        settle(&watcher);
        assert_eq!(server.state(), Verdict::Here, "{how:?}");
        if how == Shutdown::Read {
            // Its bytes are taken still, and the program may answer.
            client.write_all(b"more").unwrap();
            (&*server).write_all(b"200").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
            settle(&watcher);
            assert_eq!((server.state(), server.proof().unwrap().evidence.received), (Verdict::Here, 4));
        }
        // And the end of the peer is an end, of whatever kind.
        client.shutdown(Shutdown::Write).unwrap();
        let expected = if how == Shutdown::Read { Verdict::HalfClosed } else { CLOSED };
        assert_eq!(within(server.left()), expected, "{how:?}");
        if how == Shutdown::Read {
            reset(client);
            assert_eq!(within(server.gone()), ABORTED);
        }
    }
    for resets in [false, true] {
        let (_watcher, server, client) = watched(Policy::STANDARD);
        server.shutdown(Shutdown::Read).unwrap();
        if resets {
            reset(client);
        } else {
            drop(client);
        }
        assert_eq!(within(server.gone()), if resets { ABORTED } else { CLOSED });
    }
}

#[test]
fn what_cannot_be_watched_is_refused_with_its_reason() {
    let watcher = start();
    let refused = |socket: &dyn AsFd, policy| -> WatchError {
        watcher.observe(&socket.as_fd(), policy).map(drop).unwrap_err()
    };
    let policy = Policy::STANDARD;
    assert!(matches!(refused(&UdpSocket::bind("127.0.0.1:0").unwrap(), policy), WatchError::NotTcp(_)));
    assert!(matches!(refused(&UnixStream::pair().unwrap().0, policy), WatchError::NotTcp(_)));
    assert!(matches!(refused(&std::io::stdin(), policy), WatchError::NotTcp(_)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let message = refused(&listener, policy).to_string();
    assert!(message.contains("listening"), "{message}");
    let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let message = refused(&unconnected, policy).to_string();
    assert!(message.contains("not connected"), "{message}");

    let (server, client) = pair();
    let frames = Policy { heartbeat: Heartbeat::Frames, ..policy };
    assert!(matches!(refused(&server, frames), WatchError::Frames));
    let hasty = Policy { idle: Duration::from_millis(1), ..policy };
    assert!(matches!(refused(&server, hasty), WatchError::Policy(_)));
    let watched = watcher.watch(server, policy).unwrap();
    assert!(matches!(refused(&*watched, policy), WatchError::Twice));
    assert_eq!(watcher.len(), 1, "a refusal leaves nothing behind");
    drop(client);
    assert_eq!(within(watched.gone()), CLOSED, "and spoils nothing");

    assert!(Watcher::start(WatcherConfig { capacity: 0 }).is_err());
    let small = Watcher::start(WatcherConfig { capacity: 1 }).unwrap();
    let (first, second) = (pair(), pair());
    let first_watch = small.observe(&first.0, policy).unwrap();
    let full = small.observe(&second.0, policy).map(drop).unwrap_err();
    assert!(matches!(full, WatchError::Full { capacity: 1 }), "{full}");
    drop(first_watch);
    assert!(small.observe(&second.0, policy).is_ok());
}

#[test]
fn a_socket_that_is_closed_without_its_watch_sends_its_fin_at_once_and_disturbs_no_other() {
    let watcher = start();
    let quick =
        Policy { idle: Duration::from_millis(300), interval: Duration::from_millis(100), ..Policy::STRICT };
    let (server, mut client) = pair();
    let number = server.as_raw_fd();
    let watch = watcher.observe(&server, quick).unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "an entry in epoll holds no socket");
    assert_eq!(
        within(watch.gone()),
        Verdict::Gone(Cause::Local(LocalCause::Shutdown)),
        "when its hour comes"
    );

    // Its number is given out again, and what is watched there now is not touched by the old watch.
    let (server, client) = pair();
    let watch = watcher.observe(&server, GRACEFUL).unwrap();
    let number_of = server.as_raw_fd();
    drop((server, client));
    let mut others: Vec<_> = pairs(8);
    let same = others
        .iter()
        .position(|(server, client)| [server.as_raw_fd(), client.as_raw_fd()].contains(&number_of));
    assert!(same.is_some(), "{number} and {number_of} were not given out again");
    let mut watches: Vec<_> = others
        .iter()
        .flat_map(|(server, client)| {
            [server, client].map(|socket| watcher.observe(socket, GRACEFUL).unwrap())
        })
        .collect();
    assert_eq!(watch.proof(), None, "not the proof of another");
    drop(watch);
    for (server, client) in others.drain(..) {
        server.shutdown(Shutdown::Write).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        for watch in watches.drain(..2) {
            assert_ne!(within(watch.left()), Verdict::Here);
        }
    }
}

/// What epoll instances of this process hold.
fn epoll_entries() -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = infos.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    texts.map(|text| text.lines().filter(|line| line.starts_with("tfd:")).count()).sum()
}

/// Resident pages that are no file's: code that runs for the first time is paged in sixteen pages at a time.
fn resident_pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<usize> = text.split_whitespace().map(|pages| pages.parse().unwrap()).collect();
    pages[1] - pages[2]
}

/// Alone in its process, where no other code opens anything: see `play_the_leaker`.
#[test]
fn ten_thousand_watches_leave_nothing_behind() {
    if std::env::var_os(ROLE).is_some() {
        return play_the_leaker();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "watcher::ten_thousand_watches_leave_nothing_behind"])
        .env(ROLE, "leaker")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("NOTHING LEFT"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn play_the_leaker() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let (at_first, threads_at_first) = (descriptors(), threads());
    let watcher = start();
    let pairs = pairs(100);
    let round = || {
        let watches: Vec<_> = pairs
            .iter()
            .map(|(server, _)| {
                let watch = watcher.observe(server, GRACEFUL).unwrap();
                watch.on_gone(|_| unreachable!("no peer goes"));
                drop(watch.gone());
                watch
            })
            .collect();
        assert_eq!(watcher.len(), 100);
        drop(watches);
    };
    (0..10).for_each(|_| round());
    let (open, entries, resident) = (descriptors(), epoll_entries(), resident_pages());
    assert_eq!(entries, 1, "the eventfd");
    (0..100).for_each(|_| round());
    assert_eq!((descriptors(), epoll_entries()), (open, entries));
    let grown = resident_pages().saturating_sub(resident);
    assert!(grown <= 16, "{grown} pages for 10,000 watches");
    watcher.stop();
    drop((watcher, pairs));
    assert_eq!((descriptors(), threads()), (at_first, threads_at_first));
    println!("NOTHING LEFT");
}

#[test]
fn a_peer_that_does_not_read_or_is_not_read_is_here() {
    let policy = Policy { idle: Duration::from_secs(2), probes: 1, ..Policy::STRICT };
    // Its window is shut: keepalive rests, and the kernel asks more and more seldom.
    let (_watcher, server, mut slow) = watched(policy.transport_only());
    server.set_nonblocking(true).unwrap();
    while (&*server).write(&[7; 100_000]).is_ok() {}
    // Ours is shut, so it cannot speak.
    let (_other, stuck, eager) = watched(policy);
    eager.set_nonblocking(true).unwrap();
    while (&eager).write(&[7; 100_000]).is_ok() {}
    thread::sleep(Duration::from_secs(12)); // four detection times
    assert_eq!(server.state(), Verdict::Here, "{:?}", server.proof());
    assert_eq!(stuck.state(), Verdict::Here, "{:?}", stuck.proof());
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.read_exact(&mut vec![0; 100_000]).unwrap();
}

#[test]
fn a_refusal_leaves_the_options_of_a_standing_watch_alone() {
    let (watcher, server, _client) = watched(Policy::STRICT);
    let slow = Policy { idle: Duration::from_secs(30_000), ..Policy::STANDARD };
    assert!(matches!(watcher.observe(&*server, slow).map(drop), Err(WatchError::Twice)));
    let time = socket2::SockRef::from(&*server).tcp_keepalive_time().unwrap();
    assert_eq!(time, Duration::from_secs(u64::from(Policy::STRICT.keepalive().idle)));
}

/// A waker that panics, as a runtime in trouble may have one.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker of the program's, on purpose");
    }
}

#[test]
fn a_waker_that_panics_ends_no_other_watch() {
    let (watcher, server, client) = watched(Policy::STANDARD);
    let waker = Waker::from(Arc::new(Panicking));
    let mut waiting = std::pin::pin!(server.gone());
    let mut context = Context::from_waker(&waker);
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    drop(client);
    assert_eq!(within(server.gone()), CLOSED);
    settle(&watcher);
}
