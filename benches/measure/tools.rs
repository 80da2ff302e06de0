//! Programs that a benchmark needs.

/// What to say when some are missing; each with the Debian package that has it.
pub(crate) fn missing(tools: &[(&str, &str)]) -> Option<String> {
    let absent = tools.iter().filter(|(tool, _)| which::which(tool).is_err());
    let (names, packages): (Vec<_>, Vec<_>) = absent.copied().unzip();
    (!names.is_empty()).then(|| {
        format!(
            "needs {}: apt-get install {}",
            names.join(", "),
            packages.join(" ")
        )
    })
}
