//! A frames client in 30 lines: `deadpeer run --heartbeat frames --listen 127.0.0.1:7400`, then run this.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use deadpeer::frame::{Decoded, Decoder, Frame, encode_hello};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = TcpStream::connect("127.0.0.1:7400")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?; // a beat is due after this long without a PING
    stream.write_all(&encode_hello("sensor-7", 0)?)?; // its identity in events
    let (mut decoder, mut sequence, mut received) = (Decoder::new(), 0, [0; 1024]);
    loop {
        match stream.read(&mut received) {
            Ok(0) => return Ok(()), // the tracker has ended the connection
            Ok(length) => {
                let mut bytes = &received[..length];
                while let Some(decoded) = decoder.next(&mut bytes)? {
                    if let Decoded::Frame(frame) = decoded
                        && let Some(pong) = frame.answer()
                    {
                        stream.write_all(&pong.encode())?;
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sequence += 1;
                stream.write_all(&Frame::beat(sequence).encode())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
