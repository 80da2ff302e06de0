//! The makes that run now, and their token pipes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bell::{Bell, Rope};
use super::broker::{Holder, LossWatch, deal};
use super::layout::{Gauge, PipeEnd, open_pipe, pipe};
use super::pulse::Pulse;
use super::record::MakeBegan;
use crate::machine::{clock::monotonic_ns, processes};

/// Tokens moved by one call; more wait for the next tick.
const BATCH: usize = 512;
/// While something is odd: four such looks find a lost token.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look costs several system calls for each process of the build, and kills are rare: so a lost token is found within 11 s.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(8);

/// All makes of one build.
#[derive(Debug, Default)]
pub(super) struct Makes {
    running: Vec<Make>,
    returned: u32,
    /// When all that had been returned was collected last.
    settled_ns: u64,
    /// When lost tokens are looked for next, and how long after the last look that is.
    look_due: Option<Instant>,
    look_after: Duration,
}

#[derive(Debug)]
struct Make {
    pid: u32,
    dir: PathBuf,
    pulse: Pulse,
    /// `None` when it is serial.
    pipes: Option<Pipes>,
    ceiling: Option<u32>,
    nested: bool,
    /// Tokens written and not returned, the unread ones included.
    out: u32,
    loss: LossWatch,
}

#[derive(Debug)]
struct Pipes {
    tokens: File,
    unread: Gauge,
    returned: File,
    rope: Option<Rope>,
}

impl Makes {
    /// A make begins, whose returned tokens ring the bell; or it begins anew under its number: make executes itself again when it has
    /// rebuilt a makefile.
    pub(super) fn handle_begin(&mut self, began: MakeBegan, bell: Option<&Bell>) {
        // It had waited for its jobs, so its tokens are in pipes that are gone.
        for before in self.running.extract_if(.., |make| make.pid == began.pid) {
            self.returned += before.out;
        }
        let serial = began.ceiling == Some(1);
        let pipes = if serial {
            Ok(None)
        } else {
            Pipes::open(&began, bell).map(Some)
        };
        match pipes {
            Ok(pipes) => self.running.push(Make {
                pulse: Pulse::of(began.pid),
                pid: began.pid,
                dir: began.dir,
                pipes,
                ceiling: began.ceiling,
                nested: began.nested,
                out: 0,
                loss: LossWatch::default(),
            }),
            // It has ended already, and taken its directory's meaning with it.
            Err(error) => tracing::debug!(pid = began.pid, %error, "a make without pipes"),
        }
    }

    /// Forgets makes that ended, with the tokens they had.
    pub(super) fn reap(&mut self) {
        self.running.retain(|make| {
            let alive = make.pulse.beats();
            if !alive {
                self.returned += make.out;
                let _ = std::fs::remove_dir_all(&make.dir);
            }
            alive
        });
    }

    /// Collects what was returned and shows what is held.
    pub(super) fn settle(&mut self) -> Vec<Holder> {
        let before: u32 = self.running.iter().map(|make| make.out).sum();
        let holders = self.running.iter_mut().map(Make::settle).collect();
        let after: u32 = self.running.iter().map(|make| make.out).sum();
        self.returned += before - after;
        self.settled_ns = monotonic_ns();
        holders
    }

    /// Tokens that came back since this was asked last, and by when.
    pub(super) fn take_returned(&mut self) -> (u32, u64) {
        (std::mem::take(&mut self.returned), self.settled_ns)
    }

    /// Fills or empties each pipe as the policy says, and returns whether a make got a token.
    pub(super) fn deal(&mut self, holders: &[Holder], room: u32) -> bool {
        let dealt = deal(holders, room);
        let mut any = false;
        for (make, (holder, wanted)) in self.running.iter_mut().zip(holders.iter().zip(dealt)) {
            make.refill(holder.unread, wanted);
            any |= wanted > holder.unread;
        }
        any
    }

    /// Looks for tokens whose sub-make was killed, when that is due, and grants them again.
    pub(super) fn find_lost(&mut self, holders: &[Holder], now: Instant) {
        let held = holders.iter().any(|holder| holder.held > 0);
        // A process that takes tokens itself, as rustc and some linkers do, has a thread for each: where threads are not told, its tokens
        // would be taken for lost.
        if !held || !processes::are_told() || self.look_due.is_some_and(|due| now < due) {
            return;
        }
        let lost = self.handle_look(holders);
        if lost > 0 {
            tracing::info!(lost, "tokens of a killed make are granted again");
        }
        self.look_after = match self.running.iter().any(|make| make.loss.suspects()) {
            true => LOOK_EVERY,
            false => (self.look_after * 2).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY),
        };
        self.look_due = Some(now + self.look_after);
    }

    /// A look; returns how many tokens were lost.
    fn handle_look(&mut self, holders: &[Holder]) -> u32 {
        let makes = self.running.iter_mut().zip(holders);
        let looked = makes.map(|(make, holder)| {
            let lost = make
                .loss
                .handle_look(holder.held, processes::leaf_threads(make.pid));
            make.out = make.out.saturating_sub(lost);
            lost
        });
        looked.sum()
    }
}

impl Make {
    fn settle(&mut self) -> Holder {
        let mut unread = 0;
        if let Some(pipes) = &mut self.pipes {
            self.out = self.out.saturating_sub(pipes.collect());
            unread = pipes.unread().min(self.out);
        }
        Holder {
            held: self.out - unread,
            unread,
            ceiling: self.ceiling,
            nested: self.nested,
        }
    }

    fn refill(&mut self, unread: u32, wanted: u32) {
        let Some(pipes) = &mut self.pipes else { return };
        let mut bytes = [b'+'; BATCH];
        if wanted > unread {
            let more = (wanted - unread).min(BATCH as u32) as usize;
            self.out += pipes.tokens.write(&bytes[..more]).unwrap_or(0) as u32;
        } else if wanted < unread {
            // make may be quicker: then there is less to take back.
            let less = (unread - wanted).min(BATCH as u32) as usize;
            let back = pipes.tokens.read(&mut bytes[..less]).unwrap_or(0);
            self.out = self.out.saturating_sub(back as u32);
        }
    }
}

impl Pipes {
    fn open(began: &MakeBegan, bell: Option<&Bell>) -> io::Result<Self> {
        let open = |end| {
            let file = open_pipe(&began.dir, end)?;
            rustix::io::ioctl_fionbio(&file, true)?;
            Ok::<_, io::Error>(file)
        };
        let returned = open(PipeEnd::Returned)?;
        let rope = bell.map(|bell| bell.hang(&returned)).transpose()?;
        Ok(Self {
            tokens: open(PipeEnd::Tokens)?,
            unread: Gauge::open(&pipe(&began.dir, PipeEnd::Tokens))?,
            returned,
            rope,
        })
    }

    fn collect(&mut self) -> u32 {
        // What comes after this rings, and is taken at the next look.
        if let Some(rope) = &self.rope {
            return rope.take();
        }
        let (mut bytes, mut sum) = ([0; BATCH], 0);
        while let Ok(count @ 1..) = self.returned.read(&mut bytes) {
            sum += count as u32;
        }
        sum
    }

    fn unread(&self) -> u32 {
        self.unread.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::broker::{Limits, room};
    use crate::build::layout::make_pipes;
    use crate::event::Load;

    const LIMITS: Limits = Limits {
        ahead: 0,
        local: 4,
        load: Load {
            capacity: 0,
            in_dispatch: 0,
            stranded: 0,
        },
        spare: 0,
        offered: 0,
        ready: 0,
    };

    fn begin(makes: &mut Makes, parent: &std::path::Path, pid: u32, ceiling: Option<u32>) -> File {
        let dir = parent.join(pid.to_string());
        make_pipes(&dir).unwrap();
        let end = open_pipe(&dir, PipeEnd::Tokens).unwrap();
        let began = MakeBegan {
            pid,
            dir,
            ceiling,
            nested: false,
        };
        makes.handle_begin(began, None);
        end
    }

    fn tick(makes: &mut Makes) -> Vec<Holder> {
        makes.reap();
        let holders = makes.settle();
        makes.deal(&holders, room(&holders, LIMITS));
        makes.settle()
    }

    #[test]
    fn a_make_that_ends_gives_everything_back() {
        let (dir, mut makes) = (tempfile::tempdir().unwrap(), Makes::default());
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let _mine = begin(&mut makes, dir.path(), std::process::id(), None);
        let mut theirs = begin(&mut makes, dir.path(), other.id(), None);
        assert_eq!(tick(&mut makes).len(), 2);
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(tick(&mut makes)[1].held, 1);
        other.kill().unwrap();
        // On Linux a zombie, not yet waited for, does not run; elsewhere a process lives until it is waited for.
        #[cfg(not(target_os = "linux"))]
        other.wait().unwrap();
        let tries = (0..100).find(|_| {
            std::thread::sleep(Duration::from_millis(5));
            tick(&mut makes).len() == 1
        });
        other.wait().unwrap();
        assert!(tries.is_some());
        assert_eq!(
            tick(&mut makes)[0].unread,
            3,
            "the whole limit is the first make's again"
        );
        assert!(!dir.path().join(other.id().to_string()).exists());
    }

    #[test]
    fn a_make_that_executes_itself_again_is_one_make() {
        let (dir, mut makes) = (tempfile::tempdir().unwrap(), Makes::default());
        let _first = begin(&mut makes, dir.path(), std::process::id(), None);
        assert_eq!(tick(&mut makes)[0].unread, 3);
        let _again = begin(&mut makes, dir.path(), std::process::id(), None);
        let holders = tick(&mut makes);
        assert_eq!((holders.len(), holders[0].unread), (1, 3));
        assert_eq!(makes.take_returned().0, 3);
    }

    #[test]
    fn a_ceiling_binds_only_the_make_that_asked() {
        let (dir, mut makes) = (tempfile::tempdir().unwrap(), Makes::default());
        let _end = begin(&mut makes, dir.path(), std::process::id(), Some(2));
        assert_eq!(tick(&mut makes)[0].unread, 1);
    }
}
