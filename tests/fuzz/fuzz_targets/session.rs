//! Whatever both sides send, and whenever they leave: bytes pass unchanged, in order, and nothing is held beyond its bounds.

#![no_main]

use std::time::Duration;

use deadpeer::http::Forwarded;
use deadpeer::limits::{MAX_HEAD, MAX_HELD, MAX_PIPELINED};
use deadpeer::liveness::Cause;
use deadpeer::proxy::{
    Context, Effect, Effects, Failure, HalfClose, HoldBudget, OnGone, ProbeOutcome, ProxyEvent, Reuse, Rules, Session,
    SessionFact,
};
use deadpeer::time::Instant;
use libfuzzer_sys::fuzz_target;

const GATHER: usize = 256;

/// What is said between a client and a server: no fuzzer finds all of that by itself.
const PHRASES: [&[u8]; 20] = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nContent-Length: 300\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// What the two sides have got, and in what state they are.
#[derive(Default)]
struct World {
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    /// The next message of ours is a question.
    asking: bool,
    connecting: bool,
    connected: bool,
    /// Nothing more is said to the client.
    client_over: bool,
    /// And nothing more is heard.
    client_finished: bool,
    client_ended: bool,
    upstream_fin: bool,
    interrupted: usize,
    completed: usize,
    /// Whether there is an idle connection, at one connect after the other.
    idle: u8,
    /// The upstream has sent its FIN.
    upstream_finned: bool,
    /// The length of the last message of held bytes.
    last_sent: usize,
}

impl World {
    /// Carries out all effects. Returns the fact that one of them has led to.
    fn carry_out(&mut self, effects: &mut Effects, fed: &[u8]) -> Option<SessionFact<'static>> {
        let mut fact = None;
        while let Some(effect) = effects.poll_effect() {
            match effect {
                Effect::PassToClient(range) => self.send_to_client(&fed[range]),
                Effect::PassToUpstream(range) => self.send_to_upstream(&fed[range]),
                Effect::SendToClient(held) => self.send_to_client(&held),
                Effect::SendToUpstream(held) => {
                    self.send_to_upstream(&held);
                    self.last_sent = held.len();
                }
                // A question is nothing of a response; where it may stand, the session's own tests show.
                Effect::Reply(message) if std::mem::take(&mut self.asking) => {
                    assert!(!self.client_over && !message.is_empty(), "a question behind the client's end");
                }
                Effect::Reply(message) => self.send_to_client(message),
                Effect::Connect(reuse) => {
                    assert!(!self.connecting && !self.connected, "connected twice");
                    if reuse == Reuse::Repeat {
                        self.to_upstream.truncate(self.to_upstream.len() - self.last_sent);
                    }
                    self.idle = self.idle.rotate_left(1);
                    if matches!(reuse, Reuse::Idle | Reuse::Young) && self.idle & 1 == 1 {
                        (self.connected, self.upstream_finned) = (true, false);
                        fact = Some(SessionFact::Connected { reused: true });
                    } else {
                        self.connecting = true;
                    }
                }
                Effect::ReleaseUpstream { reusable } => {
                    assert!(self.connected && !(reusable && self.upstream_fin), "gave back what it has not");
                    (self.connected, self.upstream_fin) = (false, false);
                }
                Effect::CheckReceived { bytes, failure } => {
                    assert_eq!(bytes, self.last_sent, "the last that was sent");
                    fact = Some(SessionFact::Received(self.idle & 2 == 2, failure));
                }
                Effect::ShutdownClient => self.client_over = true,
                Effect::ShutdownUpstream => self.upstream_fin = true,
                Effect::FinishClient(_) => (self.client_over, self.client_finished) = (true, true),
                Effect::EndClient(_) => self.end_client(),
                Effect::EndUpstream(_) => {
                    assert!(self.connecting || self.connected, "ended what is not there");
                    (self.connecting, self.connected, self.upstream_fin) = (false, false, false);
                }
                Effect::CheckAcknowledged(_) => fact = Some(SessionFact::Acknowledged(true)),
                Effect::Report(ProxyEvent::Interrupted(_)) => self.interrupted += 1,
                Effect::Report(ProxyEvent::Completed) => self.completed += 1,
                Effect::Probed(outcome) => self.asking = outcome == ProbeOutcome::Asked,
                Effect::Report(_) | Effect::JudgeUpstream(_) | Effect::Log(_) | Effect::Name(_) => {}
            }
        }
        fact
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        assert!(!self.client_over, "bytes behind the client's end");
        self.to_client.extend_from_slice(bytes);
    }

    fn send_to_upstream(&mut self, bytes: &[u8]) {
        assert!(self.connected && !self.upstream_fin, "bytes for an upstream that is not there");
        self.to_upstream.extend_from_slice(bytes);
    }

    fn end_client(&mut self) {
        (self.client_over, self.client_finished, self.client_ended) = (true, true, true);
    }
}

/// Whether `got` is what was sent, or the beginning of it with an answer of ours behind.
fn is_made_of(got: &[u8], sent: &[u8]) -> bool {
    let same = got.iter().zip(sent).take_while(|(a, b)| a == b).count();
    let ours = |own: &[u8]| own.starts_with(b"HTTP/1.1 4") || own.starts_with(b"HTTP/1.1 5");
    same == got.len() || (0..=same).any(|at| ours(&got[at..]))
}

fuzz_target!(|input: (u8, Vec<(u8, u8, Vec<u8>)>)| {
    let (flags, script) = input;
    let rules = Rules {
        http: flags & 128 == 0,
        accept_proxy: false,
        strict: flags & 64 != 0,
        half_close: match flags % 4 {
            0 => HalfClose::Probe,
            1 => HalfClose::Gone,
            2 => HalfClose::Wait(Duration::from_secs(2)),
            _ => HalfClose::Forward,
        },
        on_gone: match flags / 4 % 4 {
            0 => OnGone::Ignore,
            1 => OnGone::Close,
            _ => OnGone::Reset,
        },
        pool: flags & 16 == 0,
        request_buffer: GATHER,
        head_timeout: Duration::from_secs(20),
        body_timeout: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(75),
        forwarded: Forwarded::Off,
        log: flags & 128 != 0,
        log_query: true,
        response_timeout: (flags & 32 != 0).then_some(Duration::from_secs(30)),
    };
    let mut world = World { idle: script.len() as u8 ^ 0x5A, ..World::default() };
    let mut now = Instant::from_nanos(1);
    let budget = HoldBudget { heads: usize::MAX, bodies: usize::MAX };
    let mut effects = Effects::default();
    let mut session = Session::new(&mut Context { rules: &rules, now, client: None, budget, effects: &mut effects });
    world.carry_out(&mut effects, &[]);
    let (mut from_client, mut from_upstream) = (Vec::new(), Vec::new());
    let mut client_fin = false;
    for (kind, phrase, more) in &script {
        let bytes = &[PHRASES[usize::from(*phrase) % PHRASES.len()], more].concat();
        if world.client_ended && !world.connected && !world.connecting {
            break;
        }
        let mut feed = |session: &mut Session, world: &mut World, now, fact| {
            let context = &mut Context { rules: &rules, now, client: None, budget, effects: &mut effects };
            session.handle(fact, context);
            while let Some(fact) = world.carry_out(context.effects, bytes) {
                session.handle(fact, context);
            }
        };
        match kind % 13 {
            0..=3 if !client_fin && !world.client_ended && !bytes.is_empty() => {
                if session.wants_client() {
                    if !world.client_finished {
                        from_client.extend_from_slice(bytes);
                    }
                    feed(&mut session, &mut world, now, SessionFact::ClientBytes(bytes));
                }
            }
            4..=6 if world.connected && !world.upstream_finned && !bytes.is_empty() => {
                if !world.client_over {
                    from_upstream.extend_from_slice(bytes);
                }
                feed(&mut session, &mut world, now, SessionFact::UpstreamBytes(bytes));
            }
            7 if world.connecting => {
                (world.connecting, world.connected, world.upstream_finned) = (false, true, false);
                feed(&mut session, &mut world, now, SessionFact::Connected { reused: false });
            }
            8 if !client_fin && !world.client_ended && session.wants_client() => {
                client_fin = true;
                feed(&mut session, &mut world, now, SessionFact::ClientFin);
            }
            9 => {
                now = now + Duration::from_millis(bytes.len() as u64 * 100);
                for _ in 0..8 {
                    match session.deadline(&rules) {
                        Some(at) if at <= now => feed(&mut session, &mut world, now, SessionFact::Time),
                        _ => break,
                    }
                }
            }
            10 if world.connected && !world.upstream_finned => {
                world.upstream_finned = true;
                feed(&mut session, &mut world, now, SessionFact::UpstreamFin);
            }
            11 => match bytes.first().unwrap_or(&0) % 3 {
                0 if !world.client_ended => {
                    feed(&mut session, &mut world, now, SessionFact::ClientGone(Cause::Aborted));
                    world.end_client();
                }
                1 if world.connecting => {
                    world.connecting = false;
                    feed(&mut session, &mut world, now, SessionFact::NotConnected(Failure::Refused));
                }
                _ if world.connected => {
                    feed(&mut session, &mut world, now, SessionFact::UpstreamGone(Failure::Reset));
                }
                _ => {}
            },
            12 => {
                let fact = if bytes.is_empty() { SessionFact::Cut } else { SessionFact::Drain };
                feed(&mut session, &mut world, now, fact);
            }
            _ => {}
        }
        let most = MAX_HEAD + GATHER + MAX_HELD + MAX_PIPELINED + 2 * bytes.len();
        assert!(session.holds() <= most, "holds {}", session.holds());
    }
    assert!(from_client.starts_with(&world.to_upstream), "the upstream got something else than was sent");
    assert!(is_made_of(&world.to_client, &from_upstream), "the client got something else than was sent");
});
