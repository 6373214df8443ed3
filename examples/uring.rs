//! A server on tokio-uring: `nc 127.0.0.1 7000`, type a line, then Ctrl-C.

use std::net::SocketAddr;

use deadpeer::hosted::UringStream;
use deadpeer::{Policy, Verdict, Watcher, WatcherConfig};
use tokio_uring::net::TcpListener;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Watcher::start(WatcherConfig::default())?;
    tokio_uring::start(async {
        let listener = TcpListener::bind("127.0.0.1:7000".parse()?)?;
        let (address, verdict) = serve_one(&listener, &watcher).await?;
        println!("{address}: {verdict}");
        Ok(())
    })
}

/// Reads a request, works without reading, and returns how the client left.
pub async fn serve_one(listener: &TcpListener, watcher: &Watcher) -> std::io::Result<(SocketAddr, Verdict)> {
    let (stream, address) = listener.accept().await?;
    let policy = Policy::STANDARD.transport_only();
    let stream = watcher.watch(UringStream(stream), policy).map_err(std::io::Error::other)?;
    let (read, _buffer) = stream.read(vec![0; 512]).await;
    read?;
    Ok((address, stream.gone().await))
}
