//! Many exchanges of every kind at once: all are whole, and no client is reported as gone.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use deadpeer::limits::FIRST_QUESTION;
use serde_json::json;

use crate::dice::Dice;
use crate::peer::{End, Peer};
use crate::program::{Proxy, engines};
use crate::upstream::Upstream;

const CLIENTS: u64 = 20;

/// More than the proxy and its socket (4 MB at most) hold of a response that is not read.
const MUCH: usize = 6_000_000;

/// Some bodies are larger than what is gathered (256 KiB), and stream.
const BODY: usize = 300_000;

/// What all bodies are cut from.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| Dice::new(7).bytes(MUCH));

const PROBE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Answers with the body, or else with the target, and in the request's own framing.
fn serve(peer: &mut Peer) {
    while let Ok(head) = peer.try_head() {
        let target = head.split(' ').nth(1).unwrap();
        if head.contains("\r\nExpect: ") && peer.try_send(PROBE).is_err() {
            return;
        }
        let chunked = head.contains("\r\nTransfer-Encoding: chunked\r\n");
        let length = head.split("\r\nContent-Length: ").nth(1).map(|rest| rest.split('\r').next().unwrap());
        let body = match length {
            _ if chunked => peer.try_chunks(),
            Some(length) => peer.try_take(length.parse().unwrap()),
            None => Ok(target.into()),
        };
        let Ok(body) = body else { return };
        if target == "/later" {
            thread::park_timeout(5 * FIRST_QUESTION); // so that a FIN meets a server at work, and is asked about
        }
        let answer = match target {
            "/much" => with_length("HTTP/1.1 200 OK", &BYTES),
            _ if chunked => in_chunks("HTTP/1.1 200 OK", &body, 10_000),
            _ => with_length("HTTP/1.1 200 OK", &body),
        };
        if peer.try_send(answer).is_err() {
            return;
        }
    }
}

fn with_length(start: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("{start}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    message.extend_from_slice(body);
    message
}

fn in_chunks(start: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut message = format!("{start}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(size) {
        message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    message
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Anew,
    HalfClosed,
    Expecting,
    WithLength,
    InChunks,
    Ahead,
    ReadSlowly,
}

const KINDS: usize = Kind::ReadSlowly as usize + 1;

/// What clients did, and what came to them.
#[derive(Default)]
struct Tally {
    exchanges: [u64; KINDS],
    connections: u64,
    /// The proxy's own interim responses.
    asked: u64,
    sent: u64,
    came: u64,
}

impl Tally {
    fn of(all: impl Iterator<Item = Tally>) -> Tally {
        all.fold(Tally::default(), |mut sum, one| {
            for (sum, one) in sum.exchanges.iter_mut().zip(one.exchanges) {
                *sum += one;
            }
            sum.connections += one.connections;
            sum.asked += one.asked;
            sum.sent += one.sent;
            sum.came += one.came;
            sum
        })
    }

    fn total(&self) -> u64 {
        self.exchanges.iter().sum()
    }
}

/// One exchange after the other, mostly on one connection.
struct Client {
    to: SocketAddr,
    peer: Peer,
    dice: Dice,
    tally: Tally,
}

impl Client {
    fn new(to: SocketAddr, seed: u64) -> Client {
        let tally = Tally { connections: 1, ..Tally::default() };
        Client { to, peer: Peer::connect(to), dice: Dice::new(seed), tally }
    }

    /// Closes its connection, if it is not closed yet, and goes on with this one.
    fn go_on_with(&mut self, peer: Peer) {
        let old = std::mem::replace(&mut self.peer, peer);
        self.tally.connections += 1;
        self.tally.sent += old.sent;
        self.tally.came += old.came;
    }

    fn connect_anew(&mut self) {
        self.go_on_with(Peer::connect(self.to));
    }

    fn done(mut self) -> Tally {
        self.tally.sent += self.peer.sent;
        self.tally.came += self.peer.came;
        self.tally
    }

    fn count(&mut self, kind: Kind) {
        self.tally.exchanges[kind as usize] += 1;
    }

    fn body(&mut self) -> &'static [u8] {
        let size = self.dice.size(BODY);
        let from = self.dice.below(MUCH - size);
        &BYTES[from..from + size]
    }

    /// Reads the next response, which must have this body; how many interim ones were before it.
    #[track_caller]
    fn expect(&mut self, body: &[u8]) -> u64 {
        let mut interims = 0;
        let head = loop {
            match self.peer.head() {
                head if head == PROBE => interims += 1,
                head => break head,
            }
        };
        let came = if head.contains("chunked") {
            self.peer.try_chunks().unwrap()
        } else {
            assert_eq!(head, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            self.peer.take(body.len())
        };
        assert!(came == body, "another body of {} bytes instead of {}", came.len(), body.len());
        interims
    }

    #[track_caller]
    fn expect_at_once(&mut self, kind: Kind, body: &[u8]) {
        assert_eq!(self.expect(body), 0, "a client that has not half-closed is not probed");
        self.count(kind);
    }

    fn ask(&mut self, kind: Kind) {
        let target = format!("/{}", self.dice.below(100_000));
        self.peer.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.expect_at_once(kind, target.as_bytes());
    }

    fn half_close(&mut self) {
        let body = if self.dice.one_in(2) {
            self.peer.send("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
            b"/later"
        } else {
            let body = self.body();
            self.peer.send(with_length("POST /later HTTP/1.1", body));
            body
        };
        self.peer.half_close();
        self.tally.asked += self.expect(body);
        assert_eq!(self.peer.rest(), (Vec::new(), End::Fin));
        self.count(Kind::HalfClosed);
        self.connect_anew();
    }

    fn wait_for_a_100(&mut self) {
        let body = self.body();
        let start = "PUT / HTTP/1.1\r\nExpect: 100-continue";
        let request = if self.dice.one_in(2) {
            with_length(start, body)
        } else {
            in_chunks(start, body, body.len() / 3 + 1)
        };
        let head = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        self.peer.send(&request[..head]);
        assert_eq!(self.peer.head(), PROBE);
        self.peer.send(&request[head..]);
        self.expect_at_once(Kind::Expecting, body);
    }

    fn send_with_length(&mut self) {
        let body = self.body();
        self.peer.send(with_length("POST / HTTP/1.1", body));
        self.expect_at_once(Kind::WithLength, body);
    }

    fn send_in_chunks(&mut self) {
        let body = self.body();
        let size = body.len() / (1 + self.dice.below(30)) + 1;
        self.peer.send(in_chunks("POST / HTTP/1.1", body, size));
        self.expect_at_once(Kind::InChunks, body);
    }

    fn send_ahead(&mut self, left: u64) {
        let (mut requests, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..left.min(8) {
            let body = self.body();
            let body = &body[..body.len().min(1_000)];
            requests.extend_from_slice(&with_length("POST / HTTP/1.1", body));
            bodies.push(body);
        }
        self.peer.send(requests);
        for body in bodies {
            self.expect_at_once(Kind::Ahead, body);
        }
    }

    fn read_slowly(&mut self) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        socket.connect(&self.to.into()).unwrap();
        self.go_on_with(Peer::of(socket.into(), None));
        self.peer.send("GET /much HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(self.peer.head(), format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
        for piece in BYTES.chunks(MUCH / 10) {
            thread::park_timeout(Duration::from_millis(5));
            assert!(self.peer.take(piece.len()) == piece, "other bytes");
        }
        self.count(Kind::ReadSlowly);
        self.connect_anew();
    }
}

/// So many exchanges: of a thousand, 5 of each special kind, but for one that takes long.
fn exchanges(to: SocketAddr, count: u64, seed: u64) -> Tally {
    let mut client = Client::new(to, seed);
    while client.tally.total() < count {
        match client.dice.below(1_000) {
            0..5 => client.half_close(),
            5..10 => client.wait_for_a_100(),
            10..15 => client.send_with_length(),
            15..20 => client.send_in_chunks(),
            20..25 => client.send_ahead(count - client.tally.total()),
            25..30 => {
                client.connect_anew();
                client.ask(Kind::Anew);
            }
            30 => client.read_slowly(),
            _ => client.ask(Kind::Plain),
        }
    }
    client.done()
}

#[test]
fn a_million_exchanges_are_all_whole() {
    // Where there is no time for a million, as many as show each kind.
    let each = if std::env::var_os("DEADPEER_MILLION").is_some() { 50_000 } else { 2_000 };
    for io in engines() {
        let upstream = Upstream::forgetful(serve);
        let proxy = Proxy::start(io, upstream.address, "--threads 2");
        let to = proxy.address;
        let tally = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|seed| scope.spawn(move || exchanges(to, each, seed))).collect();
            Tally::of(clients.into_iter().map(|client| client.join().unwrap()))
        });
        assert!(tally.exchanges.iter().all(|&count| count > 0), "{io}: {:?}", tally.exchanges);
        let half_closed = tally.exchanges[Kind::HalfClosed as usize];
        assert!(tally.asked > half_closed / 2, "{io}: {half_closed} half-closed, {} asked", tally.asked);
        println!("{io}: {:?}, {} asked", tally.exchanges, tally.asked);
        let summary = proxy.finish_undisturbed(CLIENTS * each);
        let counted =
            json!([tally.connections, 0, tally.sent, tally.came - tally.asked * PROBE.len() as u64]);
        let names = ["opened", "not_followed", "client_bytes", "upstream_bytes"];
        assert_eq!(json!(names.map(|name| &summary[name])), counted, "{io}: {names:?} of {summary:#}");
    }
}
