//! Datagrams one behind the other in one buffer, which is kept when they have been sent. Pure.

/// A queue that costs no allocation for each datagram.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Datagrams {
    /// Appends one that `fill` writes into a buffer of `room` bytes; it returns how many it used, or `None` for no datagram.
    pub(super) fn push_with(&mut self, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let used = fill(&mut self.bytes[start..]);
        self.bytes.truncate(start + used.unwrap_or(0));
        if used.is_some() {
            self.ends.push(self.bytes.len());
        }
    }

    pub(super) fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Drops all but the last `count`.
    pub(super) fn keep_last(&mut self, count: usize) {
        let surplus = self.ends.len().saturating_sub(count);
        if surplus == 0 {
            return;
        }
        let cut = self.ends[surplus - 1];
        self.bytes.drain(..cut);
        self.ends.drain(..surplus);
        self.ends.iter_mut().for_each(|end| *end -= cut);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Datagrams {
        let mut datagrams = Datagrams::default();
        datagrams.push(b"one");
        datagrams.push_with(10, |room| {
            room[..3].copy_from_slice(b"two");
            Some(3)
        });
        datagrams.push_with(10, |_| None);
        datagrams.push(b"three");
        datagrams
    }

    #[test]
    fn they_come_out_as_they_went_in() {
        assert_eq!(
            three().iter().collect::<Vec<_>>(),
            [&b"one"[..], b"two", b"three"]
        );
    }

    #[test]
    fn the_last_are_kept() {
        let mut datagrams = three();
        datagrams.keep_last(2);
        datagrams.keep_last(5);
        assert_eq!(
            datagrams.iter().collect::<Vec<_>>(),
            [&b"two"[..], b"three"]
        );
        datagrams.clear();
        assert_eq!(datagrams.iter().count(), 0);
    }
}
