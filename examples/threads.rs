//! A server of plain threads: `nc 127.0.0.1 7000`, type a line, then Ctrl-C.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpeer::{Policy, Watched, Watcher, WatcherConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Watcher::start(WatcherConfig::default())?;
    serve(&TcpListener::bind("127.0.0.1:7000")?, &watcher);
    Ok(())
}

/// Serves each connection on a thread of its own, which stops working when its client has left.
pub fn serve(listener: &TcpListener, watcher: &Watcher) {
    for stream in listener.incoming() {
        let watched = stream.map(|stream| watcher.watch(stream, Policy::STANDARD.transport_only()));
        match watched {
            Ok(Ok(stream)) => drop(std::thread::spawn(move || answer(stream))),
            // Out of descriptors, for example: the next accept would fail at once.
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Computes an answer. Returns whether the client was still there to get it.
pub fn answer(mut stream: Watched<TcpStream>) -> io::Result<bool> {
    let mut question = [0; 512];
    let length = stream.read(&mut question)?;
    let gone = Arc::new(AtomicBool::new(false));
    let flag = gone.clone();
    stream.on_gone(move |_| flag.store(true, Ordering::Relaxed));
    for _part in 0..100 {
        if gone.load(Ordering::Relaxed) {
            println!("stopped: the client is {}", stream.state());
            return Ok(false);
        }
        compute(&question[..length]);
    }
    stream.write_all(b"42\n")?;
    Ok(true)
}

fn compute(_question: &[u8]) {
    std::thread::sleep(Duration::from_millis(20));
}
