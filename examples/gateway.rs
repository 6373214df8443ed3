//! A tokio gateway of many devices: `deadpeer beat 127.0.0.1:7400 --count 1000`, then Ctrl-C.

use std::net::SocketAddr;
use std::time::Duration;

use deadpeer::{Policy, Verdict, Watched, Watcher, WatcherConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Watcher::start(WatcherConfig::default())?;
    let listener = TcpListener::bind("127.0.0.1:7400").await?;
    let (departures, mut departed) = unbounded_channel();
    tokio::spawn(serve(listener, watcher, departures));
    while let Some((address, verdict)) = departed.recv().await {
        println!("{address}: {verdict}");
    }
    Ok(())
}

/// The address of a device that left, and why it left.
pub type Departure = (SocketAddr, Verdict);

/// Holds many devices, echoes what they send, and reports each that is gone: also one that vanished silently, and one
/// whose session is busy elsewhere and does not read.
pub async fn serve(listener: TcpListener, watcher: Watcher, departures: UnboundedSender<Departure>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, for example
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
