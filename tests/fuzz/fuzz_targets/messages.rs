//! A message ends in the same place however its bytes are cut.

#![no_main]

use deadpeer::http::{Body, Framing, Head, Reason, RequestHead, ResponseHead, Scan};
use deadpeer::proxy::ProxyHeader;
use libfuzzer_sys::fuzz_target;

/// Reads a head from more and more of the bytes; the first answer that is not "partial".
fn in_pieces<T>(bytes: &[u8], step: usize, read: impl Fn(&[u8], &mut Scan) -> Head<T>) -> Head<T> {
    let mut scan = Scan::default();
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        match read(&bytes[..end], &mut scan) {
            Head::Partial if end < bytes.len() => {}
            head => return head,
        }
    }
}

fn body(framing: Framing, bytes: &[u8], step: usize) -> Result<(usize, bool), Reason> {
    let mut body = Body::new(framing);
    let mut taken = 0;
    for piece in bytes.chunks(step) {
        let fed = body.feed(piece)?;
        taken += fed.taken;
        if fed.over {
            return Ok((taken, true));
        }
        assert_eq!(fed.taken, piece.len(), "what does not end takes all");
    }
    Ok((taken, body.is_over()))
}

/// Reads a PROXY header from more and more of the bytes.
fn header_in_pieces(bytes: &[u8], step: usize) -> ProxyHeader {
    let mut ends = (1..bytes.len().div_ceil(step)).map(|piece| ProxyHeader::read(&bytes[..piece * step]));
    ends.find(|read| *read != ProxyHeader::Partial).unwrap_or_else(|| ProxyHeader::read(bytes))
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (step, bytes) = (usize::from(input.0 % 16) + 1, &input.1[..]);
    if bytes.is_empty() {
        return;
    }
    let whole = RequestHead::read(bytes, &mut Scan::default());
    assert_eq!(in_pieces(bytes, step, RequestHead::read), whole);
    if let Head::Whole { head, length } = whole {
        assert!(bytes[..length].ends_with(b"\r\n\r\n"));
        let rest = &bytes[length..];
        assert_eq!(body(head.framing(), rest, step), body(head.framing(), rest, usize::MAX));
    }
    let whole = ResponseHead::read(bytes, &mut Scan::default());
    assert_eq!(in_pieces(bytes, step, ResponseHead::read), whole);
    assert_eq!(body(Framing::Chunked, bytes, step), body(Framing::Chunked, bytes, usize::MAX));
    // The beginnings of both versions, which no fuzzer finds.
    for beginning in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        let header = [beginning, bytes].concat();
        assert_eq!(header_in_pieces(&header, step), ProxyHeader::read(&header));
    }
});
