//! What other users may reach.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Whether everybody may walk into a directory, or run a file, by this absolute path: through it as it is named, and where it leads.
pub fn is_open_to_all(path: &Path) -> bool {
    const SEARCH: u32 = 0o001;
    let open = |path: &Path| {
        path.ancestors()
            .all(|part| fs::metadata(part).is_ok_and(|meta| meta.mode() & SEARCH != 0))
    };
    path.is_absolute() && open(path) && path.canonicalize().is_ok_and(|real| open(&real))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_out_of_a_closed_directory_is_closed() {
        let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(at("own")).unwrap();
        fs::create_dir(at("shared")).unwrap();
        fs::write(at("program"), "").unwrap();
        fs::write(at("shared/program"), "").unwrap();
        symlink(at("program"), at("own/program")).unwrap();
        symlink(at("shared"), at("own/profile")).unwrap();
        set(dir.path(), 0o711);
        set(&at("own"), 0o700);
        set(&at("program"), 0o755);
        set(&at("shared/program"), 0o755);
        let ways = ["own/program", "own/profile/program"].map(at);
        assert!(is_open_to_all(&at("program")));
        assert!(!ways.iter().any(|way| is_open_to_all(way)));
        set(&at("own"), 0o711);
        assert!(ways.iter().all(|way| is_open_to_all(way)));
        set(&at("program"), 0o700);
        assert!(!is_open_to_all(&at("own/program")));
    }
}
