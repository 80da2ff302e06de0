//! Memory that one job leaves to the next.
//!
//! A body has some hundred kilobytes. An allocator takes that much from the system anew and gives it back soon, and the system clears
//! it each time: with these, a job of 250 KB costs dispatch an eighth less CPU.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What lies ready. A handle: clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A vector that leaves its memory to the next when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    from: Buffers,
}

/// Two for each of a dozen jobs that are read or answered at one moment.
const KEPT: usize = 24;
/// Most sources and objects are smaller; all together this is 12 MiB at the most.
const LARGEST: usize = 512 << 10;
/// An allocator has less at hand, and what lies ready is for the others.
const SMALLEST: usize = 16 << 10;
/// A small body in a large buffer keeps it from a large one, and a thousand jobs that wait keep a thousand of them.
const WASTE: usize = 4;

impl Buffers {
    /// An empty one with room for so many bytes: the last that fits, for that is still in the processor's cache.
    pub(super) fn take(&self, room: usize) -> Buffer {
        let fits =
            |bytes: &Vec<u8>| (room..=room.saturating_mul(WASTE)).contains(&bytes.capacity());
        let mut kept = self.lock();
        let found = kept.iter().rposition(fits).map(|at| kept.remove(at));
        drop(kept);
        Buffer {
            bytes: found.unwrap_or_else(|| Vec::with_capacity(room)),
            from: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Makes room for so many bytes more, in memory that lies ready if there is any, and leaves its own to the next.
    pub(super) fn reserve(&mut self, more: usize) {
        let room = self.bytes.len().saturating_add(more);
        if room > self.bytes.capacity() {
            // Twice as much, so that many small steps move everything only a few times.
            let mut larger = self.from.take(room.max(self.bytes.capacity() * 2));
            larger.bytes.extend_from_slice(&self.bytes);
            *self = larger;
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Self::Target {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if !(SMALLEST..=LARGEST).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        let mut kept = self.from.lock();
        if kept.len() == KEPT {
            // The one that fitted nobody for longest.
            drop(kept.remove(0));
        }
        kept.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: usize = 1 << 10;

    #[test]
    fn memory_is_used_again_and_nothing_that_was_in_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take(60 * KB);
        first.extend(b"secret");
        let place = first.as_ptr();
        drop(first);
        let again = buffers.take(30 * KB);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(buffers.lock().is_empty());
    }

    #[test]
    fn a_buffer_that_is_too_small_or_far_too_large_stays_for_another() {
        let buffers = Buffers::default();
        drop([100, 500].map(|room| buffers.take(room * KB)));
        for (room, taken) in [(101, 101), (24, 24), (25, 100), (126, 500)] {
            let buffer = buffers.take(room * KB);
            assert_eq!(buffer.capacity(), taken * KB);
            // Not given back: what was there is all there is.
            std::mem::forget(buffer);
        }
    }

    #[test]
    fn what_grows_moves_to_what_lies_ready() {
        let buffers = Buffers::default();
        let ready = buffers.take(100 * KB);
        let place = ready.as_ptr();
        drop(ready);
        let mut buffer = buffers.take(0);
        buffer.reserve(3);
        buffer.extend(b"abc");
        buffer.reserve(90 * KB);
        assert_eq!((&buffer[..], buffer.as_ptr()), (&b"abc"[..], place));
        buffer.reserve(90 * KB);
        assert_eq!(buffer.as_ptr(), place, "there is room already");
        buffer.reserve(100 * KB);
        assert_eq!((&buffer[..], buffer.capacity()), (&b"abc"[..], 200 * KB));
        assert_eq!(buffers.lock()[0].as_ptr(), place, "and left for the next");
    }

    #[test]
    fn only_so_much_is_kept_and_the_latest_of_it() {
        let buffers = Buffers::default();
        let rooms = |from: usize| (from..=2 * KEPT).map(|room| SMALLEST + room);
        let all: Vec<_> = rooms(1).map(|room| buffers.take(room)).collect();
        drop(all);
        drop(buffers.take(SMALLEST - 1));
        drop(buffers.take(LARGEST + 1));
        let kept: Vec<_> = buffers.lock().iter().map(Vec::capacity).collect();
        assert_eq!(kept, Vec::from_iter(rooms(KEPT + 1)));
    }
}
