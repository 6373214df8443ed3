//! The programs of docs/EMBEDDING.md, run.

#[allow(dead_code)] // its main
#[path = "../../examples/gateway.rs"]
mod gateway;
#[allow(dead_code)]
#[path = "../../examples/axum.rs"]
mod handler;
#[allow(dead_code)]
#[path = "../../examples/hyper.rs"]
mod hyper;
#[path = "../kernel/skip.rs"]
mod skip;
#[allow(dead_code)]
#[path = "../../examples/threads.rs"]
mod threads;
#[allow(dead_code)]
#[path = "../../examples/uring.rs"]
mod uring;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::routing::post;
use axum::{Extension, Router};
use deadpeer::liveness::{Cause, Policy};
use deadpeer::watch::{Token, Verdict, Watcher, WatcherConfig};

const PATIENCE: Duration = Duration::from_secs(60);
const CLOSED: Verdict = Verdict::Gone(Cause::Closed);
const ABORTED: Verdict = Verdict::Gone(Cause::Aborted);

fn watcher() -> Watcher {
    Watcher::start(WatcherConfig::default()).unwrap()
}

#[test]
fn the_document_shows_these_programs() {
    let document = include_str!("../../docs/EMBEDDING.md");
    let programs = [
        include_str!("../../examples/axum.rs"),
        include_str!("../../examples/hyper.rs"),
        include_str!("../../examples/threads.rs"),
        include_str!("../../examples/gateway.rs"),
        include_str!("../../examples/uring.rs"),
    ];
    // A hidden line of rustdoc is shown by everything else, and does not compile.
    assert!(!document.lines().any(|line| line == "#" || line.starts_with("# ") && line.ends_with(';')));
    for program in programs {
        assert!(document.contains(program), "docs/EMBEDDING.md must contain:\n\n{program}");
    }
}

/// An axum server of the document's; tells when a handler began and what its client's token said.
fn axum_server() -> (SocketAddr, Receiver<()>, Receiver<Verdict>) {
    let (began, begins) = channel();
    let (told, tells) = channel();
    let (at, address) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let inner = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            at.send(inner.local_addr().unwrap()).unwrap();
            let listener = handler::Listener { inner, watcher: watcher() };
            // As `report`, but says what it sees. It never reads the body.
            let observed = move |ConnectInfo(handler::Client(client)): ConnectInfo<handler::Client>| {
                let (began, told) = (began.clone(), told.clone());
                async move {
                    let work = tokio::spawn(async move {
                        began.send(()).unwrap();
                        told.send(client.gone().await).unwrap();
                    });
                    work.await.unwrap();
                }
            };
            let router =
                Router::new().route("/observed", post(observed)).route("/report", post(handler::report));
            axum::serve(listener, router.into_make_service_with_connect_info::<handler::Client>())
                .await
                .unwrap();
        });
    });
    (address.recv().unwrap(), begins, tells)
}

fn ask(address: SocketAddr, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn leave(client: TcpStream, reset: bool) {
    if reset {
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(client);
}

const PLAIN: &str = "POST /observed HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
const UNREAD_BODY: &str = "POST /observed HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n";

#[test]
fn a_handler_stops_when_its_client_leaves_also_where_its_server_is_blind() {
    let (address, begins, tells) = axum_server();
    let pipelined = format!("{PLAIN}P");
    let with_body = format!("{UNREAD_BODY}{}", "x".repeat(100_000));
    for request in [PLAIN, &pipelined, UNREAD_BODY, &with_body] {
        for reset in [false, true] {
            let client = ask(address, request);
            begins.recv_timeout(PATIENCE).unwrap();
            assert!(tells.try_recv().is_err(), "it is there");
            leave(client, reset);
            let verdict = tells.recv_timeout(PATIENCE).expect("the handler is told");
            assert_eq!(verdict, if reset { ABORTED } else { CLOSED }, "{request:.90}");
        }
    }
}

#[test]
fn the_handler_of_the_document_ends_with_its_client() {
    let (address, _begins, _tells) = axum_server();
    let mut client = ask(address, &PLAIN.replace("observed", "report"));
    client.shutdown(Shutdown::Write).unwrap(); // under a preset a FIN is the end
    let mut response = String::new();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_to_string(&mut response).unwrap();
    // Who sees the FIN first answers: the handler with nothing, or hyper by closing.
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 200"), "{response}");
    // The head has a date, and any of its numbers may be 42.
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert_eq!(body, "", "{response}");
}

/// How a handler ended: with a response, or dropped in the middle of its work.
#[derive(Debug, PartialEq)]
enum Ending {
    Answered(String),
    Dropped,
}

/// A server whose handler, at `/observed`, is followed from its beginning to its end.
struct Server {
    address: SocketAddr,
    begins: Receiver<()>,
    endings: Receiver<Ending>,
}

#[derive(Clone)]
struct Follower {
    began: Sender<()>,
    ended: Sender<Ending>,
}

struct Unfinished(Option<Sender<Ending>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended.send(Ending::Dropped).unwrap();
        }
    }
}

impl Follower {
    async fn follow(self, handler: impl Future<Output = String>) -> String {
        let mut unfinished = Unfinished(Some(self.ended.clone()));
        self.began.send(()).unwrap();
        let response = handler.await;
        unfinished.0 = None;
        self.ended.send(Ending::Answered(response.clone())).unwrap();
        response
    }
}

impl Server {
    fn start<F: Future<Output = ()>>(
        serve: impl FnOnce(tokio::net::TcpListener, Follower) -> F + Send + 'static,
    ) -> Server {
        let ((began, begins), (ended, endings), (at, address)) = (channel(), channel(), channel());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                at.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, Follower { began, ended }).await;
            });
        });
        Server { address: address.recv().unwrap(), begins, endings }
    }

    /// The steps of a client, the same for every server: it asks, waits until its handler works, and leaves.
    fn come_and_leave(&self, request: &str, reset: bool) -> Ending {
        let client = ask(self.address, request);
        self.begins.recv_timeout(PATIENCE).expect("a handler begins");
        leave(client, reset);
        self.endings.recv_timeout(PATIENCE).expect("a handler ends")
    }
}

/// hyper as it is, with a handler that works for so long.
async fn unwatched(listener: tokio::net::TcpListener, follower: Follower, work: Duration) {
    let work = move || async move {
        tokio::time::sleep(work).await;
        "42".to_owned()
    };
    let router = Router::new().route("/observed", post(move || follower.follow(work())));
    axum::serve(listener, router).await.unwrap();
}

/// The document's own program, whose work takes an hour.
async fn watched(inner: tokio::net::TcpListener, follower: Follower) {
    let handler =
        move |client: ConnectInfo<handler::Client>| follower.clone().follow(handler::report(client));
    let router = Router::new().route("/observed", post(handler));
    let listener = handler::Listener { inner, watcher: watcher() };
    axum::serve(listener, router.into_make_service_with_connect_info::<handler::Client>()).await.unwrap();
}

/// The document's loop before hyper, and its handler, whose work takes a quarter of one.
async fn handed_over(listener: tokio::net::TcpListener, follower: Follower) {
    let handler = move |client: Extension<Token>| follower.clone().follow(hyper::export(client));
    hyper::serve(listener, watcher(), Router::new().route("/observed", post(handler))).await;
}

#[test]
fn hyper_alone_is_blind_where_the_same_steps_end_the_programs_of_the_document() {
    // Hours of work are dropped in the middle; work that hyper is blind to comes to its end.
    let working =
        Server::start(|listener, follower| unwatched(listener, follower, Duration::from_secs(3_600)));
    let alone = Server::start(|listener, follower| unwatched(listener, follower, Duration::from_millis(100)));
    let watched = Server::start(watched);
    let handed_over = Server::start(handed_over);
    assert_eq!(working.come_and_leave(PLAIN, false), Ending::Dropped, "with nothing before it, it is seen");
    let pipelined = format!("{PLAIN}P");
    let with_body = format!("{UNREAD_BODY}{}", "x".repeat(100_000));
    for request in [&pipelined, UNREAD_BODY, &with_body] {
        for reset in [false, true] {
            let ending = alone.come_and_leave(request, reset);
            assert_eq!(ending, Ending::Answered("42".to_owned()), "blind: {request:.90}");
            let ending = watched.come_and_leave(request, reset);
            assert_eq!(ending, Ending::Answered(String::new()), "stopped: {request:.90}");
            let Ending::Answered(lines) = handed_over.come_and_leave(request, reset) else {
                panic!("hyper saw it: {request:.90}");
            };
            assert!(lines.len() < 10_000, "stopped: {request:.90}");
        }
    }
}

#[test]
fn a_loop_before_hyper_serves_as_any_other_does() {
    async fn state(Extension(client): Extension<Token>) -> String {
        client.state().to_string()
    }
    let server = Server::start(|listener, _follower| {
        hyper::serve(listener, watcher(), Router::new().route("/", post(state)))
    });
    let mut client = ask(server.address, "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("\r\n\r\nhere"), "{response}");
}

#[test]
fn a_thread_stops_when_its_client_leaves_and_answers_one_that_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let watcher = watcher();
    let worker = || -> (TcpStream, JoinHandle<io::Result<bool>>) {
        let client = ask(address, "?");
        let stream = listener.accept().unwrap().0;
        let stream = watcher.watch(stream, Policy::STANDARD.transport_only()).unwrap();
        (client, std::thread::spawn(move || threads::answer(stream)))
    };
    let (at_once, first) = worker();
    let (closing, second) = worker();
    let (resetting, third) = worker();
    let (mut staying, fourth) = worker();
    leave(at_once, false);
    std::thread::sleep(Duration::from_millis(200)); // a tenth of their work
    leave(closing, false);
    leave(resetting, true);
    for (thread, how) in [(first, "at once"), (second, "by a FIN"), (third, "by a RST")] {
        assert!(!thread.join().unwrap().unwrap(), "left {how}, and it worked to its end");
    }
    assert!(fourth.join().unwrap().unwrap(), "a client that stays is answered");
    let mut answer = String::new();
    staying.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "42\n");

    let serving = watcher.clone();
    std::thread::spawn(move || threads::serve(&listener, &serving));
    let mut client = ask(address, "?");
    answer.clear();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "42\n");
}

/// As many devices as descriptors allow, up to ten thousand.
fn devices() -> usize {
    let limit = deadpeer::sys::rlimit::raise_nofile().unwrap();
    let count = usize::try_from(limit.saturating_sub(500)).unwrap().min(10_000);
    if count < 10_000 {
        skip::skip(&format!("only {count} of ten thousand devices: raise `ulimit -n` to 10500"));
    }
    count
}

#[test]
fn a_gateway_of_ten_thousand_knows_which_clients_left() {
    let count = devices();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let watcher = watcher();
    let watched = watcher.clone();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (departures, mut departed) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(gateway::serve(listener, watcher, departures));
        let mut devices = Command::new(env!("CARGO_BIN_EXE_deadpeer"))
            .args([
                "beat",
                &address,
                "--quiet",
                "--reconnect",
                "--every",
                "5s",
                "--count",
                &count.to_string(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let all_are_here = async {
            while watched.len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, all_are_here).await;
        let here = watched.len();
        // Connects that the full backlog held up for too long, which the devices gave up and tried again.
        let mut early = Vec::new();
        while let Ok(departure) = departed.try_recv() {
            early.push(departure);
        }
        devices.kill().unwrap();
        devices.wait().unwrap();
        assert!(came.is_ok(), "{here} of {count} came");
        assert!(early.len() < 10, "{early:?}");
        assert!(early.iter().all(|(_, verdict)| [CLOSED, ABORTED].contains(verdict)), "{early:?}");
        for _ in 0..count {
            let (address, verdict) = tokio::time::timeout(PATIENCE, departed.recv()).await.unwrap().unwrap();
            assert!(verdict == CLOSED || verdict == ABORTED, "{address}: {verdict}");
        }
        assert!(departed.is_empty(), "each once");
    });
}

#[test]
fn a_stream_of_tokio_uring_is_watched_like_any_other() {
    let watcher = watcher();
    tokio_uring::start(async {
        let listener = tokio_uring::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"?").unwrap();
        let address = client.local_addr().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(client);
        });
        assert_eq!(uring::serve_one(&listener, &watcher).await.unwrap(), (address, CLOSED));
    });
    assert!(watcher.is_empty());
}
