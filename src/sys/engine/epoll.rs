//! The shape of a ring, made of epoll and recv(2).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::Readiness;
use crate::limits::{CQ_ENTRIES, FRAME_BUFFER_BYTES, FRAME_BUFFERS, MAX_COMPLETIONS_PER_TURN};
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::operations::{Completion, Counters, Engine, EngineChoice, Lent, Token, Wait};
use crate::sys::tcp;
use crate::sys::uring::RingError;
use crate::time::Instant;

/// An operation that waits for the next submission.
enum Queued {
    Discard { fd: RawFd, length: u32, token: Token },
    Receive { fd: RawFd, token: Token },
}

/// What a descriptor is watched for, as epoll knows it.
#[derive(Clone, Copy)]
struct Entry {
    token: Token,
    once: bool,
    /// The number of this arming. An event with another number belongs to a socket that had this descriptor
    /// before, and lives on through a duplicate.
    arming: u32,
    /// A one-shot that has completed: nothing is left to be cancelled.
    fired: bool,
}

/// Buffers for frames, in memory of this process.
struct Buffers {
    number: u32,
    memory: Vec<u8>,
    free: Vec<u16>,
}

/// Does what a ring does. See the [module above](super).
pub struct EpollEngine {
    epoll: Epoll,
    found: ReadyList,
    /// By descriptor: its entry in epoll. A one-shot entry that has fired stays, to be armed again in place. A
    /// closed descriptor has none, whatever is noted here.
    entries: Vec<Option<Entry>>,
    armings: u32,
    queued: Vec<Queued>,
    completed: VecDeque<Completion>,
    buffers: Option<Buffers>,
    counters: Counters,
}

impl EpollEngine {
    /// An engine that watches nothing. Errors: when there are no descriptors left.
    pub fn new() -> io::Result<EpollEngine> {
        Ok(EpollEngine {
            epoll: Epoll::new()?,
            found: ReadyList::new(MAX_COMPLETIONS_PER_TURN),
            entries: Vec::new(),
            armings: 0,
            queued: Vec::with_capacity(MAX_COMPLETIONS_PER_TURN),
            completed: VecDeque::with_capacity(MAX_COMPLETIONS_PER_TURN),
            buffers: None,
            counters: Counters::default(),
        })
    }

    /// Arms at once: what happens from now on is seen. A poll tells of RDHUP unasked; epoll does not.
    fn arm(&mut self, fd: RawFd, mask: u32, token: Token, once: bool) {
        self.armings = self.armings.wrapping_add(1);
        let entry = Entry { token, once, arming: self.armings, fired: false };
        let data = u64::from(self.armings) << 32 | u64::from(fd.cast_unsigned());
        let mask = mask | libc::EPOLLRDHUP.cast_unsigned();
        let Ok(place) = usize::try_from(fd) else { return self.complete(token, -libc::EBADF, false) };
        if self.entries.len() <= place {
            self.entries.resize(place + 1, None);
        }
        // It is most likely what it was the last time; a number that means another socket by now is corrected.
        let known = self.entries[place].is_some();
        let armed = match known {
            true => self.epoll.modify_number(fd, mask, data),
            false => self.epoll.add_number(fd, mask, data),
        };
        let armed = match armed.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::ENOENT)) if known => self.epoll.add_number(fd, mask, data),
            Err(Some(libc::EEXIST)) if !known => self.epoll.modify_number(fd, mask, data),
            _ => armed,
        };
        self.counters.submitted += 1;
        match armed {
            Ok(()) => self.entries[place] = Some(entry),
            Err(error) => {
                self.entries[place] = None;
                self.complete(token, -error.raw_os_error().unwrap_or(libc::EIO), false);
            }
        }
    }

    /// Takes all that is ready, up to as much as a ring would hold.
    fn look(&mut self, mut timeout: Duration) -> io::Result<()> {
        while self.completed.len() < CQ_ENTRIES as usize {
            self.counters.enters += 1;
            self.epoll.wait(&mut self.found, Some(timeout))?;
            for ready in self.found.iter() {
                let place = (ready.token & u64::from(u32::MAX)) as usize;
                let entry = self.entries.get(place).copied().flatten();
                let Some(Entry { token, once, .. }) =
                    entry.filter(|entry| u64::from(entry.arming) == ready.token >> 32 && !entry.fired)
                else {
                    continue;
                };
                if once && let Some(entry) = &mut self.entries[place] {
                    entry.fired = true;
                }
                // The masks are those of poll(2).
                let result = (ready.mask & 0xFFFF) as i32;
                self.completed.push_back(Completion { token, result, more: !once, buffer: None });
            }
            if !self.found.is_full() {
                break;
            }
            timeout = Duration::ZERO;
        }
        Ok(())
    }

    fn receive_now(&mut self, fd: RawFd, token: Token) {
        let Some(buffers) = &mut self.buffers else { return };
        let Some(buffer) = buffers.free.pop() else { return self.complete(token, -libc::ENOBUFS, false) };
        let result = tcp::receive(fd, &mut buffers.memory[start(buffer)..][..FRAME_BUFFER_BYTES as usize]);
        let lent = (result > 0).then(|| Lent::new(buffers.number, buffer));
        if lent.is_none() {
            buffers.free.push(buffer);
        }
        self.completed.push_back(Completion { token, result, more: false, buffer: lent });
    }

    fn complete(&mut self, token: Token, result: i32, more: bool) {
        self.completed.push_back(Completion { token, result, more, buffer: None });
    }
}

impl Engine for EpollEngine {
    fn choice(&self) -> EngineChoice {
        EngineChoice::Epoll
    }

    fn name(&self) -> &'static str {
        "epoll"
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lend_buffers(&mut self) -> Result<(), RingError> {
        self.buffers.get_or_insert_with(|| Buffers {
            number: Lent::pool_number(),
            memory: vec![0; usize::from(FRAME_BUFFERS) * FRAME_BUFFER_BYTES as usize],
            free: (0..FRAME_BUFFERS).collect(),
        });
        Ok(())
    }

    fn bytes(&self, lent: &Lent, length: usize) -> &[u8] {
        let buffers = self.buffers.as_ref().expect("a lent buffer has a pool");
        assert!(length <= FRAME_BUFFER_BYTES as usize);
        &buffers.memory[start(lent.of(buffers.number))..][..length]
    }

    fn recycle(&mut self, lent: Lent) {
        let buffers = self.buffers.as_mut().expect("a lent buffer has a pool");
        let buffer = lent.of(buffers.number);
        buffers.free.push(buffer);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()> {
        self.arm(fd.as_raw_fd(), u32::from(mask) | libc::EPOLLET.cast_unsigned(), token, false);
        Ok(())
    }

    fn watch_once(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()> {
        self.arm(fd.as_raw_fd(), u32::from(mask) | libc::EPOLLONESHOT.cast_unsigned(), token, true);
        Ok(())
    }

    fn cancel(&mut self, fd: BorrowedFd<'_>, what: Token, _: Token) -> io::Result<()> {
        let entry = self.entries.get_mut(fd.as_raw_fd().cast_unsigned() as usize);
        if let Some(Entry { fired, .. }) = entry.and_then(|entry| entry.take_if(|entry| entry.token == what))
        {
            let _ = self.epoll.delete_number(fd.as_raw_fd()); // at worst it was closed
            if !fired {
                self.complete(what, -libc::ECANCELED, false);
            }
        }
        Ok(())
    }

    fn discard(&mut self, fd: BorrowedFd<'_>, length: u32, token: Token) -> io::Result<()> {
        assert!(length > 0, "a recv of nothing looks like a FIN");
        self.queued.push(Queued::Discard { fd: fd.as_raw_fd(), length, token });
        Ok(())
    }

    fn receive(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        assert!(self.buffers.is_some(), "nothing to receive into");
        self.queued.push(Queued::Receive { fd: fd.as_raw_fd(), token });
        Ok(())
    }

    fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        let waits = wait.completions > 0 && self.completed.is_empty();
        let end = Instant::now() + wait.timeout;
        let mut queued = std::mem::take(&mut self.queued);
        self.counters.submitted += queued.len() as u64;
        for operation in queued.drain(..) {
            match operation {
                Queued::Discard { fd, length, token } => {
                    self.complete(token, tcp::discard(fd, length), false)
                }
                Queued::Receive { fd, token } => self.receive_now(fd, token),
            }
        }
        self.queued = queued;
        self.look(if waits && self.completed.is_empty() { wait.timeout } else { Duration::ZERO })?;
        let some = !self.completed.is_empty() && self.completed.len() < wait.completions as usize;
        if waits && some && !wait.window.is_zero() {
            // Events of this time cause no wake-up.
            std::thread::sleep(wait.window.min(end.since(Instant::now())));
            self.look(Duration::ZERO)?;
        }
        Ok(())
    }

    fn is_ready(&mut self) -> bool {
        !self.completed.is_empty()
    }

    fn reap(&mut self, into: &mut Vec<Completion>, most: usize) -> bool {
        let count = most.min(self.completed.len());
        into.extend(self.completed.drain(..count));
        self.counters.completions += count as u64;
        !self.completed.is_empty()
    }

    fn readiness(&mut self) -> io::Result<Readiness> {
        Ok(Readiness::Epoll(self.epoll.as_fd().try_clone_to_owned()?))
    }
}

fn start(buffer: u16) -> usize {
    usize::from(buffer) * FRAME_BUFFER_BYTES as usize
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::super::self_test::pair;
    use super::*;

    const IN: u16 = libc::POLLIN as u16;
    const RDHUP: i32 = libc::POLLRDHUP as i32;

    fn completions(engine: &mut EpollEngine) -> Vec<(u32, i32, bool)> {
        engine.submit_and_wait(Wait::NOT).unwrap();
        let mut found = Vec::new();
        engine.reap(&mut found, usize::MAX);
        found.iter().map(|one| (one.token.index(), one.result, one.more)).collect()
    }

    #[test]
    fn events_between_one_shot_and_the_next_arming_are_not_lost() {
        let mut engine = EpollEngine::new().unwrap();
        let (mut server, mut client) = pair().unwrap();
        engine.watch_once(server.as_fd(), IN, Token::new(1, 0, 1)).unwrap();
        client.write_all(b"a").unwrap();
        assert_eq!(completions(&mut engine), [(1, 1, false)]);
        server.read_exact(&mut [0]).unwrap();
        client.write_all(b"b").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(completions(&mut engine), [], "one shot is one shot");
        engine.watch_once(server.as_fd(), IN, Token::new(1, 0, 1)).unwrap();
        assert_eq!(completions(&mut engine), [(1, 1 | RDHUP, false)]);
    }

    #[test]
    fn a_number_that_is_given_out_again_is_another_socket() {
        let mut engine = EpollEngine::new().unwrap();
        let (server, mut client) = pair().unwrap();
        let number = server.as_raw_fd();
        let duplicate = server.try_clone().unwrap();
        engine.watch_once(server.as_fd(), IN, Token::new(1, 0, 1)).unwrap();
        // The socket lives on in its duplicate, and so does its entry; the number means another one at once.
        let (other, mut its_client) = pair().unwrap();
        // SAFETY: both are open descriptors of this test's.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);
        engine.watch_once(server.as_fd(), IN, Token::new(1, 1, 2)).unwrap();
        client.write_all(b"old").unwrap();
        assert_eq!(completions(&mut engine), []);
        its_client.write_all(b"new").unwrap();
        assert_eq!(completions(&mut engine), [(2, 1, false)]);
        drop((server, duplicate));
    }

    #[test]
    fn every_watch_completes_once_also_one_that_is_cancelled_after_it_fired() {
        let (server, mut client) = pair().unwrap();
        for reap_first in [false, true] {
            let mut engine = EpollEngine::new().unwrap();
            engine.watch_once(server.as_fd(), IN, Token::new(1, 0, 1)).unwrap();
            client.write_all(b"x").unwrap();
            engine.submit_and_wait(Wait::NOT).unwrap();
            let mut found = Vec::new();
            engine.reap(&mut found, if reap_first { 9 } else { 0 });
            engine.cancel(server.as_fd(), Token::new(1, 0, 1), Token::new(3, 0, 0)).unwrap();
            engine.submit_and_wait(Wait::NOT).unwrap();
            engine.reap(&mut found, 9);
            assert_eq!(found.len(), 1, "{found:?}");
            engine.watch(server.as_fd(), IN, Token::new(1, 0, 2)).unwrap();
            engine.cancel(server.as_fd(), Token::new(1, 0, 2), Token::new(3, 0, 0)).unwrap();
            assert_eq!(completions(&mut engine).last(), Some(&(2, -libc::ECANCELED, false)));
        }
    }

    #[test]
    fn a_batch_is_waited_for_within_the_timeout_also_behind_a_recv() {
        let mut engine = EpollEngine::new().unwrap();
        let (server, mut client) = pair().unwrap();
        client.write_all(b"x").unwrap();
        engine.discard(server.as_fd(), 9, Token::new(2, 0, 1)).unwrap();
        let (window, timeout) = (Duration::from_secs(50), Duration::from_millis(20));
        let before = Instant::now();
        engine.submit_and_wait(Wait { completions: 8, window, timeout }).unwrap();
        let waited = Instant::now().since(before);
        assert!(waited >= timeout && waited < window, "{waited:?}");
    }

    #[test]
    fn an_empty_pool_starves_and_a_buffer_that_comes_back_is_used_again() {
        let mut engine = EpollEngine::new().unwrap();
        engine.lend_buffers().unwrap();
        let (server, mut client) = pair().unwrap();
        client.write_all(b"abc").unwrap();
        let buffers = engine.buffers.as_mut().unwrap();
        let kept: Vec<_> = buffers.free.drain(1..).collect();
        engine.receive(server.as_fd(), Token::new(2, 0, 1)).unwrap();
        engine.receive(server.as_fd(), Token::new(2, 0, 2)).unwrap();
        engine.submit_and_wait(Wait::NOT).unwrap();
        let mut found = Vec::new();
        engine.reap(&mut found, 9);
        assert_eq!((found[0].result, found[1].result), (3, -libc::ENOBUFS));
        let lent = found.remove(0).buffer.unwrap();
        assert_eq!(engine.bytes(&lent, 3), b"abc");
        engine.recycle(lent);
        engine.receive(server.as_fd(), Token::new(2, 0, 3)).unwrap();
        assert_eq!(completions(&mut engine), [(3, -libc::EAGAIN, false)], "an empty recv keeps no buffer");
        assert_eq!(engine.buffers.as_ref().unwrap().free.len() + kept.len(), usize::from(FRAME_BUFFERS));
    }

    #[test]
    fn a_descriptor_that_cannot_be_watched_completes_with_its_errno() {
        let mut engine = EpollEngine::new().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let directory = std::fs::File::open("/proc").unwrap();
        engine.watch(directory.as_fd(), IN, Token::new(1, 0, 1)).unwrap();
        engine.arm(-1, IN.into(), Token::new(1, 0, 2), false);
        assert_eq!(completions(&mut engine), [(1, -libc::EPERM, false), (2, -libc::EBADF, false)]);
        drop(file);
    }
}
