//! How far the two messages of an exchange have come.

use crate::http::{Body, Scan};

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
