//! An exchange, and how far its two messages have come.

use crate::http::{Body, RequestHead, Scan, fields};
use crate::limits::{MAX_SPARE, MAX_SPARE_BYTES, MAX_TOLD_TARGET};
use crate::time::Instant;

/// How much of a request has come.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Nothing: the PROXY header comes first.
    Header,
    /// Nothing, or a part of its head.
    Head(Scan),
    /// Its head and a part of its body. While it is gathered, the upstream sees none of it.
    Body { body: Body, gathering: bool },
    /// All of it.
    Whole,
}

impl Default for Request {
    fn default() -> Request {
        Request::Head(Scan::default())
    }
}

/// How much of a response has come.
#[derive(Clone, Debug)]
pub(super) enum Response {
    /// The upstream was not asked for one.
    None,
    /// Nothing, or a part of its head.
    Head(Scan),
    /// Its head and a part of its body.
    Body(Body),
    /// All of it, before the request was whole.
    Whole,
}

impl Default for Response {
    fn default() -> Response {
        Response::Head(Scan::default())
    }
}

/// A request and its response, so far.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) head: RequestHead,
    pub(super) began: Instant,
    /// The length of the request's head, which is part of `request_bytes`.
    pub(super) head_bytes: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// Of those, bytes of heads.
    pub(super) response_heads: u64,
    /// What only the access log has, if there is one.
    pub(super) fields: Option<Box<LoggedFields>>,
    /// The status of the final response.
    pub(super) status: Option<u16>,
    /// Interim responses of the upstream.
    pub(super) interim: u8,
    /// When the first byte of the final response was passed on.
    pub(super) answered_at: Option<Instant>,
    /// Whether the upstream takes another request after this one.
    pub(super) persistent: bool,
    /// The request, as long as it may have to be sent again: on a reused connection, until the response begins.
    pub(super) copy: Vec<u8>,
    /// Some of it was sent to an upstream.
    pub(super) sent: bool,
}

impl Exchange {
    /// Bytes of memory that the client makes it keep.
    pub(super) fn memory(&self) -> usize {
        let fields = self.fields.as_ref().map_or(0, |fields| fields.holds());
        self.head.holds() + self.copy.capacity() + fields
    }
}

/// Fields of a request that only the access log has.
#[derive(Clone, Debug, Default)]
pub(super) struct LoggedFields {
    pub(super) referer: Option<Box<str>>,
    pub(super) user_agent: Option<Box<str>>,
}

impl LoggedFields {
    /// Those of a head, which [`RequestHead::read`] has read.
    pub(super) fn of(head: &[u8], log_query: bool) -> LoggedFields {
        let mut found = LoggedFields::default();
        for (name, value) in fields(head) {
            let place = match name.len() {
                7 if name.eq_ignore_ascii_case(b"referer") => &mut found.referer,
                10 if name.eq_ignore_ascii_case(b"user-agent") => &mut found.user_agent,
                _ => continue,
            };
            let mut value = &value[..value.len().min(MAX_TOLD_TARGET)];
            if !log_query && name.len() == 7 {
                value = value.split_inclusive(|&byte| byte == b'?').next().unwrap_or(value);
            }
            *place = Some(String::from_utf8_lossy(value).into());
        }
        found
    }

    /// Bytes of memory behind this value.
    pub(super) fn holds(&self) -> usize {
        [&self.referer, &self.user_agent].into_iter().flatten().map(|value| value.len()).sum()
    }
}

/// Memory of what is over, for what comes: in its steady state a thread allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Spare {
    bytes: Vec<Vec<u8>>,
    #[allow(clippy::vec_box)] // the boxes are what is kept
    exchanges: Vec<Box<Exchange>>,
}

impl Spare {
    /// Keeps the memory of a request that was sent, if it was an ordinary one.
    pub(super) fn keep_bytes(&mut self, mut bytes: Vec<u8>) {
        if (1..=MAX_SPARE_BYTES).contains(&bytes.capacity()) && self.bytes.len() < MAX_SPARE {
            bytes.clear();
            self.bytes.push(bytes);
        }
    }

    /// Memory for a request.
    pub(super) fn bytes(&mut self) -> Vec<u8> {
        self.bytes.pop().unwrap_or_default()
    }

    pub(super) fn keep(&mut self, mut exchange: Box<Exchange>) {
        if self.exchanges.len() < MAX_SPARE {
            exchange.fields = None;
            self.keep_bytes(std::mem::take(&mut exchange.copy));
            self.exchanges.push(exchange);
        }
    }

    /// Memory for the line of the next exchange.
    pub(super) fn line(&mut self) -> String {
        self.exchanges.last_mut().map(|exchange| exchange.head.take_memory()).unwrap_or_default()
    }

    pub(super) fn boxed(&mut self, exchange: Exchange) -> Box<Exchange> {
        match self.exchanges.pop() {
            Some(mut place) => {
                *place = exchange;
                place
            }
            None => Box::new(exchange),
        }
    }
}
