//! Memory that the kernel may write received bytes into: a provided-buffer ring
//! (`io_uring_register_buf_ring(3)`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::{Ring, RingError};
use crate::limits::{FRAME_BUFFER_BYTES, FRAME_BUFFERS};

const PAGE: usize = 4_096;

/// Buffers that the kernel takes when a `recv` has bytes for one, and that come back with its
/// completion.
///
/// A buffer is the kernel's from [`BufferPool::recycle`] until a completion names it; it is ours from
/// then until it is recycled. The pool must outlive its ring's operations: the owner drops the ring
/// first (`Ring::drop` ends and waits for nothing, but a ring without a descriptor has no operations
/// that could select a buffer, and selection happens only when a request is issued).
pub struct BufferPool {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

// SAFETY: the pool owns both allocations; nothing in it is tied to a thread.
unsafe impl Send for BufferPool {}

impl BufferPool {
    /// The group that `recv` operations select from.
    pub(super) const GROUP: u16 = 1;
    const RING_BYTES: usize = FRAME_BUFFERS as usize * size_of::<BufRingEntry>();
    const MEMORY_BYTES: usize = FRAME_BUFFERS as usize * FRAME_BUFFER_BYTES as usize;

    fn layouts() -> (Layout, Layout) {
        let of = |bytes| Layout::from_size_align(bytes, PAGE).expect("a power of two and small sizes");
        (of(BufferPool::RING_BYTES), of(BufferPool::MEMORY_BYTES))
    }

    /// Allocates the buffers and lends all of them to `ring`.
    ///
    /// # Errors
    ///
    /// EINVAL before Linux 5.19, ENOMEM when memory is locked up.
    pub fn new(ring: &Ring) -> Result<BufferPool, RingError> {
        let (ring_layout, memory_layout) = BufferPool::layouts();
        let allocate = |layout: Layout| {
            // SAFETY: the layouts have sizes above zero, by the constants.
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
        };
        let mut pool =
            BufferPool { ring: allocate(ring_layout).cast(), memory: allocate(memory_layout), tail: 0 };
        // SAFETY: the ring memory is page-aligned, zeroed, of `FRAME_BUFFERS` entries, and owned by the
        // pool, which the owner keeps until after the ring.
        let lent = unsafe {
            let ring_memory = pool.ring.as_ptr() as u64;
            let submitter = ring.inner().submitter();
            submitter.register_buf_ring_with_flags(ring_memory, FRAME_BUFFERS, BufferPool::GROUP, 0)
        };
        lent.map_err(|source| RingError::new("lend buffers to io_uring", source))?;
        for buffer in 0..FRAME_BUFFERS {
            pool.recycle(buffer);
        }
        pool.publish();
        Ok(pool)
    }

    /// The first `length` bytes of a buffer that a completion named and that was not recycled yet.
    ///
    /// # Panics
    ///
    /// When there is no such buffer or it is shorter.
    #[must_use]
    pub fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < FRAME_BUFFERS && length <= FRAME_BUFFER_BYTES as usize);
        // SAFETY: within the allocation, by the assertion. It was zeroed, so it is initialised. The
        // kernel writes only into buffers that it holds, and this one came back with a completion; it
        // is lent out again only by `recycle`, which needs the pool mutably.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer) * FRAME_BUFFER_BYTES as usize);
            std::slice::from_raw_parts(start, length)
        }
    }

    /// Gives a buffer back to the kernel, with the next [`BufferPool::publish`]. Once for every
    /// completion that names a buffer, whatever its result says.
    ///
    /// # Panics
    ///
    /// When there is no such buffer.
    pub fn recycle(&mut self, buffer: u16) {
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

    /// Lets the kernel see what was recycled: once a batch.
    pub fn publish(&mut self) {
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
