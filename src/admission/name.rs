//! What a compiler's file name says.

/// A compiler's file name taken apart: `aarch64-linux-gnu-g++-12` is the target's prefix, the driver and a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompilerName<'a> {
    /// The target's triple, when the name starts with one.
    pub(super) prefix: Option<&'a str>,
    /// The driver.
    pub(super) driver: Driver,
    /// The version, when the name ends in one.
    pub(super) version: Option<&'a str>,
}

/// The driver that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Cc,
    Cxx,
    Gcc,
    Gxx,
    Clang,
    Clangxx,
}

/// The language that a driver takes a file of unclear language for. `g++` compiles even `x.c` as C++.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    C,
    Cxx,
}

impl<'a> CompilerName<'a> {
    /// Takes a file name apart; `None` when it is not a compiler's: `gcc-ar`, `clang-format-14`, `afl-gcc`, …
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (stem, version) = match name.rsplit_once('-') {
            Some((stem, version)) if is_version(version) => (stem, Some(version)),
            _ => (name, None),
        };
        let (prefix, driver) = match stem.rsplit_once('-') {
            Some((prefix, driver)) => (Some(prefix), driver),
            None => (None, stem),
        };
        if prefix.is_some_and(|prefix| !is_target(prefix)) {
            return None;
        }
        Some(Self {
            prefix,
            driver: Driver::parse(driver)?,
            version,
        })
    }

    /// The name in a path of either machine.
    pub(super) fn of_path(path: &'a str) -> Option<Self> {
        Self::parse(file_name(path))
    }
}

impl Driver {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "cc" => Self::Cc,
            "c++" => Self::Cxx,
            "gcc" => Self::Gcc,
            "g++" => Self::Gxx,
            "clang" => Self::Clang,
            "clang++" => Self::Clangxx,
            _ => return None,
        })
    }

    /// The language it takes a file for.
    pub(super) fn language(self) -> Language {
        match self {
            Self::Cc | Self::Gcc | Self::Clang => Language::C,
            Self::Cxx | Self::Gxx | Self::Clangxx => Language::Cxx,
        }
    }
}

/// The last component of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `12`, `4.8`, `13.2.0`.
fn is_version(text: &str) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A triple has at least a machine and a system. One word before the dash is rather a wrapper that steers the compiler by
/// its environment (`afl-gcc`, `musl-gcc`), which no worker would have; bare-metal targets are the exception.
fn is_target(prefix: &str) -> bool {
    const BARE: [&str; 3] = ["avr", "msp430", "rx"];
    BARE.contains(&prefix)
        || (prefix.contains('-') && prefix.split('-').all(|part| !part.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_compilers_are_taken_apart() {
        let parts = |name| {
            let name = CompilerName::parse(name)?;
            Some((name.prefix, name.driver, name.version))
        };
        assert_eq!(parts("cc"), Some((None, Driver::Cc, None)));
        assert_eq!(parts("g++"), Some((None, Driver::Gxx, None)));
        assert_eq!(
            parts("clang++-14"),
            Some((None, Driver::Clangxx, Some("14")))
        );
        assert_eq!(parts("gcc-4.8"), Some((None, Driver::Gcc, Some("4.8"))));
        assert_eq!(parts("avr-gcc"), Some((Some("avr"), Driver::Gcc, None)));
        assert_eq!(
            parts("aarch64-linux-gnu-g++-12"),
            Some((Some("aarch64-linux-gnu"), Driver::Gxx, Some("12")))
        );
    }

    #[test]
    fn tools_beside_the_compiler_are_not_compilers() {
        for name in [
            "gcc-ar",
            "gcc-ar-12",
            "clang-format-14",
            "clang-cpp",
            "cpp",
            "ld",
            "c89-gcc",
            "afl-gcc",
            "ccache-gcc",
            "musl-gcc",
            "gcc-",
            "-gcc",
            "--gcc",
            "gcc-12.",
            "x86_64-linux-gnu-gcc-nm-12",
            "",
        ] {
            assert_eq!(CompilerName::parse(name), None, "{name}");
        }
    }
}
