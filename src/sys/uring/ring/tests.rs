use super::*;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys::engine::self_test;
use crate::time::Instant;

#[test]
fn completions_beyond_the_queue_are_kept_by_the_kernel_which_says_so() {
    let mut ring = Ring::with_nop(8, 16).unwrap();
    let all = 100;
    for index in 0..all {
        ring.nop(Token::new(1, 0, index)).unwrap();
    }
    ring.submit_and_wait(Wait::NOT).unwrap();
    assert!(ring.is_overflown());
    let mut seen = Vec::new();
    while seen.len() < all as usize {
        let before = seen.len();
        ring.reap(&mut seen, 5);
        ring.submit_and_wait(Wait::NOT).unwrap();
        assert!(seen.len() > before, "only {before} of {all}");
    }
    let indices: Vec<_> = seen.iter().map(|completion| completion.token.index()).collect();
    assert_eq!(indices, (0..all).collect::<Vec<_>>());
    assert!(!ring.is_overflown());
}

#[test]
fn all_completions_that_are_there_are_reaped_at_once() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let mut ring = Ring::new(256, 1024).unwrap();
    let (mut one, other) = UnixStream::pair().unwrap();
    let all = 200;
    for index in 0..all {
        ring.watch_once(other.as_fd(), libc::POLLIN as u16, Token::new(1, 0, index)).unwrap();
    }
    ring.submit_and_wait(Wait::NOT).unwrap();
    one.write_all(b"x").unwrap();
    ring.submit_and_wait(Wait { completions: 1, timeout: Duration::from_secs(30), ..Wait::NOT }).unwrap();
    let mut seen = Vec::new();
    assert!(ring.reap(&mut seen, 90), "a portion of it leaves some");
    assert_eq!(seen.len(), 90);
    assert!(ring.is_ready());
    assert!(!ring.reap(&mut seen, 512));
    let mut indices: Vec<_> = seen.iter().map(|completion| completion.token.index()).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..all).collect::<Vec<_>>());
    assert!(!ring.is_ready());
}

#[test]
fn missing_features_are_named_with_the_kernel_that_has_them() {
    let all = RingFeatures {
        defer_taskrun: true,
        no_sqarray: true,
        min_wait: true,
        no_iowait: true,
        restricted: true,
    };
    assert_eq!(all.missing(), None);
    let some = RingFeatures { no_sqarray: false, min_wait: false, ..all };
    assert_eq!(some.missing().unwrap(), "this kernel has no no_sqarray, min_wait: Linux 6.12 has");
}

#[test]
fn operations_that_the_program_does_not_use_are_refused_by_the_kernel() {
    let mut ring = Ring::new(8, 16).unwrap();
    assert!(ring.features.restricted, "every kernel that we know takes restrictions");
    ring.nop(Token::new(1, 0, 7)).unwrap();
    ring.submit_and_wait(Wait::NOT).unwrap();
    let mut seen = Vec::new();
    ring.reap(&mut seen, 8);
    assert_eq!((seen[0].token.index(), seen[0].result), (7, -libc::EACCES));
    // A registration that the program does not use.
    let descriptor = ring.inner.submitter().register_files(&[0]);
    assert_eq!(descriptor.unwrap_err().raw_os_error(), Some(libc::EACCES));
}

#[test]
#[should_panic(expected = "another pool's")]
fn a_buffer_of_another_ring_is_refused() {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    let mut rings = [Ring::new(8, 16).unwrap(), Ring::new(8, 16).unwrap()];
    rings.iter_mut().for_each(|ring| ring.lend_buffers().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    let (server, _) = listener.accept().unwrap();
    rings[0].receive(server.as_fd(), Token::new(1, 0, 0)).unwrap();
    rings[0].submit_and_wait(Wait::NOT).unwrap();
    let mut seen = Vec::new();
    rings[0].reap(&mut seen, 1);
    let lent = seen.remove(0).buffer.expect("a byte came");
    assert_eq!(rings[0].bytes(&lent, 1), b"x");
    let _ = rings[1].bytes(&lent, 1);
}

#[test]
#[should_panic(expected = "looks like a FIN")]
fn a_recv_of_nothing_is_never_submitted() {
    let mut ring = Ring::new(8, 16).unwrap();
    let _ = ring.discard(std::io::stdin().as_fd(), 0, Token::new(1, 0, 0));
}

#[test]
fn a_ring_with_the_flags_of_an_older_kernel_works_too_with_and_without_the_newer_waits() {
    for (defer_taskrun, no_sqarray) in Ring::STEPS {
        for old in [false, true] {
            let mut ring = Ring::with(8, 16, defer_taskrun, no_sqarray, false).unwrap();
            if old {
                ring.features.min_wait = false;
                ring.features.no_iowait = false;
            }
            assert_eq!(ring.features.defer_taskrun, defer_taskrun);
            self_test(&mut ring).unwrap();
        }
    }
}

#[test]
fn one_completion_ends_a_wait_however_short_the_batch_window_is() {
    let patience = Duration::from_secs(20);
    for window in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1), Duration::MAX] {
        let mut ring = Ring::with_nop(8, 16).unwrap();
        ring.nop(Token::new(1, 2, 3)).unwrap();
        let timeout = if window > patience { Duration::from_millis(1) } else { patience };
        let before = Instant::now();
        ring.submit_and_wait(Wait { completions: 16, window, timeout }).unwrap();
        assert!(before + patience > Instant::now(), "a window of {window:?} waited for more");
        let mut reaped = Vec::new();
        assert!(!ring.reap(&mut reaped, 16));
        assert_eq!(reaped[0].token, Token::new(1, 2, 3));
    }
}
