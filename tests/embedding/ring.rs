use std::net::TcpListener;

use deadpeer::liveness::Policy;
use deadpeer::watch::{Verdict, Watcher};

/// On tokio-uring, whose streams show no descriptor: the socket is watched before it becomes one.
pub async fn serve_one(listener: &TcpListener, watcher: &Watcher) -> std::io::Result<Verdict> {
    let (stream, _) = listener.accept()?;
    let watch = watcher.observe(&stream, Policy::STANDARD.transport_only()).map_err(std::io::Error::other)?;
    let stream = tokio_uring::net::TcpStream::from_std(stream);
    let (read, _buffer) = stream.read(vec![0; 512]).await;
    read?;
    // It works, and reads nothing meanwhile.
    let verdict = watch.gone().await;
    drop(watch); // before the stream
    drop(stream);
    Ok(verdict)
}
