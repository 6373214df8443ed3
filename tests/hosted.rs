//! The tracker in the runtime and on the thread of another program.

use std::cell::Cell;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use deadpeer::hosted::{Config, EngineChoice, Tracker, UringStream, bind};
use deadpeer::liveness::{Cause, Death, EventKind, PeerId, Policy};

const PATIENCE: Duration = Duration::from_secs(30);
const QUICK: Policy = Policy {
    idle: Duration::from_millis(400),
    interval: Duration::from_millis(100),
    probes: 3,
    ..Policy::STRICT
};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// In each runtime, on each engine.
fn everywhere(body: impl AsyncFn(Config)) {
    for io in [EngineChoice::Uring, EngineChoice::Epoll] {
        let config = Config { io, ..Config::new(QUICK, 100) };
        tokio_uring::start(async { body(config).await });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { body(config).await });
    }
}

async fn died(tracker: &mut Tracker) -> Death {
    loop {
        let event = tokio::time::timeout(PATIENCE, tracker.next()).await.expect("an event").unwrap();
        if let EventKind::Died(death) = event.kind {
            return death;
        }
    }
}

#[test]
fn an_adopted_socket_dies_in_the_way_that_it_dies() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(config).unwrap();
        let mut adopt = |server: TcpStream| -> PeerId { tracker.adopt(server).unwrap() };
        let [(closing, mut its), (resetting, theirs), (silent, mut other)] = [pair(), pair(), pair()];
        let (address, local) = (its.local_addr().unwrap(), its.peer_addr().unwrap());
        let peers = [adopt(closing), adopt(resetting), adopt(silent)];
        other.write_all(b"a last beat").unwrap();
        its.write_all(b"bytes before the end").unwrap();
        its.shutdown(Shutdown::Write).unwrap();
        let death = died(&mut tracker).await;
        assert_eq!((death.peer, death.cause, death.bytes), (peers[0], Cause::Closed, 20));
        assert_eq!(death.address, address);
        assert_eq!(tracker.local(death.local), Some(local));
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        let death = died(&mut tracker).await;
        assert_eq!((death.peer, death.cause), (peers[1], Cause::Aborted));
        let death = died(&mut tracker).await;
        assert_eq!((death.peer, death.cause, death.bytes), (peers[2], Cause::HeartbeatExpired, 11));
        assert!(death.silent_for() >= QUICK.detection_time());
        assert_eq!(tracker.counts().living, 0);
    });
}

#[test]
fn a_stream_of_tokio_urings_own_is_taken_over() {
    tokio_uring::start(async {
        let mut tracker = Tracker::new(Config::new(QUICK, 10)).unwrap();
        let listener = tokio_uring::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        // Much of it: a peer that seems to have so much unread is not judged by its silence.
        let (mut sent, mut read) = (0, 0);
        while read < 100_000 {
            client.write_all(&[7; 10_000]).unwrap();
            sent += 10_000;
            let (taken, _) = stream.read(vec![0; 10_000]).await;
            read += taken.unwrap();
        }
        let peer = tracker.take_over(UringStream(stream)).unwrap();
        client.write_all(b"for the tracker").unwrap();
        // Its own descriptor is closed by now, and the connection stands.
        let waited = tokio::time::timeout(Duration::from_millis(100), died(&mut tracker)).await;
        assert!(waited.is_err(), "{waited:?}");
        let death = died(&mut tracker).await;
        assert_eq!((death.peer, death.cause, death.bytes), (peer, Cause::HeartbeatExpired, sent + 15));
    });
}

#[test]
fn it_accepts_too() {
    everywhere(async |config| {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &config.tracker).unwrap();
        let address = listeners[0].address().ip().unwrap();
        let mut tracker = Tracker::with(config, listeners).unwrap();
        let client = TcpStream::connect(address).unwrap();
        let event = tracker.next().await.unwrap();
        assert!(matches!(event.kind, EventKind::Up));
        drop(client);
        assert_eq!(died(&mut tracker).await.cause, Cause::Closed);
    });
}

#[test]
fn what_is_no_connection_is_given_back_with_the_reason() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(Config {
            tracker: deadpeer::liveness::TrackerConfig { capacity: 1, ..config.tracker },
            ..config
        })
        .unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let refused = tracker.adopt(udp).unwrap_err();
        assert_eq!(UdpSocket::from(refused.socket).local_addr().unwrap(), address, "the socket comes back");
        let listening = tracker.adopt(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();
        assert_eq!(listening.reason.raw_os_error(), Some(libc::ENOTCONN));
        let (server, _client) = pair();
        tracker.adopt(server).unwrap();
        let (server, _other) = pair();
        let full = tracker.adopt(server).unwrap_err();
        assert_eq!(full.reason.raw_os_error(), Some(libc::ENOSPC), "{full}");
        let socket = socket2::SockRef::from(&full.socket);
        assert!(!socket.keepalive().unwrap() && !socket.tcp_nodelay().unwrap(), "it comes back as it was");
    });
}

#[test]
fn a_wait_that_is_given_up_loses_nothing_and_others_run_meanwhile() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(config).unwrap();
        let (server, client) = pair();
        tracker.adopt(server).unwrap();
        let ticks = Rc::new(Cell::new(0));
        let counting = ticks.clone();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async move {
                tokio::task::spawn_local(async move {
                    loop {
                        counting.set(counting.get() + 1);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
                let mut client = Some(client);
                let mut kinds = Vec::new();
                while kinds.len() < 2 {
                    // Given up again and again.
                    if let Ok(event) = tokio::time::timeout(Duration::from_millis(2), tracker.next()).await {
                        kinds.push(event.unwrap().kind);
                    }
                    if ticks.get() > 20 {
                        client.take();
                    }
                }
                assert!(matches!(kinds[..], [EventKind::Up, EventKind::Died(_)]), "{kinds:?}");
                assert!(ticks.get() > 20);
            })
            .await;
    });
}

#[test]
fn a_task_that_holds_the_thread_is_a_stall_and_no_peer_dies_of_it() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(config).unwrap();
        let (server, mut client) = pair();
        std::thread::sleep(Duration::from_millis(600)); // this keeps no task waiting
        tracker.adopt(server).unwrap();
        let beating = std::thread::spawn(move || {
            for _ in 0..30 {
                client.write_all(b"beat").unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(matches!(tracker.next().await.unwrap().kind, EventKind::Up));
        let quiet = tokio::time::timeout(Duration::from_millis(300), tracker.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        std::thread::sleep(Duration::from_millis(1_500)); // two detection times
        let event = tracker.next().await.unwrap();
        assert!(
            matches!(event.kind, EventKind::Stall { held } if held >= Duration::from_millis(500)),
            "{event:?}"
        );
        let death = died(&mut tracker).await;
        assert_eq!(death.cause, Cause::Closed, "{:?}", death.proof);
        beating.join().unwrap();
    });
}

#[test]
fn one_stall_is_told_once_and_silence_is_judged_behind_it() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(config).unwrap();
        let (server, mut client) = pair();
        tracker.adopt(server).unwrap();
        client.write_all(b"the last that is heard of it").unwrap();
        assert!(matches!(tracker.next().await.unwrap().kind, EventKind::Up));
        let quiet = tokio::time::timeout(Duration::from_millis(100), tracker.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        std::thread::sleep(Duration::from_millis(1_500));
        let mut stalls = 0;
        let death = loop {
            let event = tokio::time::timeout(PATIENCE, tracker.next()).await.expect("an event").unwrap();
            match event.kind {
                EventKind::Stall { .. } => stalls += 1,
                EventKind::Died(death) => break death,
                _ => {}
            }
            assert!(stalls <= 1, "one stall is told once");
        };
        assert_eq!((stalls, death.cause), (1, Cause::HeartbeatExpired));
    });
}

#[test]
fn a_steady_flow_of_events_is_no_stall_and_lets_others_run() {
    everywhere(async |config| {
        let mut tracker = Tracker::new(config).unwrap();
        let end = tokio::time::Instant::now() + Duration::from_millis(800);
        while tokio::time::Instant::now() < end {
            let (server, client) = pair();
            tracker.adopt(server).unwrap();
            drop(client);
            for _ in 0..2 {
                let event = tracker.next().await.unwrap();
                assert!(matches!(event.kind, EventKind::Up | EventKind::Died(_)), "{event:?}");
            }
        }
        // A mass of events that may all be there at once, more of them than the 128 that tokio lets a task do in one
        // poll: another task comes to its turn.
        let peers: Vec<_> = (0..90).map(|_| pair()).collect();
        let mut kept = Vec::new();
        for (server, client) in peers {
            tracker.adopt(server).unwrap();
            kept.push(client);
        }
        let local = tokio::task::LocalSet::new();
        let ran = Rc::new(Cell::new(0));
        let running = ran.clone();
        let others = local.run_until(async move {
            tokio::task::spawn_local(async move {
                loop {
                    running.set(running.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            drop(kept);
            for _ in 0..180 {
                let event = tracker.next().await.unwrap();
                assert!(matches!(event.kind, EventKind::Up | EventKind::Died(_)), "{event:?}");
            }
        });
        others.await;
        assert!(ran.get() > 0, "no other task had a turn");
    });
}

#[test]
fn a_first_turn_that_comes_late_is_no_stall() {
    everywhere(async |config| {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &config.tracker).unwrap();
        let address = listeners[0].address().ip().unwrap();
        let mut tracker = Tracker::with(config, listeners).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let _client = TcpStream::connect(address).unwrap();
        let event = tracker.next().await.unwrap();
        assert!(matches!(event.kind, EventKind::Up), "{event:?}");
    });
}

#[test]
fn a_tracker_that_is_dropped_gives_its_port_back() {
    everywhere(async |config| {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &config.tracker).unwrap();
        let address = listeners[0].address().ip().unwrap();
        let mut tracker = Tracker::with(config, listeners).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(20), tracker.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        drop(tracker);
        bind(address, 1, &config.tracker).unwrap();
    });
}
