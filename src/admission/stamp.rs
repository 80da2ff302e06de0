//! Whether files are still those that were looked at.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What some files looked like. An upgrade of a compiler replaces its files, so their looks tell it, for a few microseconds
/// each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<Look>)>);

/// Device and inode, size, and the times of the last change of content and of inode, with their nanoseconds. Whoever
/// replaces a file cannot set the last.
type Look = (u64, u64, u64, [i64; 4]);

impl Stamp {
    /// How the files look now; links are followed. One that is not there may come.
    pub(super) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut stamp = Self::default();
        files.into_iter().for_each(|file| stamp.add(file));
        stamp
    }

    /// The same with one file more.
    pub(super) fn and(&self, file: &Path) -> Self {
        let mut more = self.clone();
        more.add(file.to_owned());
        more
    }

    /// A file that is named twice is looked at once.
    fn add(&mut self, file: PathBuf) {
        if self.0.iter().all(|(known, _)| *known != file) {
            let look = look(&file);
            self.0.push((file, look));
        }
    }

    /// Whether all of them look as they did.
    pub fn is_current(&self) -> bool {
        self.0.iter().all(|(file, seen)| look(file) == *seen)
    }
}

fn look(file: &Path) -> Option<Look> {
    let found = fs::metadata(file).ok()?;
    let times = [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    Some((found.dev(), found.ino(), found.size(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_named_twice_is_looked_at_once() {
        let names = ["/", "/dev", "/"].map(PathBuf::from);
        let stamp = Stamp::of(names).and(Path::new("/dev"));
        assert_eq!(stamp.0.len(), 2);
    }

    #[test]
    fn what_was_written_replaced_removed_or_came_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other] = ["file", "other"].map(|name| dir.path().join(name));
        fs::write(&file, "old").unwrap();
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&file, "new!").unwrap(),
            &|| fs::rename(&other, &file).unwrap(),
            &|| fs::remove_file(&file).unwrap(),
            &|| fs::write(&file, "back").unwrap(),
        ];
        for (index, change) in changes.iter().enumerate() {
            fs::write(&other, "old").unwrap();
            let stamp = Stamp::of([file.clone()]).and(Path::new("/"));
            assert!(stamp.is_current(), "{index}");
            change();
            assert!(!stamp.is_current(), "{index}");
        }
    }
}
