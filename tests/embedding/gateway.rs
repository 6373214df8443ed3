use std::net::SocketAddr;
use std::time::Duration;

use deadpeer::liveness::Policy;
use deadpeer::watch::{Verdict, Watched, Watcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;

/// Who left, and why.
pub type Departure = (SocketAddr, Verdict);

/// Holds very many devices, echoes what they say, and tells of each that is gone: also of one that vanished
/// without a word, and of one whose session is stuck elsewhere and does not read.
pub async fn serve(listener: TcpListener, watcher: Watcher, departures: UnboundedSender<Departure>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, say
            continue;
        };
        match watcher.watch(stream, Policy::STANDARD) {
            Ok(stream) => {
                let departures = departures.clone();
                tokio::spawn(async move {
                    let verdict = session(stream).await;
                    let _ = departures.send((address, verdict));
                });
            }
            Err(error) => eprintln!("{address}: {error}"),
        }
    }
}

async fn session(mut stream: Watched<TcpStream>) -> Verdict {
    let gone = stream.gone();
    let talk = async {
        let mut message = [0; 1_024];
        while let Ok(length @ 1..) = stream.read(&mut message).await {
            if stream.write_all(&message[..length]).await.is_err() {
                break;
            }
        }
        // An end that this session saw itself; the watch says which.
        std::future::pending().await
    };
    tokio::select! {
        verdict = gone => verdict,
        () = talk => unreachable!("it only ends by its watch"),
    }
}
