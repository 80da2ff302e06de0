//! Keeps distcc's back-off away from ports that always answer.
//!
//! distcc marks a host as disliked by touching `lock/backoff_tcp_HOST_PORT_0`, also when a source file simply has an error;
//! until the back-off is over every other job avoids the host, and with one host everything runs locally. A directory of
//! that name with an old modification time cannot be written and cannot be unlinked, so the mark is never made.
//!
//! Measured with Debian's distcc 3.4 and `DISTCC_BACKOFF_PERIOD=1`, one host:
//! - a directory made just now *is* a back-off mark (no connection at all): the time must be set before it gets its name;
//! - with the shield, an answer of exit 100 gives one connection and one local compile;
//! - with the shield, a port that closes every connection is tried again for ever (534 connections in 4 s). So a shielded
//!   port must answer every request, see [`super::hand_back_answer`], and a port that no longer does must lose its shield
//!   first. `DISTCC_BACKOFF_PERIOD=-1` loops in the same way (594 in 4 s) and cannot be ended per port.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Makes distcc unable to put `127.0.0.1:port` in back-off. `distcc_dir` is `DISTCC_DIR`.
pub fn backoff_shield(distcc_dir: &Path, port: u16) -> io::Result<()> {
    let mark = mark(distcc_dir, port);
    let fresh = mark.with_extension("new");
    if mark.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&fresh)?;
    fs::File::open(&fresh)?.set_modified(SystemTime::UNIX_EPOCH)?;
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(fresh, mark)
}

/// Gives the port its ordinary back-off again: call it before the port stops answering.
pub fn backoff_unshield(distcc_dir: &Path, port: u16) -> io::Result<()> {
    match fs::remove_dir(mark(distcc_dir, port)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn mark(distcc_dir: &Path, port: u16) -> PathBuf {
    distcc_dir
        .join("lock")
        .join(format!("backoff_tcp_127.0.0.1_{port}_0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shield_is_a_directory_too_old_to_count_as_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lock")).unwrap();
        fs::write(mark(dir.path(), 7), "x").unwrap();
        backoff_shield(dir.path(), 7).unwrap();
        backoff_shield(dir.path(), 7).unwrap();
        let meta = fs::metadata(mark(dir.path(), 7)).unwrap();
        assert!(meta.is_dir());
        assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH);
        backoff_unshield(dir.path(), 7).unwrap();
        backoff_unshield(dir.path(), 7).unwrap();
        assert!(!mark(dir.path(), 7).exists());
    }
}
