//! Heads and bodies against references that see all bytes at once, in all segmentations.

use proptest::prelude::*;

use super::{Body, Framing, Head, Reason, RequestHead, ResponseHead, Scan};
use crate::limits::{MAX_CHUNK_EXTENSION, MAX_HEAD, MAX_HEADERS};

fn request(wire: &[u8]) -> Head<RequestHead> {
    RequestHead::read(wire, &mut Scan::default())
}

fn whole(wire: &[u8]) -> RequestHead {
    match request(wire) {
        Head::Whole { head, length } => {
            assert_eq!(length, wire.len());
            head
        }
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(wire)),
    }
}

fn refused(wire: &str) -> Reason {
    match request(wire.as_bytes()) {
        Head::Not(reason) => reason,
        other => panic!("{other:?} of {wire:?}"),
    }
}

fn response(wire: &str) -> Result<ResponseHead, Reason> {
    match ResponseHead::read(wire.as_bytes(), &mut Scan::default()) {
        Head::Whole { head, length } if length == wire.len() => Ok(head),
        Head::Not(reason) => Err(reason),
        other => panic!("{other:?} of {wire:?}"),
    }
}

#[test]
fn what_a_request_says_is_read() {
    let head = whole(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.method(), head.target(), head.minor_version()), ("GET", "/a?b", 1));
    assert_eq!((head.framing(), head.expects_continue()), (Framing::None, false));
    let head = whole(b"\r\n\r\nPOST / HTTP/1.0\r\ncontent-LENGTH:\t12 \r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(
        (head.framing(), head.expects_continue()),
        (Framing::Length(12), false),
        "HTTP/1.0 cannot expect"
    );
    let head = whole(b"PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nEXPECT: 100-Continue\r\n\r\n");
    assert_eq!((head.framing(), head.expects_continue()), (Framing::Chunked, true));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(5_000));
    assert_eq!(whole(long.as_bytes()).target().len(), crate::limits::MAX_TOLD_TARGET);
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    for (fields, reason) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Reason::BothLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Reason::BothLengths),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Reason::ManyLengths),
        ("Content-Length: 5, 5\r\n", Reason::ManyLengths),
        ("Content-Length: +5\r\n", Reason::BadLength),
        ("Content-Length: -5\r\n", Reason::BadLength),
        ("Content-Length: 0x5\r\n", Reason::BadLength),
        ("Content-Length: 5 5\r\n", Reason::BadLength),
        ("Content-Length:\r\n", Reason::BadLength),
        ("Content-Length: 18446744073709551616\r\n", Reason::BadLength),
        ("Transfer-Encoding: gzip, chunked\r\n", Reason::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Reason::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Reason::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", Reason::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", Reason::TransferEncoding),
        ("X: a\r\n b\r\n", Reason::ObsFold),
        ("X: a\r\n\tb\r\n", Reason::ObsFold),
        ("X: a\nY: b\r\n", Reason::BareLf),
        ("X: a\rY: b\r\n", Reason::BareCr),
        ("X: a\r\rY: b\r\n", Reason::BareCr),
        ("X: a\0b\r\n", Reason::Nul),
        ("Content-Length : 5\r\n", Reason::NotHttp),
        (" Content-Length: 5\r\n", Reason::ObsFold),
        ("Content Length: 5\r\n", Reason::NotHttp),
        (": 5\r\n", Reason::NotHttp),
        ("nothing\r\n", Reason::NotHttp),
    ] {
        assert_eq!(refused(&format!("POST / HTTP/1.1\r\n{fields}\r\n")), reason, "{fields:?}");
    }
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Reason::TransferEncoding);
    for line in
        ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/2.0", "GET /", "GET / x HTTP/1.1", "{} / HTTP/1.1"]
    {
        assert_eq!(refused(&format!("{line}\r\n\r\n")), Reason::NotHttp, "{line:?}");
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Reason::Http2);
    assert_eq!(request(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), Head::Partial, "it may still be something else");
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSN"), Reason::NotHttp);
    assert_eq!(refused("\x16\x03\x01"), Reason::Tls);
    assert_eq!(request(b"\x16"), Head::Partial);
    assert_eq!(refused("\x16\x04"), Reason::NotHttp);
    assert_eq!(refused("\x00\x00"), Reason::NotHttp, "at once, and not when a head could have ended");
    assert_eq!(refused("GET / HTTP/1.1\n\n"), Reason::BareLf);
    assert_eq!(refused("GET /\r\n"), Reason::NotHttp, "HTTP/0.9 waits for its answer now");
    assert_eq!(refused("HELO there\r\n"), Reason::NotHttp);
}

#[test]
fn a_head_has_a_limit() {
    let fits = |length: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
    };
    whole(fits(MAX_HEAD).as_bytes());
    assert_eq!(request(fits(MAX_HEAD + 1).as_bytes()), Head::TooLarge);
    assert_eq!(request(&fits(MAX_HEAD + 10).as_bytes()[..MAX_HEAD]), Head::TooLarge, "before it ends");
    assert_eq!(request(&[b'\r', b'\n'].repeat(MAX_HEAD)), Head::TooLarge);
    let many = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    whole(many(MAX_HEADERS).as_bytes());
    assert_eq!(request(many(MAX_HEADERS + 1).as_bytes()), Head::TooLarge);
}

#[test]
fn where_a_response_ends_depends_on_what_it_answers() {
    let framing = |head: &str, method: &str| response(head).unwrap().framing(method);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    assert_eq!((framing(ok, "GET"), framing(ok, "HEAD")), (Framing::Length(3), Framing::None));
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", "GET"), Framing::UntilClose);
    assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "GET"), Framing::None);
    assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n", "GET"), Framing::None);
    assert_eq!(framing("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", "GET"), Framing::Chunked);
    assert_eq!(response("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n"), Err(Reason::BodyForbidden));
    assert_eq!(response("HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Reason::BodyForbidden));
    assert_eq!(
        response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(Reason::TransferEncoding)
    );
    assert_eq!(response("\r\nHTTP/1.1 200 OK\r\n\r\n"), Err(Reason::NotHttp));
    assert_eq!(response("HTTQ"), Err(Reason::NotHttp));
    let interim = response("HTTP/1.1 103 Early\r\n\r\n").unwrap();
    assert!(interim.is_interim() && !interim.is_switch("GET"));
    let switch = response("HTTP/1.1 101 Switching\r\n\r\n").unwrap();
    assert!(!switch.is_interim() && switch.is_switch("GET"));
    let granted = response("HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert!(granted.is_switch("CONNECT") && !granted.is_switch("GET"));
    assert!(!response("HTTP/1.1 403 No\r\n\r\n").unwrap().is_switch("CONNECT"));
    for (head, persistent) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x, close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        assert_eq!(response(head).unwrap().is_persistent(), persistent, "{head:?}");
    }
}

#[test]
fn chunks_are_read_strictly() {
    let feed = |wire: &str| Body::new(Framing::Chunked).feed(wire.as_bytes());
    let over =
        |wire: &str, taken: usize| assert_eq!(feed(wire), Ok(super::Fed { taken, over: true }), "{wire:?}");
    over("0\r\n\r\nGET", 5);
    over("3\r\nabc\r\n0\r\n\r\n", 13);
    over("00003\r\nabc\r\n000\r\n\r\n", 19);
    over("A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: z\r\n\r\n", 38);
    for (wire, reason) in [
        ("\r\n", Reason::ChunkSize),
        (" 3\r\n", Reason::ChunkSize),
        ("3 \r\n", Reason::ChunkSize),
        ("+3\r\n", Reason::ChunkSize),
        ("0x3\r\n", Reason::ChunkSize),
        ("g\r\n", Reason::ChunkSize),
        ("3\nabc", Reason::ChunkSize),
        ("3\rabc", Reason::ChunkSize),
        ("3;a\nabc", Reason::ChunkSize),
        ("8000000000000000\r\n", Reason::ChunkSize),
        ("10000000000000000\r\n", Reason::ChunkSize),
        ("3\r\nabcd", Reason::ChunkEnd),
        ("3\r\nabc\n", Reason::ChunkEnd),
        ("3\r\nabc\rx", Reason::ChunkEnd),
        ("0\r\n x: y\r\n\r\n", Reason::Trailer),
        ("0\r\nGET /admin HTTP/1.1\r\n\r\n", Reason::Trailer),
        ("0\r\nx : y\r\n\r\n", Reason::Trailer),
        ("0\r\nx\r\n\r\n", Reason::Trailer),
        ("0\r\nx: \u{1}\r\n\r\n", Reason::Trailer),
        ("00000000000000003\r\nabc\r\n", Reason::ChunkSize),
        ("0\r\nx: y\n\r\n", Reason::Trailer),
        ("0\r\nx: y\r\r\n", Reason::Trailer),
        ("0\r\n\n", Reason::Trailer),
        ("0\r\n\r\r", Reason::Trailer),
    ] {
        assert_eq!(feed(wire), Err(reason), "{wire:?}");
    }
    let largest = feed("7fffffffffffffff\r\n").unwrap();
    assert!(!largest.over);
    let extension = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
    assert!(feed(&extension(MAX_CHUNK_EXTENSION as usize)).is_ok());
    assert_eq!(feed(&extension(MAX_CHUNK_EXTENSION as usize + 1)), Err(Reason::ChunkSize));
    let trailers = format!("0\r\n{}\r\n", "Abcdef: ghi\r\n".repeat(MAX_HEAD / 11 + 1));
    assert_eq!(feed(&trailers), Err(Reason::Trailer));
}

/// Where a chunked body ends, for a reader that sees all of it: `None` if it is incomplete, or not well formed.
fn reference_chunked(wire: &[u8]) -> Result<usize, bool> {
    let mut at = 0;
    loop {
        // Err(true): more could come; Err(false): never.
        let line_end = wire[at..].windows(2).position(|pair| pair == b"\r\n").ok_or(true)? + at;
        let line = &wire[at..line_end];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(false);
        }
        let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(false);
        }
        let size = u128::from_str_radix(std::str::from_utf8(size).unwrap(), 16).map_err(|_| false)?;
        if size >= 1 << 63 {
            return Err(false);
        }
        at = line_end + 2;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        let end = at.checked_add(size).filter(|&end| end + 2 <= wire.len()).ok_or(true)?;
        if &wire[end..end + 2] != b"\r\n" {
            return Err(false);
        }
        at = end + 2;
    }
    loop {
        let line_end = wire[at..].windows(2).position(|pair| pair == b"\r\n").ok_or(true)? + at;
        let line = &wire[at..line_end];
        at = line_end + 2;
        if line.is_empty() {
            return Ok(at);
        }
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').ok_or(false)?);
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(token) {
            return Err(false);
        }
        if value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 127) {
            return Err(false);
        }
    }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"b;x=y\r\nhello\r\nhell\r\n".to_vec()),
        Just(b"Key: value\r\n".to_vec()),
        prop::sample::select(b"\r\n0123aF; :\tx\0".to_vec()).prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Feeds in pieces; what was taken in all, and how it ended.
fn in_pieces(framing: Framing, wire: &[u8], cuts: &[usize]) -> (usize, Result<bool, Reason>) {
    let mut body = Body::new(framing);
    let (mut at, mut taken) = (0, 0);
    for size in cuts.iter().copied().chain([wire.len()]) {
        let end = (at + size).min(wire.len());
        match body.feed(&wire[at..end]) {
            Err(reason) => return (taken, Err(reason)),
            Ok(fed) => {
                taken += fed.taken;
                if fed.over {
                    return (taken, Ok(true));
                }
            }
        }
        at = end;
    }
    (taken, Ok(false))
}

proptest! {
    #[test]
    fn chunks_end_where_the_reference_says_however_they_are_cut(
        wire in hostile(),
        cuts in prop::collection::vec(0_usize..7, 0..40),
    ) {
        let (taken, ended) = in_pieces(Framing::Chunked, &wire, &cuts);
        match reference_chunked(&wire) {
            Ok(length) => prop_assert_eq!((taken, ended), (length, Ok(true))),
            Err(false) => prop_assert!(!matches!(ended, Ok(true)), "{:?}", ended),
            // More could come: what was seen may have shown already that it is not well formed.
            Err(true) => prop_assert!(!matches!(ended, Ok(true)), "{:?}", ended),
        }
        let (_, at_once) = in_pieces(Framing::Chunked, &wire, &[]);
        prop_assert_eq!(ended, at_once);
    }

    #[test]
    fn a_head_ends_in_the_same_place_however_it_is_cut(
        lines in prop::collection::vec(
            prop_oneof![
                4 => Just("X: y".to_owned()),
                2 => Just("Content-Length: 3".to_owned()),
                1 => Just("Transfer-Encoding: chunked".to_owned()),
                1 => "[ -~\t]{0,12}",
                1 => prop::sample::select(vec!["a\rb", "a\nb", " fold", "\0", ""]).prop_map(str::to_owned),
            ],
            0..5,
        ),
        rest in "[ -~\r\n]{0,20}",
        cuts in prop::collection::vec(1_usize..9, 0..60),
    ) {
        let wire = format!("GET / HTTP/1.1\r\n{}\r\n\r\n{rest}", lines.join("\r\n")).into_bytes();
        let at_once = request(&wire);
        let mut scan = Scan::default();
        let mut at = 0;
        for size in cuts.iter().copied().chain([wire.len()]) {
            at = (at + size).min(wire.len());
            match RequestHead::read(&wire[..at], &mut scan) {
                Head::Partial => {}
                // What comes in pieces may be refused before what would be refused at once for something later;
                // never the other way.
                cut => { prop_assert_eq!(&cut, &at_once); break; }
            }
        }
        if at == wire.len() && matches!(at_once, Head::Whole { .. }) {
            let Head::Whole { length, .. } = at_once else { unreachable!() };
            prop_assert!(wire[..length].ends_with(b"\r\n\r\n"));
            let inner = &wire[..length - 4];
            prop_assert!(!inner.windows(4).any(|four| four == b"\r\n\r\n"));
        }
    }
}
