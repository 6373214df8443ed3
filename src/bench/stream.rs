//! The role `stream`: one connection that sends as fast as it can, and closes in order.
//!
//! It says `connected`, waits for a line, and says `streamed` with the bytes that it sent and the instant of
//! the first one.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpStream};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::now;

/// What the role is started with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StreamPlan {
    /// Whom to connect to.
    pub server: SocketAddr,
    /// How long it sends.
    pub lasts_ns: u64,
}

/// Bytes of one send.
const CHUNK: usize = 1 << 18;

/// Plays the role.
///
/// # Errors
///
/// When the connection cannot be made or breaks.
pub fn run(plan: &StreamPlan) -> io::Result<()> {
    let mut stream = TcpStream::connect(plan.server)?;
    let peer = stream.local_addr()?;
    println!("{}", json!({"event": "connected", "peer": peer}));
    io::stdin().lock().read_line(&mut String::new())?;
    let chunk = vec![b'.'; CHUNK];
    let (from, mut bytes) = (now(), 0);
    while now() < from + plan.lasts_ns {
        stream.write_all(&chunk)?;
        bytes += CHUNK;
    }
    drop(stream);
    println!("{}", json!({"event": "streamed", "peer": peer, "bytes": bytes, "mono_ns": from}));
    // Ends with its parent's word, as all roles do.
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}
