//! Random conversations. Their ends are known because they were generated, not because they were read.

use proptest::prelude::*;

/// How a response ends its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Another may follow.
    Whole,
    /// It is the last.
    Last,
    /// With its connection.
    WithConnection,
    /// It is the beginning of another protocol.
    Switch,
}

/// A request and its response.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) request: Vec<u8>,
    pub(super) minor: u8,
    /// It must not be gathered: the client waits for a 100, or the end may be far away.
    pub(super) streams: bool,
    /// So many bytes the server reads before it answers.
    pub(super) answers_at: usize,
    pub(super) response: Vec<u8>,
    /// Here the final response's head ends.
    pub(super) begun_at: usize,
    /// Here the sizes of its chunks begin.
    pub(super) sizes_at: Vec<usize>,
    pub(super) ends: Ends,
}

#[derive(Clone, Debug)]
enum Shape {
    None,
    Length(usize),
    Chunked { sizes: Vec<usize>, extended: bool, trailers: usize },
}

impl Shape {
    fn header(&self) -> String {
        match self {
            Shape::None => String::new(),
            Shape::Length(length) => format!("content-length: {length}\r\n"),
            Shape::Chunked { .. } => "Transfer-Encoding: chunked\r\n".to_owned(),
        }
    }

    fn body(&self) -> Vec<u8> {
        self.body_and_sizes().0
    }

    /// The body, and where in it the sizes of chunks begin.
    fn body_and_sizes(&self) -> (Vec<u8>, Vec<usize>) {
        match self {
            Shape::None => Default::default(),
            Shape::Length(length) => (filler(*length), Vec::new()),
            Shape::Chunked { sizes, extended, trailers } => {
                let (mut body, mut sizes_at) = (Vec::new(), Vec::new());
                for size in sizes {
                    sizes_at.push(body.len());
                    let extension = if *extended { ";a=\"b c\"" } else { "" };
                    body.extend_from_slice(format!("{size:x}{extension}\r\n").as_bytes());
                    body.extend_from_slice(&filler(*size));
                    body.extend_from_slice(b"\r\n");
                }
                sizes_at.push(body.len());
                body.extend_from_slice(b"000\r\n");
                body.extend_from_slice(&b"Digest: none\r\n".repeat(*trailers));
                body.extend_from_slice(b"\r\n");
                (body, sizes_at)
            }
        }
    }
}

/// Bytes that look like everything that they are not.
fn filler(length: usize) -> Vec<u8> {
    let pattern = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\0\n\r\r";
    pattern.iter().copied().cycle().take(length).collect()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_usize..90, 1 => 4_000_usize..5_000]
}

fn shape() -> impl Strategy<Value = Shape> {
    let sizes = prop::collection::vec(1_usize..60, 0..4);
    prop_oneof![
        2 => Just(Shape::None),
        3 => length().prop_map(Shape::Length),
        3 => (sizes, any::<bool>(), 0_usize..3)
            .prop_map(|(sizes, extended, trailers)| Shape::Chunked { sizes, extended, trailers }),
    ]
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    NoContent,
    NotModified,
    Closed,
    Old,
    OldButKept,
    WithConnection,
    Switch,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        16 => Just(Fate::Answered),
        2 => Just(Fate::NoContent),
        2 => Just(Fate::NotModified),
        2 => Just(Fate::OldButKept),
        1 => Just(Fate::Closed),
        1 => Just(Fate::Old),
        1 => Just(Fate::WithConnection),
        1 => Just(Fate::Switch),
    ]
}

pub(super) fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "GET", "HEAD", "POST", "PUT", "M-SEARCH", "CONNECT"]);
    let request = (method, shape(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    let versions = (prop::bool::weighted(0.15), prop::bool::weighted(0.1));
    let early = (prop::bool::weighted(0.4), 0_usize..1_000);
    let response = (fate(), shape(), prop_oneof![4 => Just(0_usize), 1 => 1_usize..3]);
    (request, versions, early, response)
        .prop_map(|(request, versions, early, response)| build(request, versions, early, response))
}

fn build(
    (method, shape, blank, expects): (&str, Shape, bool, bool),
    (old, closes): (bool, bool),
    (early, early_at): (bool, usize),
    (fate, answer, interims): (Fate, Shape, usize),
) -> Exchange {
    let minor = u8::from(!old);
    let shape = if old && matches!(shape, Shape::Chunked { .. }) { Shape::Length(7) } else { shape };
    let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
    let connection = match (old, closes) {
        (true, false) => "Connection: keep-alive\r\n",
        (false, true) => "Connection: close\r\n",
        _ => "",
    };
    let lines = if blank { "\r\n" } else { "" };
    let head = format!(
        "{lines}{method} /{method} HTTP/1.{minor}\r\n{}{expect}{connection}Host: a\r\n\r\n",
        shape.header()
    );
    let mut request = head.clone().into_bytes();
    request.extend_from_slice(&shape.body());
    // A server that waits for a body answers at the earliest when it has the head.
    let answers_at =
        if early { head.len() + early_at % (request.len() - head.len() + 1) } else { request.len() };

    let mut response = b"HTTP/1.1 103 Hints\r\nLink: </>\r\n\r\n".repeat(interims);
    let connect = method == "CONNECT";
    let status = if connect { "403 No" } else { "200 OK" };
    // A body that is neither given nor forbidden would end with the connection.
    let answer = if matches!(answer, Shape::None) { Shape::Length(0) } else { answer };
    let old_answer = if let Shape::Chunked { .. } = answer { Shape::Length(3) } else { answer.clone() };
    let (line, body, ends) = match fate {
        Fate::Answered => (format!("1.1 {status}\r\n"), answer, Ends::Whole),
        // Every 2xx grants a CONNECT.
        Fate::NoContent if connect => ("1.1 204 No Content\r\n".to_owned(), Shape::None, Ends::Switch),
        Fate::NoContent => ("1.1 204 No Content\r\n".to_owned(), Shape::None, Ends::Whole),
        Fate::NotModified => {
            ("1.1 304 Not Modified\r\nContent-Length: 77\r\n".to_owned(), Shape::None, Ends::Whole)
        }
        Fate::Closed => (format!("1.1 {status}\r\nConnection: x, Close\r\n"), answer, Ends::Last),
        Fate::Old => (format!("1.0 {status}\r\n"), old_answer, Ends::Last),
        Fate::OldButKept => (format!("1.0 {status}\r\nConnection: keep-alive\r\n"), old_answer, Ends::Whole),
        Fate::WithConnection => (format!("1.1 {status}\r\n"), Shape::None, Ends::WithConnection),
        Fate::Switch if connect => ("1.1 200 Granted\r\n".to_owned(), Shape::None, Ends::Switch),
        Fate::Switch => ("1.1 101 Switching\r\nUpgrade: x\r\n".to_owned(), Shape::None, Ends::Switch),
    };
    response.extend_from_slice(format!("HTTP/{line}{}\r\n", body.header()).as_bytes());
    let begun_at = response.len();
    let head_only = method == "HEAD";
    let ends = if head_only && ends == Ends::WithConnection { Ends::Whole } else { ends };
    let ends = if closes && ends == Ends::Whole { Ends::Last } else { ends };
    let mut sizes_at = Vec::new();
    if ends == Ends::WithConnection {
        response.extend_from_slice(&filler(40));
    } else if !head_only {
        let (body, sizes) = body.body_and_sizes();
        response.extend_from_slice(&body);
        sizes_at = sizes.into_iter().map(|at| begun_at + at).collect();
    }
    let streams = (expects && !old) || matches!(shape, Shape::Chunked { .. });
    Exchange { request, minor, streams, answers_at, response, begun_at, sizes_at, ends }
}
