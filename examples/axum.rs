//! An axum handler that stops when its client leaves: `curl 127.0.0.1:8080/report`, then Ctrl-C.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::routing::get;
use axum::serve::IncomingStream;
use deadpeer::{Policy, Token, Watched, Watcher, WatcherConfig};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Watcher::start(WatcherConfig::default())?; // one for the whole program
    let listener = Listener { inner: TcpListener::bind("127.0.0.1:8080").await?, watcher };
    let router = Router::new().route("/report", get(report));
    axum::serve(listener, router.into_make_service_with_connect_info::<Client>()).await?;
    Ok(())
}

/// A listener whose accepted connections are watched.
pub struct Listener {
    /// Accepts.
    pub inner: TcpListener,
    /// Watches what was accepted.
    pub watcher: Watcher,
}

impl axum::serve::Listener for Listener {
    type Io = Watched<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched<TcpStream>, SocketAddr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
            // A client says nothing while it waits for its response: only its kernel is judged.
            match self.watcher.watch(stream, Policy::STANDARD.transport_only()) {
                Ok(stream) => return (stream, address),
                Err(error) => eprintln!("{address}: {error}"), // it has left already, for example
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Whether the client of a request is still there.
#[derive(Clone)]
pub struct Client(pub Token);

impl Connected<IncomingStream<'_, Listener>> for Client {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Client {
        Client(stream.io().token())
    }
}

/// Works for an hour, and stops when the client leaves.
pub async fn report(ConnectInfo(Client(client)): ConnectInfo<Client>) -> String {
    // A task of its own: work that goes on when the handler itself is dropped.
    let work = tokio::spawn(async move {
        tokio::select! {
            figures = compute() => figures,
            verdict = client.gone() => {
                println!("stopped: the client is {verdict}");
                String::new()
            }
        }
    });
    work.await.unwrap_or_default()
}

/// A query, a model, an export.
async fn compute() -> String {
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
    "42".to_owned()
}
