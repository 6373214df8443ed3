//! The role `stream`: one connection that sends as fast as it can, and then closes by FIN.
//!
//! It reports `connected`, waits for a line, and reports `streamed` with the number of bytes and the instant of the
//! first one.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpStream};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::now;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StreamPlan {
    pub server: SocketAddr,
    /// How long it sends, in nanoseconds.
    pub lasts_ns: u64,
}

const CHUNK: usize = 1 << 18;

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
    // It ends when the parent closes standard input, as all roles do.
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}
