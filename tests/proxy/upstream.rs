//! Servers by script: a thread for each connection, and a record of what came and how it ended.

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::daemon::PATIENCE;
use crate::outcome::until;
use crate::peer::{End, Peer};

/// What one connection of a server has seen.
#[derive(Default)]
pub struct Log {
    seen: Mutex<(Vec<u8>, Option<End>)>,
    changed: Condvar,
}

impl Log {
    pub fn add(&self, bytes: &[u8]) {
        self.seen.lock().unwrap().0.extend_from_slice(bytes);
        self.changed.notify_all();
    }

    /// The first end is what it was; a reset that a write has met is not told to the next read.
    pub fn end(&self, end: End) {
        self.seen.lock().unwrap().1.get_or_insert(end);
        self.changed.notify_all();
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().0.clone()
    }

    /// Waits until so many bytes have come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let seen = self.seen.lock().unwrap();
        let short = |seen: &mut (Vec<u8>, Option<End>)| seen.0.len() < count;
        let (seen, late) = self.changed.wait_timeout_while(seen, PATIENCE, short).unwrap();
        assert!(!late.timed_out(), "{} of {count} bytes, {:?}", seen.0.len(), seen.1);
    }

    /// Whether the end has come.
    pub fn is_over(&self) -> bool {
        self.seen.lock().unwrap().1.is_some()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn ended(&self) -> End {
        let seen = self.seen.lock().unwrap();
        let (seen, _) = self.changed.wait_timeout_while(seen, PATIENCE, |seen| seen.1.is_none()).unwrap();
        seen.1.expect("the connection ends")
    }
}

/// Shut until it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(*open, "the gate was not opened");
    }
}

/// A server. Its threads end with the test's process.
pub struct Upstream {
    pub address: SocketAddr,
    logs: Arc<Mutex<Vec<Arc<Log>>>>,
}

impl Upstream {
    /// Each connection is served by this, then read to its end and closed.
    pub fn start(serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Upstream {
        Upstream::ending(move |peer| {
            serve(peer);
            ControlFlow::Continue(())
        })
    }

    /// As [`Upstream::start`]; after `Break` a connection is closed at once.
    pub fn ending(serve: impl Fn(&mut Peer) -> ControlFlow<()> + Send + Sync + 'static) -> Upstream {
        Upstream::of(true, serve)
    }

    /// As [`Upstream::start`], and nothing is recorded.
    pub fn forgetful(serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Upstream {
        Upstream::of(false, move |peer| {
            serve(peer);
            ControlFlow::Continue(())
        })
    }

    fn of(records: bool, serve: impl Fn(&mut Peer) -> ControlFlow<()> + Send + Sync + 'static) -> Upstream {
        // std's backlog of 128 would make a rush of connects wait for repeated SYNs.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(4_096).unwrap();
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let logs: Arc<Mutex<Vec<Arc<Log>>>> = Arc::default();
        let (kept, serve) = (Arc::clone(&logs), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::new(Log::default());
                kept.lock().unwrap().push(Arc::clone(&log));
                let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
                let serving = move || {
                    let mut peer = Peer::of(stream, records.then_some(log));
                    if serve(&mut peer).is_continue() {
                        peer.forget();
                    }
                };
                thread::Builder::new().stack_size(256 * 1024).spawn(serving).unwrap();
            }
        });
        Upstream { address, logs }
    }

    /// One that takes whatever comes and says nothing.
    pub fn silent() -> Upstream {
        Upstream::start(|_| {})
    }

    /// One that answers requests without a body, each with its target.
    pub fn answering() -> Upstream {
        Upstream::forgetful(|peer| {
            while let Ok(head) = peer.try_head() {
                if peer.try_send(answer(head.split(' ').nth(1).unwrap())).is_err() {
                    break;
                }
            }
        })
    }

    /// How many connections there were.
    pub fn count(&self) -> usize {
        self.logs.lock().unwrap().len()
    }

    /// The connection of this number, once there is one.
    #[track_caller]
    pub fn connection(&self, number: usize) -> Arc<Log> {
        until("the upstream is connected", || self.count() > number);
        Arc::clone(&self.logs.lock().unwrap()[number])
    }
}

/// A response with this body.
pub fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
