//! Random conversations, cut and interleaved at random and cut short in every way, against what is known of them.

use std::time::Duration;

use proptest::prelude::*;

use super::conversation::{Ends, Exchange, exchange};
use super::world::{ClientSocket, RULES, Sockets, UpstreamSocket, World, our_answer, same};
use crate::limits::{MAX_HEAD, MAX_HELD, MAX_PIPELINED};
use crate::proxy::event::{Failure, ProxyEvent};
use crate::proxy::session::{End, HalfClose, OnGone, Rules};

/// Bytes that a server sends once it has switched.
const AFTERWARDS: &[u8] = b"\0\x01HTTP/1.1 200 OK\r\n\r\n";

/// How a conversation ends before its time, at most one way each.
#[derive(Clone, Copy, Debug)]
enum Cut {
    None,
    /// After so many steps.
    ClientReset(usize),
    /// A client that leaves answers whatever reaches it with a RST.
    ClientFin {
        at: At,
        leaves: bool,
    },
    UpstreamFin(At),
    UpstreamReset(At),
    Refused,
}

/// Behind so many of all bytes, in thousandths; or where the message before ends.
#[derive(Clone, Copy, Debug)]
struct At {
    thousandths: usize,
    between: bool,
}

impl At {
    fn of(self, messages: Vec<&[u8]>) -> usize {
        let all: usize = messages.iter().map(|message| message.len()).sum();
        let at = all * self.thousandths / 1_000;
        if !self.between {
            return at;
        }
        let ends = messages.iter().scan(0, |end, message| {
            *end += message.len();
            Some(*end)
        });
        ends.take_while(|&end| end <= at).last().unwrap_or(0)
    }
}

/// One step of one side: what, and how much.
type Step = (u8, u16);

struct Play<'a> {
    world: World,
    exchanges: &'a [Exchange],
    cut: Cut,
    /// What the client sends, before its FIN if it sends one.
    sends: Vec<u8>,
    fins: bool,
    /// What the server sends, all in all.
    serves: Vec<u8>,
    /// How much of each is with the session.
    read: usize,
    served: usize,
    /// How much the client had sent when it was no longer listened to.
    heard: usize,
    fin_seen: bool,
    fin_read: bool,
    upstream_finned: bool,
    /// What had reached the client when it left.
    left_at: Option<(usize, usize)>,
    /// Responses that were whole while the client was there.
    whole: usize,
    failed: Option<Truth>,
    reset: bool,
    /// Responses that were whole when the present upstream was connected to.
    whole_at_connect: usize,
    /// The connects so far that took an idle connection, and whether the last one did.
    reused: (usize, bool),
    /// Requests that were sent again.
    repeated: usize,
    /// What was served at the last probe, and how many probes there were since.
    probed: (usize, usize),
    /// Time passed while the client was in doubt and could not be asked.
    lingered: bool,
}

/// What must follow when an upstream fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    /// No client waited for it.
    Unnoticed,
    Answered,
    /// A used connection.
    Closed,
    /// A length or chunks show that a part is missing.
    Truncated,
    /// Only a RST shows it.
    Aborted,
    /// A used connection, and a request that is sent again on another one.
    Repeated,
}

impl Play<'_> {
    fn new(exchanges: &[Exchange], rules: Rules, cut: Cut) -> Play<'_> {
        let mut sends: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.request.clone()).collect();
        let mut serves: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.response.clone()).collect();
        let fins = matches!(cut, Cut::ClientFin { .. });
        match cut {
            Cut::ClientFin { at, .. } => {
                sends.truncate(at.of(exchanges.iter().map(|exchange| exchange.request.as_slice()).collect()));
            }
            Cut::UpstreamFin(at) | Cut::UpstreamReset(at) => {
                serves
                    .truncate(at.of(exchanges.iter().map(|exchange| exchange.response.as_slice()).collect()));
            }
            _ => {}
        }
        Play {
            world: World::new(rules),
            exchanges,
            cut,
            sends,
            fins,
            serves,
            read: 0,
            served: 0,
            heard: 0,
            fin_seen: false,
            fin_read: false,
            upstream_finned: false,
            left_at: None,
            whole: 0,
            failed: None,
            reset: false,
            whole_at_connect: 0,
            reused: (0, false),
            repeated: 0,
            probed: (0, 0),
            lingered: false,
        }
    }

    fn request_end(&self, exchanges: usize) -> usize {
        self.exchanges[..exchanges].iter().map(|exchange| exchange.request.len()).sum()
    }

    fn response_end(&self, exchanges: usize) -> usize {
        self.exchanges[..exchanges].iter().map(|exchange| exchange.response.len()).sum()
    }

    /// Responses that the server has sent whole, but for its FIN.
    fn served_whole(&self) -> usize {
        (0..self.exchanges.len()).take_while(|&at| self.response_end(at + 1) <= self.served).count()
    }

    fn switched(&self) -> bool {
        let served = self.served_whole();
        self.exchanges[..served].iter().any(|exchange| exchange.ends == Ends::Switch)
    }

    fn client_is_there(&self) -> bool {
        matches!(self.world.sockets.client, ClientSocket::Open | ClientSocket::Finned)
    }

    fn upstream_is_there(&self) -> bool {
        matches!(self.world.sockets.upstream, UpstreamSocket::Open | UpstreamSocket::Finned)
            && !self.upstream_finned
    }

    /// Up to where the server has anything to say, given what it has read.
    fn may_serve(&self) -> usize {
        let got = self.world.sockets.to_upstream.len();
        let mut until = 0;
        for (at, exchange) in self.exchanges.iter().enumerate() {
            if got < self.request_end(at) + exchange.answers_at {
                break;
            }
            until = self.response_end(at + 1);
            if exchange.ends != Ends::Whole {
                break;
            }
        }
        until.min(self.serves.len())
    }

    /// Takes a step, if it can be taken.
    fn step(&mut self, (what, size): Step) -> bool {
        let probes = self.world.sockets.probes;
        let moved = match what % 6 {
            0 => self.client_sends(usize::from(size)),
            1 => self.fin_is_seen_ahead(),
            2 => self.connect_ends(),
            3 => self.server_sends(usize::from(size)),
            4 => self.server_ends(),
            _ => {
                self.time_passes(Duration::from_millis(u64::from(size % 2_000)));
                false
            }
        };
        if let Some(at) = self.left_at
            && self.client_is_there()
            && (self.world.sockets.probes, self.world.sockets.relayed.len()) != at
        {
            self.world.client_reset();
        }
        for probe in probes..self.world.sockets.probes {
            self.check_probe(probe);
        }
        if self.world.sockets.reused > self.reused.0 {
            self.reused = (self.world.sockets.reused, true);
            self.upstream_finned = false;
        }
        self.check();
        moved
    }

    /// A client that cannot be asked has a second to get some of its response. No other is taken for gone by time.
    fn time_passes(&mut self, time: Duration) {
        let asks = self.may_ask() || self.world.rules.half_close != HalfClose::Probe || self.switched();
        self.lingered |= self.fin_seen && !asks;
        let told = self.world.sockets.told.len();
        self.world.after(time);
        let told = &self.world.sockets.told[told..];
        assert!(!asks || told.is_empty() || self.left_at.is_some(), "{told:?}");
    }

    fn client_sends(&mut self, size: usize) -> bool {
        if matches!(self.world.sockets.client, ClientSocket::Ended(_)) || !self.world.session.wants_client() {
            return false;
        }
        if self.read == self.sends.len() {
            if !self.fins || self.fin_read {
                return false;
            }
            self.fin_read = true;
            self.fin_is_seen();
            self.world.client_fin();
            return true;
        }
        let until = self.sends.len().min(self.read + size.clamp(1, self.world.session.client_room()));
        if self.client_is_there() {
            self.heard = until;
        }
        self.world.client(&self.sends[self.read..until]);
        self.read = until;
        true
    }

    fn fin_is_seen(&mut self) {
        self.fin_seen = true;
        if matches!(self.cut, Cut::ClientFin { leaves: true, .. }) && self.left_at.is_none() {
            self.left_at = Some((self.world.sockets.probes, self.world.sockets.relayed.len()));
            self.world.sockets.acknowledges = false;
        }
    }

    fn fin_is_seen_ahead(&mut self) -> bool {
        let ahead = self.fins && !self.fin_read && !self.world.session.wants_client();
        if !ahead || matches!(self.world.sockets.client, ClientSocket::Ended(_)) {
            return false;
        }
        self.fin_is_seen();
        self.world.client_fin_ahead();
        false
    }

    fn connect_ends(&mut self) -> bool {
        if self.world.sockets.upstream != UpstreamSocket::Connecting {
            return false;
        }
        if matches!(self.cut, Cut::Refused) {
            self.failed = Some(Truth::Answered);
            self.world.refused(Failure::Refused);
        } else {
            self.whole_at_connect = self.served_whole();
            self.upstream_finned = false;
            self.reused.1 = false;
            self.world.connected();
        }
        true
    }

    fn server_sends(&mut self, size: usize) -> bool {
        if !self.upstream_is_there() {
            return false;
        }
        let until = self.may_serve().min(self.served + size.clamp(1, MAX_HELD));
        if until > self.served {
            let there = self.client_is_there();
            let bytes = &self.serves[self.served..until];
            self.world.upstream(bytes);
            let before = self.served_whole();
            self.served = until;
            for at in before..self.served_whole() {
                if self.exchanges[at].ends != Ends::WithConnection && there {
                    self.whole += 1;
                }
            }
            return true;
        }
        false
    }

    fn server_ends(&mut self) -> bool {
        if !self.upstream_is_there() {
            return false;
        }
        let at_cut = self.served == self.serves.len();
        let fin = match self.cut {
            Cut::UpstreamFin(_) if at_cut => true,
            Cut::UpstreamReset(_) if at_cut => {
                self.failed = Some(self.truth_of_failure(false));
                self.world.upstream_gone(Failure::Reset);
                self.request_is_repeated();
                return true;
            }
            _ => false,
        };
        // A reader of a response that ends with its connection takes every FIN for its end.
        let with_connection = |at: usize, begun: usize| {
            let exchange = self.exchanges.get(at)?;
            let begun = self.served >= self.response_end(at) + begun.min(exchange.begun_at);
            (exchange.ends == Ends::WithConnection && begun).then_some(())
        };
        let whole = self.served_whole();
        let regular = whole.checked_sub(1).and_then(|last| with_connection(last, 0)).is_some();
        let early = fin && with_connection(whole, usize::MAX).is_some();
        if regular || early {
            self.whole += usize::from(self.client_is_there());
        } else if fin {
            self.failed = Some(self.truth_of_failure(true));
        } else {
            return false;
        }
        self.upstream_finned = true;
        self.world.upstream_fin();
        self.request_is_repeated();
        true
    }

    /// If the upstream's end was one of a connection that had been idle: the request goes to the next one from its
    /// beginning, and nobody is told.
    fn request_is_repeated(&mut self) {
        if self.failed == Some(Truth::Repeated) {
            self.failed = None;
            self.repeated += 1;
            assert_eq!(self.world.sockets.upstream, UpstreamSocket::Connecting);
            let start = self.request_end(self.served_whole());
            self.world.sockets.to_upstream.truncate(start);
        }
        assert_eq!(self.world.sockets.repeated, self.repeated);
    }

    /// Whether the upstream of this exchange may get its request a second time.
    fn may_repeat(&self, at: usize) -> bool {
        let Sockets { to_upstream, last_sent, received, .. } = &self.world.sockets;
        let sent = to_upstream.len() - self.request_end(at);
        let request = self.exchanges[at].request.trim_ascii_start();
        let twice = [&b"GET "[..], b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS "];
        let harmless = twice.iter().any(|method| request.starts_with(method)) || !received;
        sent == self.exchanges[at].request.len() && *last_sent == sent && harmless && self.client_is_there()
    }

    /// What must follow if the upstream ends now.
    fn truth_of_failure(&self, by_fin: bool) -> Truth {
        let whole = self.served_whole();
        if self.switched() {
            return if by_fin { Truth::Unnoticed } else { Truth::Aborted };
        }
        let with_connection = whole > 0 && self.exchanges[whole - 1].ends == Ends::WithConnection;
        if with_connection {
            return Truth::Aborted;
        }
        let knows = self.world.sockets.to_upstream.len() > self.request_end(whole);
        let Some(exchange) = self.exchanges.get(whole).filter(|_| knows) else { return Truth::Unnoticed };
        let into = self.served - self.response_end(whole);
        let reused = self.reused.1 || whole > self.whole_at_connect;
        match exchange.ends {
            _ if into == 0 && reused && self.may_repeat(whole) => Truth::Repeated,
            _ if into == 0 && reused && whole > 0 => Truth::Closed,
            _ if into < exchange.begun_at => Truth::Answered,
            Ends::WithConnection if by_fin => Truth::Unnoticed,
            Ends::WithConnection => Truth::Aborted,
            // A size that may be zero looks like the last one.
            _ if exchange
                .sizes_at
                .iter()
                .any(|&at| at < into && exchange.response[at..into].iter().all(|&digit| digit == b'0')) =>
            {
                Truth::Aborted
            }
            _ => Truth::Truncated,
        }
    }

    /// Whether the protocol allows a question at this place, of a client that may be gone.
    fn may_ask(&self) -> bool {
        let whole = self.served_whole();
        let last = whole.checked_sub(1).map(|last| self.exchanges[last].ends);
        if last == Some(Ends::WithConnection) && !self.upstream_finned {
            return false; // more may come
        }
        let Some(exchange) = self.exchanges.get(whole) else { return false };
        let into = self.served - self.response_end(whole);
        let askable = into < exchange.begun_at || exchange.sizes_at.contains(&into);
        // HTTP/1.0 knows no interim responses and no chunks.
        exchange.minor == 1 && askable && self.heard >= self.request_end(whole + 1)
    }

    fn check_probe(&mut self, before: usize) {
        assert!(self.fin_seen && self.world.rules.half_close == HalfClose::Probe);
        assert!(self.may_ask(), "asked at a place where the client cannot understand it");
        self.probed =
            if self.probed.0 == self.served { (self.served, self.probed.1 + 1) } else { (self.served, 1) };
        assert!(self.probed.1 <= 4, "more than four at one place, after {before} in all");
    }

    /// What must hold at any time.
    fn check(&self) {
        let Sockets { to_upstream, upstream, client, relayed, .. } = &self.world.sockets;
        assert!(self.sends.starts_with(to_upstream), "the upstream got what the client did not send");
        let own = matches!(client, ClientSocket::Finishing(End::Close)) && !self.serves.starts_with(relayed);
        assert!(own || self.serves.starts_with(relayed), "the client got what the upstream did not send");
        if !self.switched() {
            let got = to_upstream.len();
            let next = self.served_whole().min(self.exchanges.len() - 1);
            assert!(got <= self.request_end(next + 1), "asked before the response before it was whole");
            let rest = got.saturating_sub(self.request_end(next));
            let exchange = &self.exchanges[next];
            let gathered = !exchange.streams && exchange.request.len() <= self.world.rules.request_buffer;
            assert!(!gathered || rest == 0 || rest == exchange.request.len(), "half of it was seen");
            if *upstream == UpstreamSocket::Finned {
                let forwards = self.world.rules.half_close == HalfClose::Forward && self.fin_read;
                let gone = matches!(client, ClientSocket::Ended(_));
                let torn = self.fin_read && self.heard < self.request_end(next + 1);
                assert!(forwards || gone || torn, "a FIN that is still being judged");
            }
        }
        let most = MAX_HEAD.max(self.world.rules.request_buffer) + MAX_HELD + MAX_PIPELINED;
        assert!(self.world.session.holds() <= most);
    }

    /// All sides do what is left to do.
    fn drain(&mut self) {
        loop {
            let mut moved = false;
            for what in [0, 2, 3, 4] {
                moved |= self.step((what, u16::MAX));
            }
            if !moved {
                break;
            }
        }
    }

    fn run(&mut self, steps: &[Step]) {
        for (at, &step) in steps.iter().enumerate() {
            if matches!(self.cut, Cut::ClientReset(when) if when == at) && self.client_is_there() {
                self.reset = true;
                self.world.client_reset();
            }
            self.step(step);
        }
        self.drain();
        // A client that was probed has had time to answer, and one that could not be probed has had its time.
        self.step((1, 0));
        self.step((5, 1_999));
        self.step((5, 1_999));
        self.drain();
    }

    fn finish(mut self) {
        let interrupted =
            self.world.sockets.told.iter().filter(|told| matches!(told, ProxyEvent::Interrupted(_))).count();
        let completed =
            self.world.sockets.told.iter().filter(|told| matches!(told, ProxyEvent::Completed)).count();
        let failed = self.world.sockets.told.len() - interrupted - completed;
        assert_eq!(completed, self.whole, "{:?}", self.world.sockets.told);

        let last = self.whole > 0
            && matches!(self.exchanges[self.whole - 1].ends, Ends::Last | Ends::WithConnection);
        let tunnel = self.exchanges[..self.whole].iter().any(|exchange| exchange.ends == Ends::Switch);
        let answered = self.request_end(self.whole).min(self.heard);
        let unanswered = self.sends[answered..self.heard].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        let left = self.reset || matches!(self.cut, Cut::ClientFin { .. });
        match self.cut {
            // A FIN in a tunnel is passed on, or judged as the rules say.
            Cut::ClientFin { .. } if tunnel => assert!(interrupted <= 1),
            _ if tunnel => assert_eq!(interrupted, usize::from(left && !self.upstream_finned)),
            _ => assert_eq!(interrupted, usize::from(left && unanswered && !last)),
        }
        if let Cut::ClientFin { leaves, .. } = self.cut
            && !tunnel
        {
            let askable = |exchange: &Exchange| {
                exchange.minor == 1
                    && exchange.ends != Ends::WithConnection
                    && (exchange.response.len() == exchange.begun_at || !exchange.sizes_at.is_empty())
            };
            let patient = match self.world.rules.half_close {
                HalfClose::Probe => self.exchanges.iter().all(askable) && !self.lingered,
                HalfClose::Gone => false,
                HalfClose::Wait(_) | HalfClose::Forward => true,
            };
            let sent = (0..self.exchanges.len())
                .take_while(|&at| self.request_end(at + 1) <= self.sends.len())
                .take_while(|&at| at == 0 || self.exchanges[at - 1].ends == Ends::Whole)
                .count();
            assert!(
                leaves || !patient || self.whole >= sent,
                "it waited, and did not get all that it asked for"
            );
            assert!(
                interrupted == 1 || self.world.sockets.client == ClientSocket::Finishing(End::Close),
                "it is not over"
            );
        }
        let expected = self.failed.filter(|&truth| truth != Truth::Unnoticed);
        let ignored = left && self.world.rules.on_gone == OnGone::Ignore;
        assert!(ignored || failed == usize::from(expected.is_some()), "{:?}", self.world.sockets.told);
        let relayed = &self.world.sockets.relayed;
        match self.failed {
            _ if left => {}
            Some(Truth::Answered) => {
                let own = &relayed[relayed.len().min(self.passed())..];
                let request = &self.exchanges[self.served_whole()].request;
                let head_only = request.trim_ascii_start().starts_with(b"HEAD ");
                assert_eq!(our_answer(own, head_only), Some((502, own.len())));
                assert_eq!(self.world.sockets.client, ClientSocket::Finishing(End::Close));
            }
            Some(Truth::Truncated) => {
                same(relayed, &self.serves[..self.served]);
                assert_eq!(self.world.sockets.client, ClientSocket::Finishing(End::Close));
            }
            Some(Truth::Aborted) => {
                same(relayed, &self.serves[..self.served]);
                assert_eq!(
                    self.world.sockets.client,
                    ClientSocket::Finishing(End::Abort),
                    "a clean end of half a response"
                );
            }
            Some(Truth::Closed) => {
                same(relayed, &self.serves[..self.passed()]);
                assert_ne!(self.world.sockets.client, ClientSocket::Open);
            }
            Some(Truth::Unnoticed) => same(relayed, &self.serves[..self.passed()]),
            Some(Truth::Repeated) => unreachable!("nobody is told"),
            None => same(relayed, &self.serves[..self.passed()]),
        }
        if matches!(self.cut, Cut::None) {
            self.undisturbed(tunnel, last);
        }
        // Whatever is left of it, it can be ended.
        if !matches!(self.world.sockets.client, ClientSocket::Ended(_)) {
            self.world.client_reset();
        }
        if self.upstream_is_there() {
            self.world.upstream_gone(Failure::Reset);
        }
        assert!(!matches!(
            self.world.sockets.upstream,
            UpstreamSocket::Connecting | UpstreamSocket::Open | UpstreamSocket::Finned
        ));
    }

    /// How much of what was served can have been passed on: the beginning of a head is kept until it is whole.
    fn passed(&self) -> usize {
        let whole = self.served_whole();
        let start = self.response_end(whole);
        let Some(exchange) = self.exchanges.get(whole) else { return self.served };
        if self.served - start >= exchange.begun_at {
            return self.served;
        }
        let interim =
            exchange.response[..self.served - start].windows(4).rposition(|four| four == b"\r\n\r\n");
        start + interim.map_or(0, |at| at + 4)
    }

    /// All that could be said was said.
    fn undisturbed(&mut self, tunnel: bool, last: bool) {
        let reached = self.exchanges.iter().position(|exchange| exchange.ends != Ends::Whole);
        let reached = reached.map_or(self.exchanges.len(), |at| at + 1);
        assert_eq!(self.whole, reached, "not all of it was answered");
        assert_eq!(self.served, self.response_end(reached));
        if last {
            assert_eq!(self.world.sockets.client, ClientSocket::Finishing(End::Close));
            assert!(self.world.sockets.to_upstream.len() <= self.request_end(reached));
            return;
        }
        same(&self.world.sockets.to_upstream, &self.sends);
        if tunnel {
            self.world.upstream(AFTERWARDS).client("\0").upstream_fin();
            assert!(self.world.sockets.relayed.ends_with(AFTERWARDS));
        }
        self.world.told();
        self.world.client_fin().told_nothing();
        assert_eq!(self.world.sockets.client, ClientSocket::Finishing(End::Close));
        let released = self.world.rules.pool && !tunnel;
        let upstream =
            if released { UpstreamSocket::Released(true) } else { UpstreamSocket::Ended(End::Close) };
        assert_eq!(self.world.sockets.upstream, upstream);
    }
}

pub(super) fn rules() -> impl Strategy<Value = Rules> {
    let half_close = prop::sample::select(vec![
        HalfClose::Probe,
        HalfClose::Probe,
        HalfClose::Gone,
        HalfClose::Wait(Duration::from_secs(1_000)),
        HalfClose::Forward,
    ]);
    let on_gone = prop::sample::select(vec![OnGone::Reset, OnGone::Close, OnGone::Ignore]);
    let request_buffer = prop::sample::select(vec![0, 100, 4_096]);
    (half_close, on_gone, request_buffer, any::<bool>(), any::<bool>()).prop_map(
        |(half_close, on_gone, request_buffer, strict, pool)| {
            let long = Duration::from_secs(100_000);
            Rules {
                half_close,
                on_gone,
                request_buffer,
                strict,
                pool,
                head_timeout: long,
                body_timeout: long,
                response_timeout: Some(long),
                ..RULES
            }
        },
    )
}

fn cut() -> impl Strategy<Value = Cut> {
    let at =
        || (0_usize..=1_000, any::<bool>()).prop_map(|(thousandths, between)| At { thousandths, between });
    prop_oneof![
        5 => Just(Cut::None),
        4 => (0_usize..60).prop_map(Cut::ClientReset),
        8 => (at(), any::<bool>()).prop_map(|(at, leaves)| Cut::ClientFin { at, leaves }),
        3 => at().prop_map(Cut::UpstreamFin),
        3 => at().prop_map(Cut::UpstreamReset),
        1 => Just(Cut::Refused),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![3 => 1_u16..6, 3 => 1_u16..200, 2 => any::<u16>()];
    let what = prop::sample::select(vec![0_u8, 0, 0, 1, 2, 3, 3, 3, 4, 5]);
    prop::collection::vec((what, size), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 16_000, ..ProptestConfig::default() })]

    #[test]
    fn the_events_of_a_conversation_are_those_that_were_generated(
        exchanges in prop::collection::vec(exchange(), 1..9),
        rules in rules(),
        cut in cut(),
        steps in steps(),
        idle in any::<u8>(),
        received in any::<bool>(),
    ) {
        let mut play = Play::new(&exchanges, rules, cut);
        (play.world.sockets.idle, play.world.sockets.received) = (idle, received);
        play.run(&steps);
        play.finish();
    }
}
