//! Reasons why a connection is not followed.

use std::fmt;

words! {
    /// Why a message is not read: it could be read in two ways, or not at all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Reason {
        /// A TLS handshake, whose contents cannot be read.
        Tls = "tls",
        /// The preface of HTTP/2.
        Http2 = "http2",
        /// Anything but a head of HTTP/1.0 or 1.1.
        NotHttp = "not_http",
        /// A CR without its LF.
        BareCr = "bare_cr",
        /// An LF without its CR.
        BareLf = "bare_lf",
        /// A NUL in a head.
        Nul = "nul",
        /// A header that continues in the next line.
        ObsFold = "obs_fold",
        /// Content-Length beside Transfer-Encoding.
        BothLengths = "both_lengths",
        /// More than one Content-Length, or a list in it.
        ManyLengths = "many_lengths",
        /// A Content-Length that is not a plain number below 2^64.
        BadLength = "bad_length",
        /// A Transfer-Encoding that is not exactly `chunked`, or one in HTTP/1.0.
        TransferEncoding = "transfer_encoding",
        /// A request of HTTP/1.1 without a Host, or with more than one, or one that is no host and port. It is followed all the
        /// same, unless what is ambiguous is refused.
        Host = "host",
        /// A length or coding on a response that has no body (1xx, 204).
        BodyForbidden = "body_forbidden",
        /// A chunk size that is not a plain hexadecimal number below 2^63, or a chunk extension that is too long.
        ChunkSize = "chunk_size",
        /// A chunk that does not end where its size says.
        ChunkEnd = "chunk_end",
        /// A trailer that is not a header, or trailers that are too long.
        Trailer = "trailer",
        /// The head of a response is longer than [`MAX_HEAD`](crate::limits::MAX_HEAD), or has more headers than
        /// [`MAX_HEADERS`](crate::limits::MAX_HEADERS).
        ResponseHead = "response_head",
        /// A response without a request.
        Unsolicited = "unsolicited",
    }
}

impl Reason {
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
