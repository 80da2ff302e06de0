//! A compiler as a build calls it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A compiler as a build calls it: clang is another one for every target that it is told.
///
/// Its text, wherever it is written or shown, is `PATH` or `PATH --target=TARGET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Compiler {
    /// Its path on the primary.
    pub path: String,
    /// The target that the arguments name, in their words; `None` for its own default.
    pub target: Option<String>,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "{}{OPTION}{target}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

impl From<&str> for Compiler {
    fn from(text: &str) -> Self {
        let (path, target) = match text.split_once(OPTION) {
            Some((path, target)) => (path, Some(target.to_owned())),
            None => (text, None),
        };
        Self {
            path: path.to_owned(),
            target,
        }
    }
}

impl From<String> for Compiler {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Compiler> for String {
    fn from(compiler: Compiler) -> Self {
        compiler.to_string()
    }
}

const OPTION: &str = " --target=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_path_and_target() {
        for (text, path, target) in [
            ("/usr/bin/gcc", "/usr/bin/gcc", None),
            ("/opt/a b/clang --target=arm", "/opt/a b/clang", Some("arm")),
            ("clang --target=", "clang", Some("")),
        ] {
            let compiler = Compiler::from(text);
            assert_eq!(
                (compiler.path.as_str(), compiler.target.as_deref()),
                (path, target)
            );
            assert_eq!(String::from(compiler), text);
        }
    }
}
