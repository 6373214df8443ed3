//! Sockets that carry out effects, record them, and refuse what no socket could do.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::http::{Forwarded, Reason};
use crate::limits::FIRST_QUESTION;
use crate::liveness::Cause;
use crate::proxy::access::Logged;
use crate::proxy::event::{Answered, Failure, Interrupted, Phase, ProbeOutcome, ProxyEvent, UpstreamFailed};
use crate::proxy::proxy_protocol::Named;
use crate::proxy::session::reply::PROBE;
use crate::proxy::session::{
    Context, Effect, Effects, End, HalfClose, HoldBudget, OnGone, Reuse, Rules, Session, SessionFact, Side,
};
use crate::time::Instant;

/// The address of each client.
pub(super) const CLIENT: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));

/// Rules of the examples: everything short enough to be told from everything else.
pub(super) const RULES: Rules = Rules {
    http: true,
    accept_proxy: false,
    strict: false,
    half_close: HalfClose::Probe,
    on_gone: OnGone::Reset,
    pool: false,
    request_buffer: 4 * 1024,
    head_timeout: secs(10),
    body_timeout: secs(20),
    keepalive_timeout: secs(10_000),
    response_timeout: Some(secs(60)),
    forwarded: Forwarded::Off,
    log: true,
    log_query: true,
};

/// What has become of the client's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientSocket {
    #[default]
    Open,
    /// We sent a FIN, and may still read.
    Finned,
    /// It is ended once it has taken all, and closed after its own FIN.
    Finishing(End),
    Ended(End),
}

/// What has become of the upstream's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UpstreamSocket {
    #[default]
    None,
    Connecting,
    Open,
    /// We sent a FIN, and may still read.
    Finned,
    Ended(End),
    /// It was given back, and may carry other exchanges if this is true.
    Released(bool),
}

/// Everything that was decided, and the sockets that it was decided about.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) client: ClientSocket,
    pub(super) upstream: UpstreamSocket,
    pub(super) to_client: Vec<u8>,
    pub(super) to_upstream: Vec<u8>,
    /// All that was sent to the client but the questions, of which there were so many.
    pub(super) relayed: Vec<u8>,
    pub(super) probes: usize,
    /// What was told, but for the answers.
    pub(super) told: Vec<ProxyEvent>,
    /// The answers of ours that were told for no other event.
    pub(super) answered: Vec<Answered>,
    /// The clients that PROXY headers have named.
    pub(super) named: Vec<Named>,
    /// The lines of the access log.
    pub(super) logged: Vec<Logged>,
    /// The status of the answer that was told and is to be sent next.
    announced: Option<u16>,
    /// The next message of ours is a probe.
    asking: bool,
    /// The number of probes, and how many of them found the client gone, and how many found it there.
    pub(super) questions: [usize; 3],
    /// Whether the upstream works, as far as it was judged.
    pub(super) judged: Vec<Option<Failure>>,
    /// Whether the client's kernel answers.
    pub(super) acknowledges: bool,
    /// Whether the upstream's kernel answers.
    pub(super) delivered: bool,
    /// Bytes of requests that may still be held.
    pub(super) room: usize,
    /// Whether there are idle connections: at the next connects, from the last bit on.
    pub(super) idle: u8,
    /// Connects that took an idle connection, and requests that were sent again.
    pub(super) reused: usize,
    pub(super) repeated: usize,
    /// How many bytes the last send of held bytes has brought the upstream.
    pub(super) last_sent: usize,
    /// Whether an upstream that failed had received some of its request.
    pub(super) received: bool,
}

impl Sockets {
    /// Does what a socket would do, and refuses what no socket could. Returns the fact that this leads to.
    fn carry_out(&mut self, effect: Effect, fed: &[u8]) -> Option<SessionFact<'static>> {
        let mut fact = None;
        match effect {
            Effect::PassToClient(range) => self.send_to_client(&fed[range]),
            Effect::PassToUpstream(range) => self.send_to_upstream(&fed[range]),
            Effect::SendToClient(held) => self.send_to_client(&held),
            Effect::SendToUpstream(held) => {
                self.send_to_upstream(&held);
                self.last_sent = held.len();
            }
            Effect::Reply(message) => {
                assert!(self.client_is_open() && !message.is_empty());
                self.to_client.extend_from_slice(message);
                if std::mem::take(&mut self.asking) {
                    self.probes += 1;
                } else {
                    let status = our_answer(message, true).map(|(status, _)| status);
                    assert_eq!(self.announced.take(), status, "an answer that was not told");
                    self.relayed.extend_from_slice(message);
                }
            }
            Effect::Connect(reuse) => {
                use UpstreamSocket::{Ended, None, Released};
                assert!(matches!(self.upstream, None | Ended(_) | Released(_)), "one upstream at a time");
                assert_eq!(self.client, ClientSocket::Open, "a connect without a client");
                self.upstream = UpstreamSocket::Connecting;
                self.repeated += usize::from(reuse == Reuse::Repeat);
                if matches!(reuse, Reuse::Idle | Reuse::Young) {
                    if self.idle & 1 == 1 {
                        self.upstream = UpstreamSocket::Open;
                        self.reused += 1;
                        fact = Some(SessionFact::Connected { reused: true });
                    }
                    self.idle = self.idle.rotate_right(1);
                }
            }
            Effect::ReleaseUpstream { reusable } => {
                let whole = self.upstream == UpstreamSocket::Open;
                assert!(whole || !reusable && self.upstream == UpstreamSocket::Finned, "{:?}", self.upstream);
                self.upstream = UpstreamSocket::Released(reusable);
            }
            Effect::CheckReceived { bytes, failure } => {
                assert_eq!(bytes, self.last_sent, "the last that was sent");
                fact = Some(SessionFact::Received(self.received, failure));
            }
            Effect::ShutdownClient => {
                assert_eq!(self.client, ClientSocket::Open, "a second FIN");
                self.client = ClientSocket::Finned;
            }
            Effect::ShutdownUpstream => {
                assert_eq!(self.upstream, UpstreamSocket::Open, "a FIN for an upstream that is not open");
                self.upstream = UpstreamSocket::Finned;
            }
            Effect::FinishClient(how) => {
                assert!(
                    matches!(self.client, ClientSocket::Open | ClientSocket::Finned),
                    "{:?}",
                    self.client
                );
                self.client = ClientSocket::Finishing(how);
            }
            Effect::EndClient(how) => {
                assert!(!matches!(self.client, ClientSocket::Ended(_)), "ended twice");
                self.client = ClientSocket::Ended(how);
            }
            Effect::EndUpstream(how) => {
                use UpstreamSocket::{Connecting, Finned, Open};
                assert!(matches!(self.upstream, Connecting | Open | Finned), "{:?} ended", self.upstream);
                self.upstream = UpstreamSocket::Ended(how);
            }
            Effect::CheckAcknowledged(side) => {
                assert!(!matches!(self.client, ClientSocket::Ended(_)), "a check for a client that is gone");
                fact = Some(SessionFact::Acknowledged(match side {
                    Side::Client => self.acknowledges,
                    Side::Upstream => self.delivered,
                }));
            }
            Effect::JudgeUpstream(failure) => self.judged.push(failure),
            Effect::Probed(outcome) => {
                self.questions[outcome as usize] += 1;
                self.asking = outcome == ProbeOutcome::Asked;
                let [asked, gone, here] = self.questions;
                assert!(gone + here <= asked, "an answer to no question");
            }
            Effect::Report(ProxyEvent::Answered(answered)) => {
                self.announced = Some(answered.refusal.status());
                self.answered.push(*answered);
            }
            Effect::Log(logged) => self.logged.push(*logged),
            Effect::Name(named) => self.named.push(named),
            Effect::Report(event) => {
                if let ProxyEvent::UpstreamFailed(failed) = &event {
                    self.announced = failed.answered;
                }
                self.told.push(event);
            }
        }
        fact
    }

    fn budget(&self) -> HoldBudget {
        HoldBudget { heads: self.room, bodies: self.room }
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        assert!(self.client_is_open(), "bytes for a client that is not there any more");
        assert!(!bytes.is_empty(), "a send of nothing");
        self.to_client.extend_from_slice(bytes);
        self.relayed.extend_from_slice(bytes);
    }

    fn client_is_open(&self) -> bool {
        self.client == ClientSocket::Open
    }

    fn send_to_upstream(&mut self, bytes: &[u8]) {
        assert_eq!(self.upstream, UpstreamSocket::Open, "bytes for an upstream that does not take them");
        assert!(!bytes.is_empty(), "a send of nothing");
        self.to_upstream.extend_from_slice(bytes);
    }
}

/// A session, its sockets and its clock.
#[derive(Debug)]
pub(super) struct World {
    pub(super) session: Session,
    pub(super) sockets: Sockets,
    pub(super) rules: Rules,
    pub(super) now: Instant,
    /// What the last fact has led to.
    pub(super) effects: Vec<Effect>,
}

impl World {
    pub(super) fn new(rules: Rules) -> World {
        let mut sockets = Sockets {
            client: ClientSocket::Open,
            upstream: UpstreamSocket::None,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            relayed: Vec::new(),
            probes: 0,
            told: Vec::new(),
            answered: Vec::new(),
            named: Vec::new(),
            logged: Vec::new(),
            announced: None,
            asking: false,
            questions: [0; 3],
            judged: Vec::new(),
            acknowledges: true,
            delivered: true,
            room: usize::MAX,
            idle: 0,
            reused: 0,
            repeated: 0,
            last_sent: 0,
            received: true,
        };
        let now = Instant::from_nanos(1_000_000);
        let (budget, mut effects) = (sockets.budget(), Effects::default());
        let session =
            Session::new(&mut Context { rules: &rules, now, client: CLIENT, budget, effects: &mut effects });
        while let Some(effect) = effects.poll_effect() {
            sockets.carry_out(effect, &[]);
        }
        World { session, sockets, rules, now, effects: Vec::new() }
    }

    /// Hands over a fact, and carries out what is decided.
    pub(super) fn feed(&mut self, fact: SessionFact<'_>) -> &mut World {
        let fed = match fact {
            SessionFact::ClientBytes(bytes) | SessionFact::UpstreamBytes(bytes) => bytes,
            _ => &[],
        };
        self.effects.clear();
        let gone = matches!(self.sockets.client, ClientSocket::Ended(_));
        let mut fact = Some(fact);
        while let Some(next) = fact.take() {
            let (budget, mut effects) = (self.sockets.budget(), Effects::default());
            let context = &mut Context {
                rules: &self.rules,
                now: self.now,
                client: CLIENT,
                budget,
                effects: &mut effects,
            };
            self.session.handle(next, context);
            while let Some(effect) = effects.poll_effect() {
                self.effects.push(effect.clone());
                let led_to = self.sockets.carry_out(effect, fed);
                assert!(fact.is_none() || led_to.is_none(), "two facts at once");
                fact = fact.or(led_to);
            }
        }
        self.audit();
        self.audit_log(gone);
        self
    }

    /// Every exchange that the last fact has ended has its line, and one only.
    fn audit_log(&self, gone: bool) {
        let over = |effect: &&Effect| match effect {
            // The line of a client that is gone was written when it left.
            Effect::Report(ProxyEvent::UpstreamFailed(_)) => !gone,
            Effect::Report(ProxyEvent::NotFollowed { .. }) | Effect::Log(_) => false,
            effect => matches!(effect, Effect::Report(_)),
        };
        let is_line = |effect: &&Effect| matches!(effect, Effect::Log(_));
        let count = |is: &dyn Fn(&&Effect) -> bool| self.effects.iter().filter(is).count();
        let (lines, over) = (count(&is_line), count(&over));
        let not_followed = count(&|effect| matches!(effect, Effect::Report(ProxyEvent::NotFollowed { .. })));
        let over = if self.rules.log { over } else { 0 };
        if self.phase() != Phase::Tunnel && not_followed == 0 {
            assert_eq!(lines, over, "{:?}", self.effects);
        }
        if !matches!(self.sockets.client, ClientSocket::Open | ClientSocket::Finned) {
            assert!(!self.session.unlogged, "ended without a line");
        }
    }

    /// What must hold after every fact.
    fn audit(&mut self) {
        use {ClientSocket as C, UpstreamSocket as U};
        assert_eq!(self.sockets.questions[0], self.sockets.probes, "a question that was not asked");
        assert_eq!(self.sockets.announced, None, "an answer that was told and not sent");
        let no_upstream = matches!(self.sockets.upstream, U::None | U::Ended(_) | U::Released(_));
        match self.sockets.client {
            C::Open | C::Finned => {}
            C::Finishing(_) => {
                assert!(no_upstream, "an upstream works for a client that is finished");
                assert_eq!(self.session.holds(), 0, "bytes that will never be sent");
            }
            C::Ended(_) if no_upstream => {
                assert_eq!(self.session.deadline(&self.rules), None, "no client is left to be judged");
            }
            C::Ended(_) => {
                assert_eq!(self.rules.on_gone, OnGone::Ignore, "an upstream works for a client that is gone");
                assert_ne!(self.sockets.upstream, U::Connecting, "a connect for one that is gone");
                assert_ne!(self.session.phase(), Phase::Idle, "kept without a client");
                let waits = self.session.phase() == Phase::Tunnel && self.sockets.upstream == U::Open;
                assert!(!waits, "an upstream that waits for ever for bytes of one that is gone");
            }
        }
        if let U::Ended(_) | U::Released(_) = self.sockets.upstream {
            assert!(
                matches!(self.sockets.client, C::Finishing(_) | C::Ended(_))
                    || matches!(self.phase(), Phase::Idle | Phase::Receiving),
                "a client whose upstream is over"
            );
        }
        if let C::Finishing(_) = self.sockets.client {
            assert_eq!(self.session.deadline(&self.rules), None, "nothing is left to be judged");
        }
    }

    pub(super) fn client(&mut self, bytes: impl AsRef<[u8]>) -> &mut World {
        self.feed(SessionFact::ClientBytes(bytes.as_ref()))
    }

    pub(super) fn client_fin(&mut self) -> &mut World {
        self.feed(SessionFact::ClientFin)
    }

    pub(super) fn client_fin_ahead(&mut self) -> &mut World {
        self.feed(SessionFact::ClientFinAhead)
    }

    pub(super) fn client_reset(&mut self) -> &mut World {
        self.feed(SessionFact::ClientGone(Cause::Aborted))
    }

    pub(super) fn connected(&mut self) -> &mut World {
        assert_eq!(self.sockets.upstream, UpstreamSocket::Connecting);
        self.sockets.upstream = UpstreamSocket::Open;
        self.feed(SessionFact::Connected { reused: false })
    }

    pub(super) fn refused(&mut self, failure: Failure) -> &mut World {
        assert_eq!(self.sockets.upstream, UpstreamSocket::Connecting);
        // A session that knows that there is no connection does not end it.
        self.sockets.upstream = UpstreamSocket::Ended(End::Close);
        self.feed(SessionFact::NotConnected(failure))
    }

    pub(super) fn upstream(&mut self, bytes: impl AsRef<[u8]>) -> &mut World {
        self.upstream_is_there().feed(SessionFact::UpstreamBytes(bytes.as_ref()))
    }

    pub(super) fn upstream_fin(&mut self) -> &mut World {
        self.upstream_is_there().feed(SessionFact::UpstreamFin)
    }

    pub(super) fn upstream_gone(&mut self, failure: Failure) -> &mut World {
        self.upstream_is_there().feed(SessionFact::UpstreamGone(failure))
    }

    fn upstream_is_there(&mut self) -> &mut World {
        assert!(matches!(self.sockets.upstream, UpstreamSocket::Open | UpstreamSocket::Finned));
        self
    }

    /// Lets time go by, deadline after deadline.
    pub(super) fn after(&mut self, time: Duration) -> &mut World {
        let end = self.now + time;
        let mut still = 0;
        while let Some(deadline) = self.session.deadline(&self.rules).filter(|&deadline| deadline <= end) {
            still = if deadline <= self.now { still + 1 } else { 0 };
            assert!(still < 4, "a deadline that nothing comes of");
            self.now = self.now.max(deadline);
            self.feed(SessionFact::Time);
        }
        self.now = end;
        self
    }

    pub(super) fn phase(&self) -> Phase {
        self.session.phase()
    }

    /// What was sent to the client since this was asked last.
    #[track_caller]
    pub(super) fn client_got(&mut self, expected: impl AsRef<[u8]>) -> &mut World {
        let got = std::mem::take(&mut self.sockets.to_client);
        same(&got, expected.as_ref());
        self
    }

    /// What was sent to the upstream since this was asked last.
    #[track_caller]
    pub(super) fn upstream_got(&mut self, expected: impl AsRef<[u8]>) -> &mut World {
        let got = std::mem::take(&mut self.sockets.to_upstream);
        same(&got, expected.as_ref());
        self
    }

    /// The client got one probe and nothing else.
    #[track_caller]
    pub(super) fn client_got_a_probe(&mut self) -> &mut World {
        self.client_got(PROBE)
    }

    /// The client got nothing, and then the first probe.
    #[track_caller]
    pub(super) fn first_question(&mut self) -> &mut World {
        self.client_got("").after(FIRST_QUESTION).client_got_a_probe()
    }

    /// The client got the question that a chunked response allows, and nothing else.
    #[track_caller]
    pub(super) fn client_got_a_zero(&mut self) -> &mut World {
        self.client_got("0")
    }

    /// The client got an answer of ours, which is the last it gets.
    #[track_caller]
    pub(super) fn client_got_our(&mut self, status: u16) -> &mut World {
        let got = std::mem::take(&mut self.sockets.to_client);
        assert_eq!(our_answer(&got, false), Some((status, got.len())), "{}", String::from_utf8_lossy(&got));
        assert_eq!(self.sockets.client, ClientSocket::Finishing(End::Close));
        self
    }

    #[track_caller]
    pub(super) fn in_phase(&mut self, phase: Phase) -> &mut World {
        assert_eq!(self.phase(), phase);
        self
    }

    /// What was told since this was asked last.
    pub(super) fn told(&mut self) -> Vec<ProxyEvent> {
        std::mem::take(&mut self.sockets.told)
    }

    #[track_caller]
    pub(super) fn told_nothing(&mut self) -> &mut World {
        assert_eq!(self.told(), []);
        self
    }

    #[track_caller]
    pub(super) fn told_completed(&mut self, times: usize) -> &mut World {
        assert_eq!(self.told(), vec![ProxyEvent::Completed; times]);
        self
    }

    #[track_caller]
    pub(super) fn told_not_followed(&mut self, reason: Reason, refused: bool) -> &mut World {
        assert_eq!(self.told(), [ProxyEvent::NotFollowed { reason, refused }]);
        self
    }

    #[track_caller]
    pub(super) fn told_interrupted(&mut self) -> Interrupted {
        match self.told().as_slice() {
            [ProxyEvent::Interrupted(interrupted)] => (**interrupted).clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The one answer of ours that was told for no other event.
    #[track_caller]
    pub(super) fn told_answered(&mut self) -> Answered {
        match std::mem::take(&mut self.sockets.answered).as_slice() {
            [answered] => answered.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn told_upstream_failed(&mut self) -> UpstreamFailed {
        match self.told().as_slice() {
            [ProxyEvent::UpstreamFailed(failed)] => (**failed).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn sockets_are(&mut self, client: ClientSocket, upstream: UpstreamSocket) -> &mut World {
        assert_eq!((self.sockets.client, self.sockets.upstream), (client, upstream));
        self
    }

    /// The client has all that it gets, and the upstream's connection is closed.
    #[track_caller]
    pub(super) fn over(&mut self) -> &mut World {
        self.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Close))
    }

    #[track_caller]
    pub(super) fn both_open(&mut self) -> &mut World {
        self.sockets_are(ClientSocket::Open, UpstreamSocket::Open)
    }

    /// The client's FIN was passed on to the upstream.
    #[track_caller]
    pub(super) fn finned(&mut self) -> &mut World {
        self.sockets_are(ClientSocket::Open, UpstreamSocket::Finned)
    }

    /// A GET that the upstream has.
    pub(super) fn asked(rules: Rules) -> World {
        World::asked_with(rules, GET)
    }

    /// A request that the upstream has.
    pub(super) fn asked_with(rules: Rules, request: &str) -> World {
        let mut world = World::new(rules);
        world.client(request).connected().upstream_got(request);
        assert_eq!(world.phase(), Phase::Waiting);
        world
    }

    /// A request that was answered.
    pub(super) fn answered(rules: Rules) -> World {
        let mut world = World::asked(rules);
        world.upstream(OK).client_got(OK).told_completed(1);
        assert_eq!(world.phase(), Phase::Idle);
        world
    }
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
pub(super) const OLD_GET: &str = "GET /a HTTP/1.0\r\n\r\n";
/// All of [`OK`] but its last byte.
pub(super) const PART: &str = OK.split_at(OK.len() - 1).0;
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Bytes that are the same, or said as text where they are not.
#[track_caller]
pub(super) fn same(got: &[u8], expected: &[u8]) {
    if got != expected {
        assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(expected));
    }
}

/// Status and length of an answer of ours at the beginning of these bytes, read as a client would.
pub(super) fn our_answer(bytes: &[u8], head_only: bool) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    assert!(head.contains("\r\nConnection: close"), "the last on its connection");
    let length: usize = head.split_once("\r\nContent-Length: ")?.1.split("\r\n").next()?.parse().ok()?;
    let length = if head_only { 0 } else { length };
    (body.len() >= length).then_some((status, head.len() + 4 + length))
}
