use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpeer::liveness::Policy;
use deadpeer::watch::{Watched, Watcher};

/// A thread for each connection, as in a server of 1995; and no thread works for somebody who has left.
pub fn serve(listener: &TcpListener, watcher: &Watcher) {
    for stream in listener.incoming() {
        let watched = stream.map(|stream| watcher.watch(stream, Policy::STANDARD.transport_only()));
        match watched {
            Ok(Ok(stream)) => drop(std::thread::spawn(move || answer(stream))),
            // Out of descriptors, say: the next accept would fail at once.
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether somebody was there to be answered.
pub fn answer(mut stream: Watched<TcpStream>) -> io::Result<bool> {
    let mut question = [0; 512];
    let length = stream.read(&mut question)?;
    let gone = Arc::new(AtomicBool::new(false));
    let flag = gone.clone();
    stream.on_gone(move |_| flag.store(true, Ordering::Relaxed));
    for _part in 0..100 {
        if gone.load(Ordering::Relaxed) {
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
