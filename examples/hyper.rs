//! A loop of your own before hyper: `curl 127.0.0.1:8080/export`, then Ctrl-C.

use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use deadpeer::{Policy, Token, Watcher, WatcherConfig};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Watcher::start(WatcherConfig::default())?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    serve(listener, watcher, Router::new().route("/export", get(export))).await;
    Ok(())
}

/// Accepts, watches each connection and hands it to hyper.
pub async fn serve(listener: TcpListener, watcher: Watcher, router: Router) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors, for example
            continue;
        };
        let stream = match watcher.watch(stream, Policy::STANDARD.transport_only()) {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("{address}: {error}"); // it has left already, for example
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

/// A handler that asks before each step whether its client is still there.
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
