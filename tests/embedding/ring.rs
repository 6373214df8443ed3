use std::net::SocketAddr;

use deadpeer::liveness::Policy;
use deadpeer::watch::{Verdict, Watcher};
use tokio_uring::net::TcpListener;

/// On tokio-uring: its streams are watched like all others.
pub async fn serve_one(listener: &TcpListener, watcher: &Watcher) -> std::io::Result<(SocketAddr, Verdict)> {
    let (stream, address) = listener.accept().await?;
    let stream = watcher.watch(stream, Policy::STANDARD.transport_only()).map_err(std::io::Error::other)?;
    let (read, _buffer) = stream.read(vec![0; 512]).await;
    read?;
    // It works, and reads nothing meanwhile.
    Ok((address, stream.gone().await))
}
