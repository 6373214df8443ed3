//! Heads: where they end, and what they say of the message behind them.

use std::mem::MaybeUninit;

use super::{Framing, Reason};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_TOLD_TARGET};

/// How a client of HTTP/2 begins (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How far a head that is still coming was looked through: its bytes are not looked at again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    looked: usize,
}

/// What there is of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head<T> {
    /// Not yet all of it.
    Partial,
    /// All of it.
    Whole {
        /// What it says.
        head: T,
        /// How many bytes it has.
        length: usize,
    },
    /// It is longer than [`MAX_HEAD`], or has more than [`MAX_HEADERS`] headers.
    TooLarge,
    /// It is not read.
    Not(Reason),
}

/// What the head of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Method and target, one after the other; a target is cut off for telling.
    line: Box<str>,
    method: usize,
    minor: u8,
    framing: Framing,
    expects_continue: bool,
}

impl RequestHead {
    /// Reads the head that these bytes begin with. `scan` is a fresh one for each head; the bytes are those of the
    /// call before, and more.
    pub fn read(bytes: &[u8], scan: &mut Scan) -> Head<RequestHead> {
        // Whoever speaks another protocol need not wait until a head could have ended.
        match bytes.first() {
            None => return Head::Partial,
            // A handshake and its version: one byte says too little.
            Some(0x16) => {
                return match bytes.get(1) {
                    None => Head::Partial,
                    Some(3) => Head::Not(Reason::Tls),
                    Some(_) => Head::Not(Reason::NotHttp),
                };
            }
            Some(&first) if first != b'\r' && !is_token(first) => return Head::Not(Reason::NotHttp),
            Some(_) => {}
        }
        if bytes.len() < HTTP2.len() && HTTP2.starts_with(bytes) {
            return Head::Partial;
        }
        let empty_lines = bytes.chunks(2).take_while(|pair| *pair == b"\r\n").count() * 2;
        // Before anything behind it: what comes in pieces is judged as what comes at once.
        if is_other_line(&bytes[empty_lines..]) {
            return Head::Not(Reason::NotHttp);
        }
        let length = match find_end(bytes, scan, empty_lines) {
            Ok(Some(length)) => length,
            Ok(None) => return partial(bytes),
            Err(reason) => return Head::Not(reason),
        };
        if length > MAX_HEAD {
            return Head::TooLarge;
        }
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(&bytes[empty_lines..length], &mut headers);
        match parsed {
            Ok(httparse::Status::Complete(parsed)) if parsed == length - empty_lines => {}
            Err(httparse::Error::TooManyHeaders) => return Head::TooLarge,
            _ if bytes.starts_with(HTTP2) => return Head::Not(Reason::Http2),
            _ => return Head::Not(Reason::NotHttp),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Head::Not(Reason::NotHttp);
        };
        let fields = match Fields::of(request.headers, minor) {
            Ok(fields) => fields,
            Err(reason) => return Head::Not(reason),
        };
        let framing = fields.framing().unwrap_or(Framing::None);
        let told = target.floor_char_boundary_at(MAX_TOLD_TARGET);
        let mut line = String::with_capacity(method.len() + told);
        line.push_str(method);
        line.push_str(&target[..told]);
        let method = method.len();
        let expects_continue = fields.expects_continue && minor >= 1;
        let head = RequestHead { line: line.into(), method, minor, framing, expects_continue };
        Head::Whole { head, length }
    }

    /// `GET`, say.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.line[..self.method]
    }

    /// What is asked for, as it was written, cut off after [`MAX_TOLD_TARGET`] bytes.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.line[self.method..]
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    #[must_use]
    pub const fn minor_version(&self) -> u8 {
        self.minor
    }

    /// How its body ends.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client waits for a 100 before it sends the body.
    #[must_use]
    pub const fn expects_continue(&self) -> bool {
        self.expects_continue
    }
}

/// What the head of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    status: u16,
    framing: Option<Framing>,
    persistent: bool,
}

impl ResponseHead {
    /// Reads the head that these bytes begin with, as [`RequestHead::read`] does.
    pub fn read(bytes: &[u8], scan: &mut Scan) -> Head<ResponseHead> {
        if bytes.is_empty() {
            return Head::Partial;
        }
        if !b"HTTP/1.".iter().zip(bytes).all(|(expected, byte)| expected == byte) {
            return Head::Not(Reason::NotHttp);
        }
        let length = match find_end(bytes, scan, 0) {
            Ok(Some(length)) => length,
            Ok(None) => return partial(bytes),
            Err(reason) => return Head::Not(reason),
        };
        if length > MAX_HEAD {
            return Head::TooLarge;
        }
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, &bytes[..length], &mut headers);
        match parsed {
            Ok(httparse::Status::Complete(parsed)) if parsed == length => {}
            Err(httparse::Error::TooManyHeaders) => return Head::TooLarge,
            _ => return Head::Not(Reason::NotHttp),
        }
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Head::Not(Reason::NotHttp);
        };
        let fields = match Fields::of(response.headers, minor) {
            Ok(fields) => fields,
            Err(reason) => return Head::Not(reason),
        };
        let framing = fields.framing();
        if matches!(status, 100..=199 | 204) && !matches!(framing, None | Some(Framing::Length(0))) {
            return Head::Not(Reason::BodyForbidden);
        }
        let persistent = if minor == 0 { fields.keep_alive && !fields.close } else { !fields.close };
        Head::Whole { head: ResponseHead { status, framing, persistent }, length }
    }

    /// 200, say.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether another response follows for the same request.
    #[must_use]
    pub const fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// Whether what follows is another protocol: after 101, and where a CONNECT was granted.
    #[must_use]
    pub fn is_switch(&self, method: &str) -> bool {
        self.status == 101 || (method == "CONNECT" && matches!(self.status, 200..=299))
    }

    /// How its body ends when it answers this method (RFC 9112 section 6.3).
    #[must_use]
    pub fn framing(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Framing::None;
        }
        self.framing.unwrap_or(Framing::UntilClose)
    }

    /// Whether the server will take another request on this connection.
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        self.persistent
    }
}

/// A byte of a token (RFC 9110 section 5.6.2): of methods and of the names of headers.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the first line is whole and no request line of HTTP/1: of HTTP/0.9, say, or of a protocol of lines. Its
/// client waits for an answer, and sends nothing more.
fn is_other_line(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return false };
    let line = &bytes[..end];
    let broken = line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    !broken && !matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', _, b'.', _])
}

/// What is not all there yet, unless it is too long already.
fn partial<T>(bytes: &[u8]) -> Head<T> {
    if bytes.len() >= MAX_HEAD { Head::TooLarge } else { Head::Partial }
}

/// Where the head ends that begins at `start`, if it does. Every line must end in CR LF, and none may continue the
/// one before.
fn find_end(bytes: &[u8], scan: &mut Scan, start: usize) -> Result<Option<usize>, Reason> {
    let mut at = scan.looked.max(start);
    while let Some(step) = bytes[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        at += step;
        match bytes[at] {
            b'\n' => return Err(Reason::BareLf),
            0 => return Err(Reason::Nul),
            _ => {}
        }
        match bytes.get(at + 1..) {
            Some([b'\n', b'\r', b'\n', ..]) => return Ok(Some(at + 4)),
            Some([b'\n', b' ' | b'\t', ..]) => return Err(Reason::ObsFold),
            Some([b'\n', b'\r', _, ..]) => return Err(Reason::BareCr),
            Some([b'\n', b'\r'] | [b'\n'] | []) | None => {
                scan.looked = at;
                return Ok(None);
            }
            Some([b'\n', ..]) => at += 2,
            Some(_) => return Err(Reason::BareCr),
        }
    }
    scan.looked = bytes.len();
    Ok(None)
}

/// The headers that say how a message ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn of(headers: &[httparse::Header<'_>], minor: u8) -> Result<Fields, Reason> {
        let mut fields = Fields::default();
        for header in headers {
            let named = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                14 if named("content-length") => {
                    if fields.length.is_some() || header.value.contains(&b',') {
                        return Err(Reason::ManyLengths);
                    }
                    fields.length = Some(number(header.value).ok_or(Reason::BadLength)?);
                }
                17 if named("transfer-encoding") => {
                    if fields.chunked || minor == 0 || !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Reason::TransferEncoding);
                    }
                    fields.chunked = true;
                }
                10 if named("connection") => {
                    for token in header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        fields.close |= token.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                6 if named("expect") => {
                    fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
                }
                _ => {}
            }
        }
        if fields.chunked && fields.length.is_some() {
            return Err(Reason::BothLengths);
        }
        Ok(fields)
    }

    fn framing(&self) -> Option<Framing> {
        if self.chunked { Some(Framing::Chunked) } else { self.length.map(Framing::Length) }
    }
}

/// A plain decimal number: no sign, no blank.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// `str::floor_char_boundary`, which this crate's least Rust has not.
trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, most: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, most: usize) -> usize {
        (0..=most.min(self.len())).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}
