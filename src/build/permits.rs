//! The pipe in which permits to compile here lie ready, one byte each.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::home::{Offer, Permit};
use super::layout::{Gauge, make_fifo, open_both_ways};

/// The session's end.
#[derive(Debug)]
pub(super) struct Permits {
    pipe: File,
    gauge: Gauge,
    permit: Permit,
    /// How many lay in the pipe when that was last looked at.
    ready: u32,
}

/// More are never offered.
const BATCH: usize = 512;

impl Permits {
    pub(super) fn open(build_dir: &Path) -> io::Result<Self> {
        let at = at(build_dir);
        make_fifo(&at)?;
        Ok(Self {
            pipe: open_quickly(&at)?,
            gauge: Gauge::open(&at)?,
            permit: Permit::Spare,
            ready: 0,
        })
    }

    /// Makes the pipe hold what is offered.
    pub(super) fn offer(&mut self, offer: Offer) {
        if offer.permit != self.permit {
            self.take_back(BATCH);
            self.permit = offer.permit;
        }
        let ready = self.gauge.waiting() as usize;
        let wanted = (offer.count as usize).min(BATCH);
        if wanted > ready {
            let bytes = [byte(offer.permit); BATCH];
            // A pipe that cannot be written offers nothing; compiles go to workers as ever.
            drop(self.pipe.write(&bytes[..wanted - ready]));
        } else if wanted < ready {
            self.take_back(ready - wanted);
        }
        self.ready = wanted as u32;
    }

    /// How many spare permits lie in it.
    pub(super) fn spare(&self) -> u32 {
        match self.permit {
            Permit::Spare => self.ready(),
            Permit::Ordinary => 0,
        }
    }

    /// How many permits lay in it after the last offer; shims may have taken some.
    pub(super) fn ready(&self) -> u32 {
        self.ready
    }

    fn take_back(&mut self, count: usize) {
        let mut bytes = [0; BATCH];
        // A shim may be quicker: then there is less to take back.
        drop(self.pipe.read(&mut bytes[..count.min(BATCH)]));
    }
}

/// The shim's end: a permit, if one lies ready.
pub(super) fn take(build_dir: &Path) -> Option<Permit> {
    let mut byte = [0];
    let mut pipe = open_quickly(&at(build_dir)).ok()?;
    match pipe.read(&mut byte) {
        Ok(1) => [Permit::Ordinary, Permit::Spare]
            .into_iter()
            .find(|permit| self::byte(*permit) == byte[0]),
        _ => None,
    }
}

/// Leaves a permit to the next.
pub(super) fn put_back(build_dir: &Path, permit: Permit) {
    if let Ok(mut pipe) = open_quickly(&at(build_dir)) {
        drop(pipe.write(&[byte(permit)]));
    }
}

fn byte(permit: Permit) -> u8 {
    match permit {
        Permit::Ordinary => b'o',
        Permit::Spare => b's',
    }
}

fn at(build_dir: &Path) -> PathBuf {
    build_dir.join("permits")
}

fn open_quickly(at: &Path) -> io::Result<File> {
    let pipe = open_both_ways(at)?;
    rustix::io::ioctl_fionbio(&pipe, true)?;
    Ok(pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_takes_what_is_offered_and_never_waits() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(dir.path()), None, "no session");
        let mut permits = Permits::open(dir.path()).unwrap();
        let offer = |permit, count| Offer { permit, count };
        assert_eq!(take(dir.path()), None);
        permits.offer(offer(Permit::Spare, 2));
        assert_eq!(take(dir.path()), Some(Permit::Spare));
        assert_eq!(permits.gauge.waiting(), 1);
        put_back(dir.path(), Permit::Spare);
        assert_eq!((permits.gauge.waiting(), permits.spare()), (2, 2));
        assert_eq!(take(dir.path()), Some(Permit::Spare));
        permits.offer(offer(Permit::Ordinary, 1));
        assert_eq!((permits.spare(), permits.ready()), (0, 1));
        assert_eq!(take(dir.path()), Some(Permit::Ordinary));
        assert_eq!(take(dir.path()), None);
        permits.offer(offer(Permit::Ordinary, 3));
        permits.offer(offer(Permit::Ordinary, 0));
        assert_eq!(take(dir.path()), None);
    }
}
