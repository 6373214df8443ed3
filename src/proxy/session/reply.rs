//! The messages that the proxy itself sends to a client.

/// The interim response that asks a half-closed client. A client must be able to parse any number of interim responses
/// before the final one, even if it did not ask for a 100 (RFC 9110 section 15.2). Python's `http.client` takes any
/// other 1xx for the final response, so this is the one that is sent.
pub(super) const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The question in the middle of a chunked response: a leading zero of the next chunk's size (RFC 9112 section 7.1).
pub(super) const ZERO: &[u8] = b"0";

/// The answer with this status. It is short, and the last message on its connection. The answer to a HEAD is a head
/// alone (RFC 9110 section 9.3.2).
pub(super) fn answer(status: u16, head_only: bool) -> &'static [u8] {
    macro_rules! answer {
        ($line:literal, $length:literal, $text:literal) => {
            concat!(
                "HTTP/1.1 ",
                $line,
                "\r\nContent-Type: text/plain\r\nContent-Length: ",
                $length,
                "\r\nConnection: close\r\n\r\n",
                $text
            )
            .as_bytes()
        };
    }
    let message = match status {
        400 => answer!("400 Bad Request", "18", "ambiguous request\n"),
        408 => answer!("408 Request Timeout", "17", "request too slow\n"),
        431 => {
            answer!("431 Request Header Fields Too Large", "41", "a head of more than 64 KiB or 128 fields\n")
        }
        502 => answer!("502 Bad Gateway", "16", "upstream failed\n"),
        503 => answer!("503 Service Unavailable", "9", "too busy\n"),
        _ => answer!("504 Gateway Timeout", "18", "upstream too slow\n"),
    };
    if head_only { &message[..head_length(message)] } else { message }
}

fn head_length(message: &[u8]) -> usize {
    message.windows(4).position(|four| four == b"\r\n\r\n").map_or(message.len(), |end| end + 4)
}

/// The length of the body of the answer with this status.
pub(super) fn body_length(status: u16, head_only: bool) -> u64 {
    let message = answer(status, head_only);
    (message.len() - head_length(message)) as u64
}
