//! Buffers that the kernel receives into: a provided-buffer ring (`io_uring_register_buf_ring(3)`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use io_uring::IoUring;

use crate::limits::{FRAME_BUFFER_BYTES, FRAME_BUFFERS};
use crate::sys::engine::Lent;

const PAGE: usize = 4_096;

/// Buffers that the kernel takes when a `recv` has bytes, and gives back with its completion.
///
/// The kernel owns a buffer from [`BufferPool::recycle`] until a completion names it. From then on the one [`Lent`] of it
/// owns it, until it is recycled. The pool must outlive its ring's operations: it is a field of the ring, which closes
/// its descriptor first. (The close does not wait for operations. But a buffer is selected when an operation is issued,
/// and no operation is issued on a closed ring.)
pub(super) struct BufferPool {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    /// Distinguishes the buffers of this pool from those of another.
    number: u32,
}

// SAFETY: the pool owns both allocations; nothing in it is tied to a thread.
unsafe impl Send for BufferPool {}

impl BufferPool {
    /// The buffer group that `recv` operations select from.
    pub(super) const GROUP: u16 = 1;
    const RING_BYTES: usize = FRAME_BUFFERS as usize * size_of::<BufRingEntry>();
    const MEMORY_BYTES: usize = FRAME_BUFFERS as usize * FRAME_BUFFER_BYTES as usize;

    fn layouts() -> (Layout, Layout) {
        let of = |bytes| Layout::from_size_align(bytes, PAGE).expect("a power of two and small sizes");
        (of(BufferPool::RING_BYTES), of(BufferPool::MEMORY_BYTES))
    }

    /// Allocates the buffers and lends all of them to `ring`. Errors: EINVAL before Linux 5.19, ENOMEM if the limit on
    /// locked memory is reached.
    pub(super) fn new(ring: &IoUring) -> io::Result<BufferPool> {
        let (ring_layout, memory_layout) = BufferPool::layouts();
        let allocate = |layout: Layout| {
            // SAFETY: the layouts have sizes above zero, by the constants.
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
        };
        let mut pool = BufferPool {
            ring: allocate(ring_layout).cast(),
            memory: allocate(memory_layout),
            tail: 0,
            number: Lent::pool_number(),
        };
        // SAFETY: the ring memory is page-aligned, zeroed, of `FRAME_BUFFERS` entries, and owned by the
        // pool, which the ring keeps until after its descriptor is closed.
        unsafe {
            let ring_memory = pool.ring.as_ptr() as u64;
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
        // SAFETY: the slot is inside the ring memory. The kernel reads entries only below the published
        // tail, and this one is at or above it. The address is that of a whole buffer of the pool. The
        // entry is written field by field, so that the tail, which lies over the first entry's
        // reserved field, keeps its value.
        unsafe {
            let entry = &mut *self.ring.as_ptr().add(slot);
            let start = self.memory.as_ptr().add(usize::from(buffer) * FRAME_BUFFER_BYTES as usize);
            entry.set_addr(start as u64);
            entry.set_len(FRAME_BUFFER_BYTES);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Publishes the recycled buffers to the kernel; once a batch.
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail is the reserved field of the first entry, inside the ring memory and
        // aligned; the kernel reads it with acquire ordering.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        let (ring_layout, memory_layout) = BufferPool::layouts();
        // SAFETY: both were allocated with these layouts and are not used after this.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), ring_layout);
            dealloc(self.memory.as_ptr(), memory_layout);
        }
    }
}
