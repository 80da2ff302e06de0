//! Where a report is written.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Report;

/// Writes `report.json` into a directory, which is made if it is missing: a reader sees the old report or the new one, never a part.
/// Answers with the file's path.
pub fn write(dir: &Path, report: &Report) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    let mut file = tempfile::Builder::new()
        .prefix(".report")
        // A report is to be read by others: CI uploads it, a web server shows it. The umask still has its say.
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(&text)?;
    let path = dir.join("report.json");
    file.persist(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_and_leaves_no_other_file() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        let report = Report {
            exit_code: 3,
            ..Report::default()
        };
        write(&dir, &Report::default()).unwrap();
        let path = write(&dir, &report).unwrap();
        let read: Report = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(read, report);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let tmp = tempfile::NamedTempFile::new().unwrap();
        assert!(write(&tmp.path().join("x"), &Report::default()).is_err());
    }
}
