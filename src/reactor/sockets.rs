//! Descriptors and the operations in flight on them.
//!
//! The kernel keeps a socket open while a poll or a recv on it is in flight, even after close(2), and sends no FIN until
//! then. A descriptor is therefore closed after its last completion. This file is the only place that knows that rule.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::kind;
use crate::liveness::PollMask;
use crate::sys::engine::{Completion, Counters, Engine, Lent, Token};
use crate::sys::tcp;

/// A descriptor and what is in flight on it: 8 bytes, also inside an `Option`.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// The last mask that the poll reported.
    pub(crate) mask: PollMask,
    flags: u16,
}

impl Descriptor {
    /// The poll is armed: its last completion is still to come.
    const POLLED: u16 = 1;
    /// The poll ends with its first completion.
    const ONE_SHOT: u16 = 1 << 1;
    /// A recv is in flight.
    const RECEIVING: u16 = 1 << 2;
    /// It is closed when nothing is in flight any more.
    const CLOSING: u16 = 1 << 3;
    /// The first flag that belongs to the owner. The owner may use it and all higher ones.
    pub(crate) const OWNER: u16 = 1 << 4;

    pub(crate) const fn new(fd: OwnedFd) -> Descriptor {
        Descriptor { fd, mask: PollMask(0), flags: 0 }
    }

    /// A descriptor whose poll was armed by other means.
    pub(crate) const fn polled(fd: OwnedFd) -> Descriptor {
        Descriptor { fd, mask: PollMask(0), flags: Descriptor::POLLED }
    }

    /// Whether one of the owner's flags `bits` is set.
    pub(crate) const fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    pub(crate) fn set(&mut self, bits: u16) {
        self.flags |= bits;
    }

    pub(crate) fn clear(&mut self, bits: u16) {
        self.flags &= !bits;
    }

    /// Clears `bits`; returns whether one of them was set.
    pub(crate) fn take(&mut self, bits: u16) -> bool {
        let had = self.has(bits);
        self.clear(bits);
        had
    }

    pub(crate) const fn is_polled(&self) -> bool {
        self.has(Descriptor::POLLED)
    }

    pub(crate) const fn is_one_shot(&self) -> bool {
        self.has(Descriptor::ONE_SHOT)
    }

    pub(crate) const fn is_receiving(&self) -> bool {
        self.has(Descriptor::RECEIVING)
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.has(Descriptor::CLOSING)
    }

    /// Whether it may be dropped: it is to be closed, and nothing is in flight.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_closing() && !self.has(Descriptor::POLLED | Descriptor::RECEIVING)
    }

    /// Notes a completion of the poll.
    pub(crate) fn poll_completed(&mut self, completion: &Completion) {
        if !completion.more {
            self.clear(Descriptor::POLLED);
        }
    }

    /// Notes the completion of a recv.
    pub(crate) fn recv_completed(&mut self) {
        self.clear(Descriptor::RECEIVING);
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const _: () = assert!(size_of::<Option<Descriptor>>() == 8);

/// The engine of a loop, and everything that a [`Service`](super::Service) does to descriptors through it.
pub struct Sockets {
    engine: Box<dyn Engine>,
    /// Descriptors that their owner gave up, by the token of their poll, until its last completion.
    retiring: HashMap<Token, Descriptor>,
    /// The next turn starts without a wait, since a verdict depends on what was submitted.
    pub(crate) urgent: bool,
    /// The next turn starts without a wait, since more bytes of a stream are expected at once.
    pub(crate) read_on: bool,
    /// The next wait gives the bytes of a stream time to gather.
    pub(crate) streams: bool,
    /// Polls that the kernel ended by itself and that were armed again.
    pub(crate) rearms: u64,
}

impl Sockets {
    pub(super) fn new(engine: Box<dyn Engine>) -> Sockets {
        Sockets { engine, retiring: HashMap::new(), urgent: false, read_on: false, streams: false, rearms: 0 }
    }

    pub(super) fn engine(&mut self) -> &mut dyn Engine {
        &mut *self.engine
    }

    pub(crate) fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Arms a poll that reports every wake-up until it is cancelled.
    pub(crate) fn poll(&mut self, descriptor: &mut Descriptor, mask: u16, token: Token) -> io::Result<()> {
        descriptor.clear(Descriptor::ONE_SHOT);
        descriptor.set(Descriptor::POLLED);
        self.engine.watch(descriptor.fd.as_fd(), mask, token)
    }

    /// Arms a poll that ends with its first completion.
    pub(crate) fn poll_once(
        &mut self,
        descriptor: &mut Descriptor,
        mask: u16,
        token: Token,
    ) -> io::Result<()> {
        descriptor.set(Descriptor::POLLED | Descriptor::ONE_SHOT);
        self.engine.watch_once(descriptor.fd.as_fd(), mask, token)
    }

    /// Submits a recv that throws up to `most` bytes away.
    pub(crate) fn discard(&mut self, descriptor: &mut Descriptor, most: u32, token: Token) -> io::Result<()> {
        descriptor.set(Descriptor::RECEIVING);
        self.engine.discard(descriptor.fd.as_fd(), most, token)
    }

    /// Submits a recv into one of the engine's buffers.
    pub(crate) fn receive(&mut self, descriptor: &mut Descriptor, token: Token) -> io::Result<()> {
        descriptor.set(Descriptor::RECEIVING);
        self.engine.receive(descriptor.fd.as_fd(), token)
    }

    /// The first `length` bytes of the buffer that a completion named.
    pub(crate) fn bytes(&self, buffer: &Lent, length: usize) -> &[u8] {
        self.engine.bytes(buffer, length)
    }

    /// Gives the buffer of a completion back, if it has one.
    pub(crate) fn recycle(&mut self, buffer: Option<Lent>) {
        if let Some(buffer) = buffer {
            self.engine.recycle(buffer);
        }
    }

    /// Begins to close: cancels the poll, which has the token `poll`. The descriptor may be dropped when it
    /// [is over](Descriptor::is_over), which is at once if nothing is in flight. `abort`: with a RST.
    pub(crate) fn close(&mut self, descriptor: &mut Descriptor, poll: Token, abort: bool) -> io::Result<()> {
        descriptor.set(Descriptor::CLOSING);
        if abort {
            let _ = tcp::abort_on_close(descriptor.as_fd()); // at worst it is closed with a FIN
        }
        if descriptor.is_polled() {
            let cancel = Token::new(kind::CANCEL, poll.generation(), poll.index());
            self.engine.cancel(descriptor.fd.as_fd(), poll, cancel)?;
        }
        Ok(())
    }

    /// As [`close`](Sockets::close), for an owner that forgets the descriptor: it is kept here until it is over.
    pub(crate) fn retire(&mut self, mut descriptor: Descriptor, poll: Token, abort: bool) {
        // An engine that takes nothing any more says so in the next turn.
        let _ = self.close(&mut descriptor, poll, abort);
        if !descriptor.is_over() {
            self.retiring.insert(poll, descriptor);
        }
    }

    /// Takes the completion of a poll whose owner has retired its descriptor.
    pub(crate) fn retired(&mut self, completion: &Completion) {
        if !completion.more {
            self.retiring.remove(&completion.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::sys::engine::{self, EngineChoice, Wait};

    const POLL: Token = Token::new(kind::SERVICE, 1, 7);

    fn sockets(choice: EngineChoice) -> Sockets {
        Sockets::new(engine::open(choice, 8, 16).unwrap().0)
    }

    fn pair() -> (Descriptor, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nonblocking(true).unwrap();
        (Descriptor::new(listener.accept().unwrap().0.into()), peer)
    }

    fn completions(sockets: &mut Sockets) -> Vec<Completion> {
        let mut found = Vec::new();
        while found.is_empty() {
            let wait = Wait { completions: 1, window: Duration::ZERO, timeout: Duration::from_secs(10) };
            sockets.engine().submit_and_wait(wait).unwrap();
            sockets.engine().reap(&mut found, 10);
        }
        found
    }

    #[test]
    fn a_retired_descriptor_is_closed_after_the_last_completion_of_its_poll() {
        for choice in [EngineChoice::Auto, EngineChoice::Epoll] {
            let mut sockets = sockets(choice);
            let (mut descriptor, mut peer) = pair();
            sockets.poll(&mut descriptor, PollMask::IN, POLL).unwrap();
            sockets.retire(descriptor, POLL, false);
            assert_eq!(sockets.retiring.len(), 1);
            for completion in completions(&mut sockets) {
                sockets.retired(&completion);
            }
            assert!(sockets.retiring.is_empty());
            peer.set_nonblocking(false).unwrap();
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the FIN has left");
        }
    }

    #[test]
    fn a_descriptor_whose_poll_could_not_be_armed_is_not_kept_for_ever() {
        let mut sockets = sockets(EngineChoice::Epoll);
        // A file stands for a socket beyond fs.epoll.max_user_watches: epoll refuses both.
        let mut descriptor = Descriptor::new(std::fs::File::open("/proc/self/status").unwrap().into());
        let directory = std::fs::File::open("/proc").unwrap();
        descriptor.fd = directory.into();
        sockets.poll(&mut descriptor, PollMask::IN, POLL).unwrap();
        for completion in completions(&mut sockets) {
            assert!(completion.result < 0 && !completion.more, "{completion:?}");
            descriptor.poll_completed(&completion);
        }
        sockets.retire(descriptor, POLL, false);
        assert!(sockets.retiring.is_empty());
    }
}
