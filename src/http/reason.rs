//! Reasons why a connection is not followed.

use std::fmt;

/// Why a message is not read: it could be read in two ways, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A TLS handshake, whose contents cannot be read.
    Tls,
    /// The preface of HTTP/2.
    Http2,
    /// Anything but a head of HTTP/1.0 or 1.1.
    NotHttp,
    /// A CR without its LF.
    BareCr,
    /// An LF without its CR.
    BareLf,
    /// A NUL in a head.
    Nul,
    /// A header that continues in the next line.
    ObsFold,
    /// Content-Length beside Transfer-Encoding.
    BothLengths,
    /// More than one Content-Length, or a list in it.
    ManyLengths,
    /// A Content-Length that is not a plain number below 2^64.
    BadLength,
    /// A Transfer-Encoding that is not exactly `chunked`, or one in HTTP/1.0.
    TransferEncoding,
    /// A length or coding on a response that has no body (1xx, 204).
    BodyForbidden,
    /// A chunk size that is not a plain hexadecimal number below 2^63, or a chunk extension that is too long.
    ChunkSize,
    /// A chunk that does not end where its size says.
    ChunkEnd,
    /// A trailer that is not a header, or trailers that are too long.
    Trailer,
    /// The head of a response is longer than [`MAX_HEAD`](crate::limits::MAX_HEAD), or has more headers than
    /// [`MAX_HEADERS`](crate::limits::MAX_HEADERS).
    ResponseHead,
    /// A response without a request.
    Unsolicited,
}

impl Reason {
    /// All reasons, in the order of the variants.
    pub const ALL: [Reason; 17] = [
        Reason::Tls,
        Reason::Http2,
        Reason::NotHttp,
        Reason::BareCr,
        Reason::BareLf,
        Reason::Nul,
        Reason::ObsFold,
        Reason::BothLengths,
        Reason::ManyLengths,
        Reason::BadLength,
        Reason::TransferEncoding,
        Reason::BodyForbidden,
        Reason::ChunkSize,
        Reason::ChunkEnd,
        Reason::Trailer,
        Reason::ResponseHead,
        Reason::Unsolicited,
    ];

    /// The name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Tls => "tls",
            Reason::Http2 => "http2",
            Reason::NotHttp => "not_http",
            Reason::BareCr => "bare_cr",
            Reason::BareLf => "bare_lf",
            Reason::Nul => "nul",
            Reason::ObsFold => "obs_fold",
            Reason::BothLengths => "both_lengths",
            Reason::ManyLengths => "many_lengths",
            Reason::BadLength => "bad_length",
            Reason::TransferEncoding => "transfer_encoding",
            Reason::BodyForbidden => "body_forbidden",
            Reason::ChunkSize => "chunk_size",
            Reason::ChunkEnd => "chunk_end",
            Reason::Trailer => "trailer",
            Reason::ResponseHead => "response_head",
            Reason::Unsolicited => "unsolicited",
        }
    }

    /// Whether the bytes are another protocol, and not HTTP that is ambiguous.
    #[must_use]
    pub const fn is_another_protocol(self) -> bool {
        matches!(self, Reason::Tls | Reason::Http2)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
