//! The environment of a distcc client under distmesh.

use std::ffi::OsString;
use std::path::Path;

/// Drops every inherited `DISTCC_*` and sets our own; returns the environment and the names that were dropped.
#[must_use]
pub fn environment(
    inherited: Vec<(OsString, OsString)>,
    build_dir: &Path,
) -> (Vec<(OsString, OsString)>, Vec<String>) {
    let (dropped, mut kept): (Vec<_>, Vec<_>) = inherited
        .into_iter()
        .partition(|(name, _)| name.to_string_lossy().starts_with("DISTCC_"));
    for (name, value) in [
        ("DISTCC_DIR", build_dir.join("distcc").into_os_string()),
        ("DISTCC_LOG", build_dir.join("distcc.log").into_os_string()),
        // 0 loops for ever on a dead host; 60, the default, benches one for a minute.
        ("DISTCC_BACKOFF_PERIOD", "1".into()),
        ("DISTCC_PAUSE_TIME_MSEC", "50".into()),
        // Dispatch judges liveness; a client that gives up abandons healthy workers.
        ("DISTCC_IO_TIMEOUT", "86400".into()),
        ("DISTCC_NO_REWRITE_CROSS", "1".into()),
    ] {
        kept.push((name.into(), value));
    }
    (
        kept,
        dropped
            .into_iter()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_settings_are_dropped_and_named() {
        let (env, dropped) = environment(
            vec![
                ("DISTCC_HOSTS".into(), "x".into()),
                ("A".into(), "b".into()),
            ],
            Path::new("/b"),
        );
        assert_eq!(dropped, ["DISTCC_HOSTS"]);
        assert!(env.contains(&("DISTCC_DIR".into(), "/b/distcc".into())));
        assert!(env.iter().all(|(name, _)| name != "DISTCC_HOSTS"));
    }
}
