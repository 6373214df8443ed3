//! A proxied exchange allocates nothing, on a connection on which there was one before.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use deadpeer::liveness::{Policy, TrackerConfig};
use deadpeer::proxy::{
    Config, Counts, EventsStall, Forwarded, HalfClose, Line, OnGone, Relay, Rules, Upstreams,
};
use deadpeer::reactor::{Address, EngineChoice, EventSink, Shared, bind};
use deadpeer::sys::wakeup::Wakeup;
use deadpeer::time::Instant;

const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
const REQUESTS: [&str; 3] = [
    "GET /a/target HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
];
const ANSWERS: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

const RULES: Rules = Rules {
    http: true,
    accept_proxy: false,
    strict: false,
    half_close: HalfClose::Probe,
    on_gone: OnGone::Reset,
    pool: true,
    request_buffer: 1 << 18,
    head_timeout: PATIENCE,
    body_timeout: PATIENCE,
    keepalive_timeout: PATIENCE,
    forwarded: Forwarded::Off,
    log: false,
    log_query: true,
    response_timeout: None,
};

/// Discards all lines.
struct Nowhere;

impl EventSink<Line, Counts> for Nowhere {
    fn offer(&mut self, mut batch: Vec<Line>) -> Result<Vec<Line>, Vec<Line>> {
        batch.clear();
        Ok(batch)
    }
}

/// The answer to a request: chunks to a POST.
fn answer_to(request: &[u8]) -> &'static str {
    ANSWERS[usize::from(request.starts_with(b"POST"))]
}

/// Answers each request when it is whole.
fn serve(mut stream: TcpStream) {
    let (mut request, mut bytes) = (Vec::new(), [0; 512]);
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        request.extend_from_slice(&bytes[..count]);
        if REQUESTS.iter().any(|whole| whole.as_bytes() == request) {
            if stream.write_all(answer_to(&request).as_bytes()).is_err() {
                return;
            }
            request.clear();
        }
    }
}

fn exchanges_allocate_nothing(io: EngineChoice, http: bool, pool: usize) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstreams = vec![Address::Ip(upstream.local_addr().unwrap())];
    thread::spawn(move || {
        upstream.incoming().for_each(|stream| drop(thread::spawn(|| serve(stream.unwrap()))))
    });
    let config = Config {
        rules: Rules { http, pool: pool > 0, ..RULES },
        policy: Policy::STANDARD,
        upstreams: Arc::new(Upstreams::new(upstreams)),
        connect_timeout: PATIENCE,
        pool,
        retries: 3,
        upstream_limit: usize::MAX,
        queue_timeout: PATIENCE,
        send_timeout: PATIENCE,
        send_proxy: None,
        hold: 1 << 28,
        on_stall: EventsStall::Wait,
        capacity: 100,
        io,
    };
    let tracker = TrackerConfig { unread: 1, ..TrackerConfig::new(Policy::STANDARD, 100) };
    let listeners = bind("127.0.0.1:0".parse().unwrap(), 1, &tracker).unwrap();
    let address = listeners[0].address().ip().unwrap();
    let wakeup = Arc::new(Wakeup::new().unwrap());
    let mut relay = Relay::new(config, listeners, Arc::new(Shared::new(100)), wakeup, Nowhere, None).unwrap();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = thread::spawn({
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        move || {
            let mut clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let request = REQUESTS[round % REQUESTS.len()].as_bytes();
                for client in &mut clients {
                    client.write_all(request).unwrap();
                }
                for client in &mut clients {
                    let mut left = answer_to(request).len();
                    while left > 0 {
                        left -= client.read(&mut [0; 512][..left]).unwrap();
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let mut turns = |exchanges: u64| {
        let end = answered.load(Ordering::Relaxed) + exchanges;
        let late = Instant::now() + PATIENCE;
        while answered.load(Ordering::Relaxed) < end && Instant::now() < late {
            relay.turn().unwrap();
        }
    };
    // Queues and lines grow to their size first, however long that takes.
    let counted = (0..20).map(|_| super::allocations(|| turns(2_000))).find(|&count| count == 0);
    stop.store(true, Ordering::Relaxed);
    while !clients.is_finished() {
        relay.turn().unwrap();
    }
    clients.join().unwrap();
    assert_eq!(counted, Some(0), "{io:?}, http: {http}, pool: {pool}");
}

#[test]
fn a_proxied_exchange_allocates_nothing() {
    for io in [EngineChoice::Auto, EngineChoice::Epoll] {
        for (http, pool) in [(true, 100), (true, 0), (false, 0)] {
            exchanges_allocate_nothing(io, http, pool);
        }
    }
}
