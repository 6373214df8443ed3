//! The time of the ring itself: from the first operation of a batch until its last completion was
//! taken out, with one system call a batch. NOP is the ring alone; `discard` reads a heartbeat of 16 bytes
//! from each of as many TCP sockets, as a drain does.

use std::hint::black_box;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use deadpeer::limits;
use deadpeer::sys::rlimit::raise_nofile;
use deadpeer::sys::uring::{Completion, Engine, Ring, Token, Wait};

const BATCHES: [usize; 3] = [1, 32, 512];
const BEAT: [u8; 16] = [7; 16];
const WAIT: Wait =
    Wait { completions: limits::WAIT_BATCH, window: Duration::ZERO, timeout: Duration::from_secs(1) };

/// A ring as the tracker's loop has it.
struct Bench {
    ring: Ring,
    reaped: Vec<Completion>,
}

impl Bench {
    /// Submits the queued operations and takes out as many completions.
    fn turn(&mut self, batch: usize) {
        self.reaped.clear();
        while self.reaped.len() < batch {
            self.ring.submit_and_wait(WAIT).expect("the ring works");
            self.ring.reap(&mut self.reaped, limits::MAX_COMPLETIONS_PER_TURN);
        }
        black_box(&self.reaped);
    }
}

fn token(index: usize) -> Token {
    Token::new(1, 0, index as u32)
}

fn nop(criterion: &mut Criterion, bench: &mut Bench) {
    let mut group = criterion.benchmark_group("nop");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                for index in 0..batch {
                    bench.ring.nop(token(index)).expect("there is room");
                }
                bench.turn(batch);
            });
        });
    }
    group.finish();
}

/// Both ends of connections over loopback.
fn connections(count: usize) -> std::io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pair = || {
        let peer = TcpStream::connect(address)?;
        peer.set_nodelay(true)?;
        Ok((peer, listener.accept()?.0))
    };
    (0..count).map(|_| pair()).collect()
}

/// The beats are written outside of the measured time, so each batch is timed by itself. Reading the clock for that adds
/// some 50 ns a batch.
fn discard(criterion: &mut Criterion, bench: &mut Bench) {
    let most = BATCHES[BATCHES.len() - 1];
    raise_nofile().expect("the limit of descriptors can be raised");
    let mut connections = connections(most).expect("loopback connects");
    let mut group = criterion.benchmark_group("discard");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    for (peer, _) in &mut connections[..batch] {
                        peer.write_all(&BEAT).expect("loopback takes 16 bytes");
                    }
                    let before = Instant::now();
                    for (index, (_, fd)) in connections[..batch].iter().enumerate() {
                        bench
                            .ring
                            .discard(fd.as_fd(), limits::MAX_DISCARD, token(index))
                            .expect("there is room");
                    }
                    bench.turn(batch);
                    spent += before.elapsed();
                    let beats = bench.reaped.iter().filter(|one| one.result == BEAT.len() as i32).count();
                    assert_eq!(beats, batch, "a socket was not ready");
                }
                spent
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    match Ring::with_nop(limits::SQ_ENTRIES, limits::CQ_ENTRIES) {
        Ok(ring) => {
            let mut bench = Bench { ring, reaped: Vec::with_capacity(limits::MAX_COMPLETIONS_PER_TURN) };
            nop(&mut criterion, &mut bench);
            discard(&mut criterion, &mut bench);
        }
        Err(error) => eprintln!("ring: skipped: {error}"),
    }
    criterion.final_summary();
}
