//! Unix sockets on both sides: what holds of TCP holds of them, as far as they have it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::daemon::PATIENCE;
use crate::dice::Dice;
use crate::outcome::{Outcome, outcome, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::answer;

const BIG: usize = 5_000_000;

/// A path that no other test has, and no file.
fn path(name: &str, io: &str) -> PathBuf {
    let path = PathBuf::from(format!("/tmp/deadpeer-{}-{name}-{io}.sock", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn read_until(stream: &mut UnixStream, mark: &[u8]) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(mark) {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        read.push(byte[0]);
    }
    Some(String::from_utf8(read).unwrap())
}

/// A server: `/wait` waits for the end of its connection, which it tells; `/later` answers when it is told to; `/big` is a
/// large body; everything else is answered with its target.
fn serve(path: &Path) -> (Receiver<&'static str>, Sender<()>) {
    let listener = UnixListener::bind(path).unwrap();
    let ((told, ends), (go, gone)) = (channel(), channel());
    let gone = Arc::new(Mutex::new(gone));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, told, gone) = (stream.unwrap(), told.clone(), Arc::clone(&gone));
            thread::spawn(move || {
                while let Some(head) = read_until(&mut stream, b"\r\n\r\n") {
                    let target = head.split(' ').nth(1).unwrap();
                    match target {
                        "/wait" => {
                            told.send("asked").unwrap();
                            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
                            told.send("ended").unwrap();
                            break;
                        }
                        "/later" => {
                            told.send("asked").unwrap();
                            gone.lock().unwrap().recv().unwrap();
                            stream.write_all(answer("later").as_bytes()).unwrap();
                        }
                        "/big" => {
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n");
                            stream.write_all(head.as_bytes()).unwrap();
                            stream.write_all(&Dice::new(7).bytes(BIG)).unwrap();
                        }
                        target => stream.write_all(answer(target).as_bytes()).unwrap(),
                    }
                }
            });
        }
    });
    (ends, go)
}

fn ask(path: &Path, target: &str) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    stream
}

fn between(io: &'static str, listen: &Path, upstream: &Path, options: &str) -> Proxy {
    let (listen, upstream) = (listen.display(), upstream.display());
    let sockets = format!("--listen unix:{listen} --upstream unix:{upstream}");
    Proxy::at(io, "127.0.0.1", &[], &format!("{sockets} {options}"))
}

/// What an event calls this process.
fn me() -> String {
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    format!("unix:pid={},uid={uid}", std::process::id())
}

#[test]
fn exchanges_pass_and_the_file_has_its_permissions_and_goes_with_the_proxy() {
    on_each(|io| {
        for (mode, permissions) in [("", 0o660), ("--unix-mode 606", 0o606)] {
            let (front, back) = (path(&format!("front{permissions}"), io), path("back", io));
            let (_ends, _go) = serve(&back);
            let mut proxy = between(io, &front, &back, &format!("--threads 2 {mode}"));
            let (shown, upstream) = (format!("unix:{}", front.display()), format!("unix:{}", back.display()));
            let listening = proxy.daemon.wait_for("listening");
            assert_eq!(listening["addresses"][1], shown, "{io}");
            assert_eq!(listening["upstreams"], json!([upstream]), "{io}");
            assert_eq!(fs::metadata(&front).unwrap().permissions().mode() & 0o777, permissions, "{io}");
            for number in 0..20 {
                let mut client = ask(&front, &format!("/{number}"));
                let head = read_until(&mut client, b"\r\n\r\n").unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{io}: {head}");
                assert!(read_until(&mut client, format!("/{number}").as_bytes()).is_some());
            }
            let mut client = ask(&front, "/big");
            read_until(&mut client, b"\r\n\r\n").unwrap();
            let mut body = vec![0; BIG];
            for piece in body.chunks_mut(BIG / 50) {
                thread::park_timeout(Duration::from_millis(2));
                client.read_exact(piece).unwrap();
            }
            assert!(body == Dice::new(7).bytes(BIG), "{io}: other bytes");
            drop(client);
            proxy.assert_rests();
            proxy.finish_undisturbed(21);
            assert!(!front.exists(), "{io}");
            fs::remove_file(&back).unwrap();
        }
    });
}

#[test]
fn a_client_that_closes_is_gone_and_one_that_half_closes_is_asked_and_served() {
    on_each(|io| {
        let (front, back) = (path("leaving", io), path("left", io));
        let (ends, go) = serve(&back);
        let mut proxy = between(io, &front, &back, "");
        let client = ask(&front, "/wait");
        assert_eq!(ends.recv_timeout(PATIENCE), Ok("asked"), "{io}");
        drop(client);
        let told = proxy.daemon.wait_for("interrupted");
        assert_told(&told, &json!({ "client": me(), "phase": "waiting", "done": "reset", "saved": true }));
        assert_eq!(ends.recv_timeout(PATIENCE), Ok("ended"), "{io}");
        let mut client = ask(&front, "/later");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ends.recv_timeout(PATIENCE), Ok("asked"), "{io}");
        assert_eq!(read_until(&mut client, b"\r\n\r\n").unwrap(), "HTTP/1.1 100 Continue\r\n\r\n", "{io}");
        thread::park_timeout(Duration::from_millis(300));
        go.send(()).unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with(&answer("later")), "{io}: {rest}");
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "completed": 1, "interrupted": 1, "upstream_failed": 0 }));
        assert!(summary["half_closed"]["here"].as_u64() >= Some(1), "{io}: {summary:#}");
        fs::remove_file(&back).unwrap();
    });
}

#[test]
fn a_tunnel_passes_every_byte_and_the_end_behind_it() {
    on_each(|io| {
        let (front, back) = (path("tunnel", io), path("echo", io));
        let listener = UnixListener::bind(&back).unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let proxy = between(io, &front, &back, "--mode tcp");
        let mut client = UnixStream::connect(&front).unwrap();
        client.write_all(&Dice::new(8).bytes(BIG)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all == Dice::new(8).bytes(BIG), "{io}: {} bytes", all.len());
        echo.join().unwrap();
        proxy.finish_undisturbed(0);
        fs::remove_file(&back).unwrap();
    });
}

#[test]
fn the_upstream_of_a_tunnel_gets_everything_before_its_end_where_a_fin_means_that_the_client_is_gone() {
    on_each(|io| {
        for (half_close, interrupted) in [("gone", 1), ("forward", 0)] {
            let (front, back) = (path("syslog", io), path("lines", io));
            let listener = UnixListener::bind(&back).unwrap();
            let options = format!("--mode tcp --half-close {half_close}");
            let proxy = between(io, &front, &back, &options);
            let mut client = UnixStream::connect(&front).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let lines = Dice::new(9).bytes(BIG);
            let reading = thread::spawn(move || {
                thread::park_timeout(Duration::from_millis(100));
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
                all
            });
            client.write_all(&lines).unwrap();
            drop(client);
            assert!(reading.join().unwrap() == lines, "{io} {half_close}");
            assert_told(&proxy.finish(), &json!({ "interrupted": interrupted, "upstream_failed": 0 }));
            fs::remove_file(&back).unwrap();
        }
    });
}

#[test]
fn the_client_of_a_tunnel_gets_everything_and_an_orderly_end_from_an_upstream_that_closes() {
    on_each(|io| {
        let (front, back) = (path("giving", io), path("given", io));
        let listener = UnixListener::bind(&back).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(&Dice::new(10).bytes(BIG)).unwrap();
            }
        });
        let proxy = between(io, &front, &back, "--mode tcp");
        let mut clients = [Peer::connect(proxy.address), Peer::connect(proxy.address)];
        thread::park_timeout(Duration::from_millis(100));
        for client in &mut clients {
            let (body, end) = client.rest();
            assert!(body == Dice::new(10).bytes(BIG), "{io}: {} bytes", body.len());
            assert_eq!(end, End::Fin, "{io}");
        }
        drop(clients);
        assert_told(&proxy.finish(), &json!({ "interrupted": 0, "upstream_failed": 0 }));
        fs::remove_file(&back).unwrap();
    });
}

#[test]
fn an_upstream_that_is_not_there_is_refused_and_used_when_it_comes() {
    on_each(|io| {
        let (front, back) = (path("before", io), path("absent", io));
        let mut proxy = between(io, &front, &back, "--retries 0");
        // Without a file, and with one that its process has left.
        for file in [false, true] {
            if file {
                drop(UnixListener::bind(&back).unwrap());
            }
            let mut client = ask(&front, "/");
            let head = read_until(&mut client, b"\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 502 "), "{io}: {head}");
            let told = proxy.daemon.wait_for("upstream_failed");
            assert_told(&told, &json!({ "failure": "refused", "answered": 502, "client": me() }));
        }
        fs::remove_file(&back).unwrap();
        let (_ends, _go) = serve(&back);
        let mut client = ask(&front, "/");
        assert!(read_until(&mut client, b"\r\n\r\n").unwrap().contains(" 200 "), "{io}");
        proxy.finish();
        fs::remove_file(&back).unwrap();
    });
}

#[test]
fn a_path_is_taken_from_a_process_that_has_ended_and_from_nothing_else() {
    on_each(|io| {
        let (front, back) = (path("taken", io), path("behind", io));
        let (_ends, _go) = serve(&back);
        let line =
            format!("proxy --io {io} --listen unix:{} --upstream unix:{}", front.display(), back.display());
        // A file of another kind is not ours.
        fs::write(&front, "mine").unwrap();
        outcome(&line).assert_refusal(1, &["cannot listen on unix:/tmp/", "in use", "`ss -lxp`"]);
        assert_eq!(fs::read_to_string(&front).unwrap(), "mine");
        fs::remove_file(&front).unwrap();
        // One that was killed leaves its file.
        let mut first = between(io, &front, &back, "");
        outcome(&line).assert_refusal(1, &["cannot listen on unix:/tmp/", "in use", "`ss -lxp`"]);
        drop(UnixStream::connect(&front).expect("the first listens on"));
        first.daemon.child.0.kill().unwrap();
        first.daemon.child.0.wait().unwrap();
        let second = between(io, &front, &back, "--drain 20s");
        // While it drains, the next one has the path.
        let mut client = ask(&front, "/x");
        assert!(read_until(&mut client, b"/x").is_some());
        let waiting = ask(&front, "/wait");
        second.daemon.child.signal("-TERM");
        until("it gives the path back", || !front.exists());
        let third = between(io, &front, &back, "");
        drop((client, waiting));
        let mut second = second;
        second.daemon.wait_for("summary");
        Outcome::after(second.daemon.child).assert_quiet_success();
        assert!(front.exists(), "{io}: the path is the next one's");
        let mut client = ask(&front, "/y");
        assert!(read_until(&mut client, b"/y").is_some(), "{io}");
        third.finish();
        let gone = UnixStream::connect(&front).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{io}");
        fs::remove_file(&back).unwrap();
        let own = format!("proxy --listen unix:{0} --upstream unix:{0}", front.display());
        outcome(&own).assert_refusal(2, &["connect to itself"]);
        outcome("proxy --listen unix:/nowhere/at/all.sock --upstream 127.0.0.1:1")
            .assert_refusal(1, &["cannot listen on unix:/nowhere/at/all.sock", "directory"]);
    });
}
