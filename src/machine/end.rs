//! The end of this process by a signal.

use std::{os::unix::process::CommandExt, process::Command};

use rustix::process::Signal;

/// Ends this process by a signal that it has a handler for, as if it had none. Returns where that cannot be done, and for signals that
/// are not to end programs in peace.
///
/// A shell waits for what it runs, and goes on with its script unless that was ended by the interrupt: exit code 130 says that it was
/// taken for something else (M. Cracauer, "Proper handling of SIGINT/SIGQUIT").
/// Handlers are gone when a process becomes another program, so this one becomes a shell that sends the signal to itself.
pub fn by_signal(signal: i32) {
    let peaceful = [Signal::INT, Signal::TERM, Signal::HUP].map(Signal::as_raw);
    if peaceful.contains(&signal) {
        let number = signal.to_string();
        // Where that is no program, the exit code has to do.
        let _ = Command::new("/bin/sh").args(["-c", SCRIPT, &number]).exec();
    }
}

/// The first process of a container does not end by a signal.
const SCRIPT: &str = r#"kill -"$0" $$; exit $((128 + $0))"#;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_script_ends_by_its_signal() {
        let terminate = Signal::TERM.as_raw();
        let ended = Command::new("/bin/sh")
            .args(["-c", SCRIPT, &terminate.to_string()])
            .status()
            .unwrap();
        assert_eq!(ended.signal(), Some(terminate));
    }
}
