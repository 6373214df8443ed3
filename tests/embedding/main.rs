//! The programs of docs/EMBEDDING.md, run.

mod gateway;
mod handler;
mod ring;
mod threads;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::post;
use deadpeer::liveness::Cause;
use deadpeer::watch::{Verdict, Watcher, WatcherConfig};

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
        include_str!("handler.rs"),
        include_str!("threads.rs"),
        include_str!("gateway.rs"),
        include_str!("ring.rs"),
    ];
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
            if reset {
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(client);
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
    assert!(!response.contains("42"), "{response}");
}

#[test]
fn a_thread_stops_when_its_client_leaves_and_answers_one_that_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let watcher = watcher();
    let serving = watcher.clone();
    std::thread::spawn(move || threads::serve(&listener, &serving));
    let mut leaving = TcpStream::connect(address).unwrap();
    leaving.write_all(b"?").unwrap();
    let mut staying = TcpStream::connect(address).unwrap();
    staying.write_all(b"?").unwrap();
    drop(leaving);
    let mut answer = String::new();
    staying.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "42\n");
    drop(staying);
    while !watcher.is_empty() {
        std::thread::sleep(Duration::from_millis(5)); // its thread is over
    }
}

/// As many devices as descriptors allow, up to ten thousand.
fn devices() -> usize {
    let (limit, _) = (deadpeer::sys::rlimit::raise_nofile().unwrap(), ());
    usize::try_from(limit.saturating_sub(500)).unwrap().min(10_000)
}

#[test]
fn a_gateway_of_ten_thousand_knows_who_left() {
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
            .args(["beat", &address, "--quiet", "--every", "5s", "--count", &count.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while watched.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        devices.kill().unwrap();
        devices.wait().unwrap();
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
        assert_eq!(ring::serve_one(&listener, &watcher).await.unwrap(), (address, CLOSED));
    });
    assert!(watcher.is_empty());
}
