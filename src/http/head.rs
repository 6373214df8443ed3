//! Heads: where they end, and what they say of the message behind them.

use std::mem::MaybeUninit;

use super::{Framing, Reason};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_TOLD_METHOD, MAX_TOLD_TARGET};

/// The first bytes of an HTTP/2 client (RFC 9113 section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How far an incomplete head was searched for its end, so that no byte is searched twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The length of the empty lines before the head.
    start: usize,
    /// Up to here there is no end.
    searched: usize,
    /// The first line was whole, and was checked.
    first_line: bool,
}

/// A head, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head<T> {
    /// It is not complete.
    Partial,
    /// It is complete.
    Whole {
        /// What it says.
        head: T,
        /// Its length in bytes.
        length: usize,
    },
    /// It is longer than [`MAX_HEAD`], or has more than [`MAX_HEADERS`] headers.
    TooLarge,
    /// It cannot be read, for this reason.
    Not(Reason),
}

/// Why a complete head cannot be read.
enum Unread {
    TooLarge,
    Not(Reason),
}

impl From<Reason> for Unread {
    fn from(reason: Reason) -> Unread {
        Unread::Not(reason)
    }
}

type Headers<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_HEADERS];

/// Reads the head that these bytes begin with: finds its end, and has it parsed once, when it is complete.
fn read<'b, T>(
    bytes: &'b [u8],
    scan: &mut Scan,
    is_first_line: fn(&[u8]) -> bool,
    parse: impl FnOnce(&'b [u8], &mut Headers<'b>) -> Result<T, Unread>,
) -> Head<T> {
    let length = match find_end(bytes, scan, is_first_line) {
        Ok(Some(length)) if length <= MAX_HEAD => length,
        Ok(None) if bytes.len() < MAX_HEAD => return Head::Partial,
        Ok(_) => return Head::TooLarge,
        Err(reason) => return Head::Not(reason),
    };
    match parse(&bytes[scan.start..length], &mut [const { MaybeUninit::uninit() }; MAX_HEADERS]) {
        Ok(head) => Head::Whole { head, length },
        Err(Unread::TooLarge) => Head::TooLarge,
        Err(Unread::Not(reason)) => Head::Not(reason),
    }
}

/// Whether the parser has read all of a head.
fn all_parsed(parsed: httparse::Result<usize>, length: usize) -> Result<(), Unread> {
    match parsed {
        Ok(httparse::Status::Complete(parsed)) if parsed == length => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(Unread::TooLarge),
        _ => Err(Unread::Not(Reason::NotHttp)),
    }
}

/// What the head of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, and behind it the target, which is cut off for events.
    line: String,
    method: usize,
    minor: u8,
    framing: Framing,
    expects_continue: bool,
    websocket: bool,
    persistent: bool,
    names_host: bool,
}

impl RequestHead {
    /// Reads the head that these bytes begin with. Each head needs a fresh `scan`; each call brings the bytes of the
    /// call before, and more.
    pub fn read(bytes: &[u8], scan: &mut Scan) -> Head<RequestHead> {
        RequestHead::read_into(bytes, scan, String::new)
    }

    /// As [`read`](RequestHead::read), with memory of a [used](RequestHead::take_memory) head.
    pub fn read_into(bytes: &[u8], scan: &mut Scan, memory: impl FnOnce() -> String) -> Head<RequestHead> {
        // Another protocol is told by its first bytes: its head might never end.
        match bytes {
            // A TLS handshake and its version: the first byte alone does not prove it.
            [] | [0x16] => return Head::Partial,
            [0x16, 3, ..] => return Head::Not(Reason::Tls),
            [first, ..] if *first != b'\r' && !is_token(*first) => return Head::Not(Reason::NotHttp),
            _ if bytes.starts_with(HTTP2) => return Head::Not(Reason::Http2),
            _ if HTTP2.starts_with(bytes) => return Head::Partial,
            _ => {}
        }
        while bytes[scan.start..].starts_with(b"\r\n") {
            scan.start += 2;
        }
        read(bytes, scan, is_request_line, |bytes, headers| {
            let mut request = httparse::Request::new(&mut []);
            all_parsed(request.parse_with_uninit_headers(bytes, headers), bytes.len())?;
            let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
            else {
                return Err(Reason::NotHttp.into());
            };
            let fields = Fields::of(request.headers, minor)?;
            let method = &method[..method.len().min(MAX_TOLD_METHOD)];
            let target = &target[..floor_char_boundary(target, MAX_TOLD_TARGET)];
            let mut line = memory();
            line.clear();
            line.reserve_exact(method.len() + target.len());
            line.extend([method, target]);
            Ok(RequestHead {
                line,
                method: method.len(),
                minor,
                framing: fields.framing().unwrap_or(Framing::None),
                expects_continue: fields.expects_continue && minor >= 1,
                websocket: fields.websocket && minor >= 1,
                persistent: fields.persistent(minor),
                names_host: !fields.ambiguous_host && (fields.host || minor == 0),
            })
        })
    }

    /// The method, such as `GET`, cut off after [`MAX_TOLD_METHOD`] bytes.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.line[..self.method]
    }

    /// The target as it was sent, cut off after [`MAX_TOLD_TARGET`] bytes.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.line[self.method..]
    }

    /// Forgets the query of the target: what is behind its `?`.
    pub fn forget_query(&mut self) {
        if let Some(query) = self.target().find('?') {
            self.line.truncate(self.method + query + 1);
        }
    }

    /// The minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    #[must_use]
    pub const fn minor_version(&self) -> u8 {
        self.minor
    }

    /// How the body ends.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client waits for a 100 before it sends the body.
    #[must_use]
    pub const fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the client wants to go on as a WebSocket (RFC 6455 section 4.1).
    #[must_use]
    pub const fn upgrades_to_websocket(&self) -> bool {
        self.websocket
    }

    /// Whether another request may follow on this connection (RFC 9112 section 9.3).
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether every server takes the request for the same host: there is one Host, and it is valid (RFC 9112 section 3.2).
    /// HTTP/1.0 needs none.
    #[must_use]
    pub const fn names_host(&self) -> bool {
        self.names_host
    }

    /// Whether the request may be sent twice (RFC 9110 section 9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Bytes of memory behind this value.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.line.capacity()
    }

    /// Its memory, for another head. Method and target are forgotten.
    pub fn take_memory(&mut self) -> String {
        self.method = 0;
        std::mem::take(&mut self.line)
    }
}

/// What the head of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    status: u16,
    framing: Option<Framing>,
    persistent: bool,
    binds_connection: bool,
}

impl ResponseHead {
    /// Reads the head that these bytes begin with, as [`RequestHead::read`] does.
    pub fn read(bytes: &[u8], scan: &mut Scan) -> Head<ResponseHead> {
        if !b"HTTP/1.".iter().zip(bytes).all(|(expected, byte)| expected == byte) {
            return Head::Not(Reason::NotHttp);
        }
        read(
            bytes,
            scan,
            |_| true,
            |bytes, headers| {
                let mut response = httparse::Response::new(&mut []);
                let config = httparse::ParserConfig::default();
                let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, headers);
                all_parsed(parsed, bytes.len())?;
                let (Some(status), Some(minor)) = (response.code, response.version) else {
                    return Err(Reason::NotHttp.into());
                };
                let fields = Fields::of(response.headers, minor)?;
                let framing = fields.framing();
                if matches!(status, 100..=199 | 204) && !matches!(framing, None | Some(Framing::Length(0))) {
                    return Err(Reason::BodyForbidden.into());
                }
                let persistent = fields.persistent(minor);
                Ok(ResponseHead { status, framing, persistent, binds_connection: fields.binds_connection })
            },
        )
    }

    /// The status code, such as 200.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether another response to the same request follows.
    #[must_use]
    pub const fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// Whether another protocol follows: after a 101, and after the 2xx that grants a CONNECT.
    #[must_use]
    pub fn is_switch(&self, method: &str) -> bool {
        self.status == 101 || (method == "CONNECT" && matches!(self.status, 200..=299))
    }

    /// How the body ends, as the answer to a request of this method (RFC 9112 section 6.3).
    #[must_use]
    pub fn framing(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Framing::None;
        }
        self.framing.unwrap_or(Framing::UntilClose)
    }

    /// Whether the server takes another request on this connection.
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether the server asks for a login that holds for all requests on its connection (RFC 4559 section 6).
    #[must_use]
    pub const fn binds_connection(&self) -> bool {
        self.binds_connection
    }
}

/// The fields of a head that was read: their names and values.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        // A request line has a blank before its first colon.
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        name.iter().copied().all(is_token).then(|| (name, value.trim_ascii()))
    })
}

/// Whether this byte may stand in a token (RFC 9110 section 5.6.2): a method, or the name of a header.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this byte may stand in a host and its port (RFC 3986 section 3.2.2).
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// Whether this line ends as a request line of HTTP/1 does. A client of HTTP/0.9, or of another protocol of lines,
/// waits for its answer behind the first line, and its head would never end.
fn is_request_line(line: &[u8]) -> bool {
    matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', _, b'.', _])
}

/// The length of the head, if it is complete. Every line must end in CR LF, and no line may continue the one before.
fn find_end(
    bytes: &[u8],
    scan: &mut Scan,
    is_first_line: fn(&[u8]) -> bool,
) -> Result<Option<usize>, Reason> {
    let mut at = scan.searched.max(scan.start);
    while let Some(step) = find_line_end(&bytes[at..]) {
        at += step;
        match bytes[at] {
            b'\n' => return Err(Reason::BareLf),
            0 => return Err(Reason::Nul),
            _ => {}
        }
        if !scan.first_line && bytes.get(at + 1) == Some(&b'\n') {
            // This comes before anything behind the line, so that bytes are judged alike however they are cut.
            if !is_first_line(&bytes[scan.start..at]) {
                return Err(Reason::NotHttp);
            }
            scan.first_line = true;
        }
        match bytes.get(at + 1..) {
            Some([b'\n', b'\r', b'\n', ..]) => return Ok(Some(at + 4)),
            Some([b'\n', b' ' | b'\t', ..]) => return Err(Reason::ObsFold),
            Some([b'\n', b'\r', _, ..]) => return Err(Reason::BareCr),
            Some([b'\n', b'\r'] | [b'\n'] | []) | None => {
                scan.searched = at;
                return Ok(None);
            }
            Some([b'\n', ..]) => at += 2,
            Some(_) => return Err(Reason::BareCr),
        }
    }
    scan.searched = bytes.len();
    Ok(None)
}

/// The position of the first CR, LF or NUL. Eight bytes are looked at together: byte by byte, this took a tenth of all
/// instructions that an exchange costs.
fn find_line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xFF;
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*word);
        // The highest bit of each byte below 14; of those behind the first one perhaps without cause.
        let low = word.wrapping_sub(ONES * 14) & !word & (ONES << 7);
        at += low.trailing_zeros() as usize / 8;
        if low != 0 {
            if is_line_end(bytes[at]) {
                return Some(at);
            }
            at += 1;
        }
    }
    bytes[at..].iter().position(|byte| is_line_end(*byte)).map(|step| at + step)
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0)
}

/// The headers that say how a message ends, and whether another may follow.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    websocket: bool,
    binds_connection: bool,
    host: bool,
    /// There is more than one, or it is no host and port.
    ambiguous_host: bool,
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
                4 if named("host") => {
                    fields.ambiguous_host |=
                        fields.host || !header.value.iter().all(|&byte| is_of_host(byte));
                    fields.host = true;
                }
                7 if named("upgrade") => {
                    fields.websocket |= header.value.eq_ignore_ascii_case(b"websocket");
                }
                6 if named("expect") => {
                    fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
                }
                16 | 18 if named("www-authenticate") || named("proxy-authenticate") => {
                    let scheme = |name: &[u8]| {
                        header.value.get(..name.len()).is_some_and(|value| value.eq_ignore_ascii_case(name))
                    };
                    fields.binds_connection |= scheme(b"negotiate") || scheme(b"ntlm");
                }
                _ => {}
            }
        }
        if fields.chunked && fields.length.is_some() {
            return Err(Reason::BothLengths);
        }
        Ok(fields)
    }

    const fn persistent(&self, minor: u8) -> bool {
        !self.close && (minor >= 1 || self.keep_alive)
    }

    fn framing(&self) -> Option<Framing> {
        if self.chunked { Some(Framing::Chunked) } else { self.length.map(Framing::Length) }
    }
}

/// A decimal number without sign or blanks.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// `str::floor_char_boundary`, which the oldest supported Rust does not have.
fn floor_char_boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{find_line_end, is_line_end};

    #[test]
    fn the_first_line_end_is_found_wherever_it_stands_and_whatever_stands_around_it() {
        for length in 0..20 {
            for place in 0..length {
                for (byte, around) in
                    (0..=255).flat_map(|byte| [9, 14, b'a', 127, 128, 255].map(|a| (byte, a)))
                {
                    let mut bytes = vec![around; length];
                    bytes[place] = byte;
                    bytes[(place * 7 + 3) % length] = byte;
                    let expected = bytes.iter().position(|byte| is_line_end(*byte));
                    assert_eq!(find_line_end(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }
}
