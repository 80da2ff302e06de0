//! The only writer of standard output and standard error.
//!
//! Standard output carries data that was asked for, and nothing else: it belongs to the wrapped command. Everything for a person goes
//! to standard error, each line beginning with `distmesh: `. There, [`Screen`] decides what is written: pure, the time is an argument.
//! A terminal has one live progress line, redrawn in place and erased before any other line; a log gets a progress line now and then.
//!
//! Text may come from a peer: control characters never reach the terminal. A closed pipe is not an error of ours.

mod mask;
mod screen;

use std::{
    ffi::OsString,
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    cli::OutputArgs,
    error::{Failure, OrFail},
};
pub use screen::{Screen, Settings, Verbosity, clean};

/// Writes to the person; clones write to the same screen.
#[derive(Clone)]
pub struct Ui(Arc<Mutex<Streams>>);

struct Streams {
    screen: Screen,
    err: Box<dyn Write + Send>,
    out: Box<dyn Write + Send>,
}

impl Ui {
    /// Writes to this process's own streams.
    pub fn on_standard_streams(output: OutputArgs, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let settings = Settings::new(output, io::stderr().is_terminal(), env);
        Self::new(settings, Box::new(io::stderr()), Box::new(io::stdout()))
    }

    /// Writes to these.
    pub fn new(settings: Settings, err: Box<dyn Write + Send>, out: Box<dyn Write + Send>) -> Self {
        let screen = Screen::new(settings);
        Self(Arc::new(Mutex::new(Streams { screen, err, out })))
    }

    /// Says something that a person wants to know.
    pub fn say(&self, text: impl fmt::Display) {
        self.write(|screen| screen.say(&text.to_string()));
    }

    /// Says something that only a person who gave `-v` wants to know.
    pub fn detail(&self, text: impl fmt::Display) {
        self.write(|screen| screen.detail(&text.to_string()));
    }

    /// Says that something is not as it should be, though the work goes on.
    pub fn warn(&self, text: impl fmt::Display) {
        self.write(|screen| screen.warn(&text.to_string()));
    }

    /// Says why the work ends here.
    pub fn fail(&self, failure: &Failure) {
        self.write(|screen| screen.fail(failure));
    }

    /// Shows how far the work is.
    pub fn progress(&self, line: &str, now: Instant) {
        let width = terminal_width();
        self.write(|screen| screen.progress(line, width, now));
    }

    /// Takes the live progress line away.
    pub fn end_progress(&self) {
        self.write(Screen::erase);
    }

    /// Another program writes to this terminal from now on (or no more). A live line would eat what it writes: while it runs, progress
    /// is as in a log.
    pub fn share_terminal(&self, shared: bool) {
        self.write(|screen| screen.share(shared));
    }

    /// Writes data to standard output. A reader that has gone wants no more of it: that is no failure.
    pub fn print(&self, data: &str) -> Result<(), Failure> {
        let mut streams = self.lock();
        let out = &mut streams.out;
        match out.write_all(data.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.or_cannot("write to standard output"),
        }
    }

    /// Passes on text that has its form already: help, a line of the debug log.
    pub fn verbatim(&self, text: &str) {
        self.write(|screen| screen.verbatim(text));
    }

    /// True when colours are wanted.
    pub fn has_colour(&self) -> bool {
        self.lock().screen.settings().colour
    }

    fn write(&self, render: impl FnOnce(&mut Screen) -> String) {
        let mut streams = self.lock();
        let mut text = render(&mut streams.screen);
        if streams.screen.settings().masked {
            text = mask::addresses(&text);
        }
        if !text.is_empty() {
            // Nobody is left to be told that standard error is closed.
            let _ = streams.err.write_all(text.as_bytes());
            let _ = streams.err.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // A panic while a line was being written leaves nothing that the next line could trip over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ui {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ui(…)")
    }
}

/// Lets the debug log share the screen with the progress line.
#[derive(Clone, Debug)]
pub struct LogLines(pub Ui);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.verbatim(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn on(kind: io::ErrorKind) -> Ui {
        Ui::new(
            Settings::default(),
            Box::new(Broken(kind)),
            Box::new(Broken(kind)),
        )
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let ui = on(io::ErrorKind::BrokenPipe);
        ui.say("to nobody");
        assert_eq!(ui.print("data"), Ok(()));
    }

    #[test]
    fn data_that_could_not_be_written_is_a_failure() {
        let failure = on(io::ErrorKind::StorageFull).print("data").unwrap_err();
        assert_eq!(failure.what(), "cannot write to standard output");
    }
}
