//! Buffers that the kernel receives into: a provided-buffer ring (`io_uring_register_buf_ring(3)`).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::limits::{FRAME_BUFFER_BYTES, FRAME_BUFFERS};
use crate::sys::operations::Lent;

/// A page, which the ring of entries must begin at.
#[derive(Clone)]
#[repr(C, align(4096))]
#[allow(dead_code)] // the kernel reads it
struct Page([u8; 4_096]);

const RING_BYTES: usize = FRAME_BUFFERS as usize * size_of::<BufRingEntry>();
const MEMORY_BYTES: usize = FRAME_BUFFERS as usize * FRAME_BUFFER_BYTES as usize;

/// Buffers that the kernel takes when a `recv` has bytes, and gives back with its completion.
///
/// The kernel owns a buffer from [`BufferPool::recycle`] until a completion names it. From then on the one [`Lent`] of it
/// owns it, until it is recycled. The pool must outlive its ring's operations: it is a field of the ring, which closes
/// its descriptor first. (The close does not wait for operations. But a buffer is selected when an operation is issued,
/// and no operation is issued on a closed ring.)
pub(super) struct BufferPool {
    /// The entries that the kernel reads: which buffers it may take. Never resized, so the address stays.
    ring: Vec<Page>,
    /// Reached by pointers only, since the kernel may write to most of them at any time. Never resized either.
    memory: Vec<u8>,
    tail: u16,
    /// Distinguishes the buffers of this pool from those of another.
    number: u32,
}

impl BufferPool {
    /// The buffer group that `recv` operations select from.
    pub(super) const GROUP: u16 = 1;

    /// Allocates the buffers and lends all of them to `ring`. Errors: EINVAL before Linux 5.19, ENOMEM if the limit on
    /// locked memory is reached.
    pub(super) fn new(ring: &IoUring) -> io::Result<BufferPool> {
        let mut pool = BufferPool {
            ring: vec![Page([0; 4_096]); RING_BYTES.div_ceil(size_of::<Page>())],
            memory: vec![0; MEMORY_BYTES], // pages that are touched when they are used
            tail: 0,
            number: Lent::pool_number(),
        };
        // SAFETY: the ring memory is page-aligned, zeroed, of `FRAME_BUFFERS` entries, and owned by the
        // pool, which the ring keeps until after its descriptor is closed.
        unsafe {
            let ring_memory = pool.entries() as u64;
            ring.submitter().register_buf_ring_with_flags(
                ring_memory,
                FRAME_BUFFERS,
                BufferPool::GROUP,
                0,
            )?;
        }
        for buffer in 0..FRAME_BUFFERS {
            pool.give(buffer);
        }
        pool.publish();
        Ok(pool)
    }

    fn entries(&mut self) -> *mut BufRingEntry {
        self.ring.as_mut_ptr().cast()
    }

    /// The buffer that a completion named, as a value that owns it.
    pub(super) fn lent(&self, buffer: u16) -> Lent {
        Lent::new(self.number, buffer)
    }

    /// The first `length` bytes of a buffer that a completion named.
    pub(super) fn bytes(&self, lent: &Lent, length: usize) -> &[u8] {
        let buffer = lent.of(self.number);
        assert!(buffer < FRAME_BUFFERS && length <= FRAME_BUFFER_BYTES as usize);
        // SAFETY: within the allocation, by the assertion. It was zeroed, so it is initialised. The
        // kernel writes only into buffers that it holds, and this one came back with a completion of this
        // pool's ring; it is lent out again only by `recycle`, which takes the `Lent` and needs the pool mutably.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer) * FRAME_BUFFER_BYTES as usize);
            std::slice::from_raw_parts(start, length)
        }
    }

    /// Gives a buffer back to the kernel with the next [`BufferPool::publish`]; once for every completion that names one,
    /// whatever its result is.
    pub(super) fn recycle(&mut self, lent: Lent) {
        self.give(lent.of(self.number));
    }

    fn give(&mut self, buffer: u16) {
        assert!(buffer < FRAME_BUFFERS);
        let slot = usize::from(self.tail & (FRAME_BUFFERS - 1));
        let (entries, buffers) = (self.entries(), self.memory.as_mut_ptr());
        // SAFETY: the slot is inside the ring memory. The kernel reads entries only below the published
        // tail, and this one is at or above it. The address is that of a whole buffer of the pool. The
        // entry is written field by field, so that the tail, which lies over the first entry's
        // reserved field, keeps its value.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry.set_addr(buffers.add(usize::from(buffer) * FRAME_BUFFER_BYTES as usize) as u64);
            entry.set_len(FRAME_BUFFER_BYTES);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Publishes the recycled buffers to the kernel; once a batch.
    pub(super) fn publish(&mut self) {
        let entries = self.entries();
        // SAFETY: the tail is the reserved field of the first entry, inside the ring memory and
        // aligned; the kernel reads it with acquire ordering.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
