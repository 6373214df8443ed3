use std::time::Duration;

use axum::{Extension, Router};
use deadpeer::liveness::Policy;
use deadpeer::watch::{Token, Watcher};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// hyper without `axum::serve`: a loop of your own, which hands each connection over.
pub async fn serve(listener: TcpListener, watcher: Watcher, router: Router) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, say
            continue;
        };
        let stream = match watcher.watch(stream, Policy::STANDARD.transport_only()) {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("{address}: {error}"); // it has left already, say
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(stream.token())));
        // The watch goes where the stream goes, and ends when hyper drops it.
        let io = TokioIo::new(stream);
        tokio::spawn(async move {
            if let Err(error) = Builder::new(TokioExecutor::new()).serve_connection(io, service).await {
                eprintln!("{address}: {error}");
            }
        });
    }
}

/// A handler that asks before each step whether anybody waits for it.
pub async fn export(Extension(client): Extension<Token>) -> String {
    let mut lines = String::new();
    for line in 0..100_000 {
        if client.state().is_gone() {
            break;
        }
        lines += &format!("{line}\n");
        tokio::time::sleep(Duration::from_millis(10)).await; // a page of a query
    }
    lines
}
