//! The compilers of a worker, kept true while others install, upgrade and remove them.

use std::{collections::BTreeMap, env, ffi::OsString, path::PathBuf};

use super::{CompilerIdentity, Stamp, compilers_on_path, prober::Identified, prober::identify_all};

/// The compilers on a PATH. Whoever is asked for a compiler's word looks at its files again first.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    search: OsString,
    scratch: PathBuf,
    /// The directories of the PATH: a compiler that comes or goes changes its directory.
    directories: Stamp,
    known: BTreeMap<PathBuf, Identified>,
}

impl Catalogue {
    /// Finds the compilers on a PATH and asks them, in `scratch`, a private directory. Those that cannot be identified are left
    /// out and explained in a warning each. Blocks.
    pub fn find(search: OsString, scratch: PathBuf) -> (Self, Vec<String>) {
        let mut catalogue = Self {
            search,
            scratch,
            ..Self::default()
        };
        let warnings = catalogue.renew();
        (catalogue, warnings)
    }

    /// Whether no file of any compiler has changed, come or gone.
    pub fn is_current(&self) -> bool {
        self.directories.is_current() && self.known.values().all(|known| known.stamp.is_current())
    }

    /// Whether this compiler is still the one that was identified.
    pub fn vouches_for(&self, path: &str) -> bool {
        let known = self.known.get(&PathBuf::from(path));
        known.is_some_and(|known| known.stamp.is_current())
    }

    /// Forgets the compilers that have changed; [`Catalogue::renew`] asks them anew.
    pub fn retire(&mut self) {
        self.known.retain(|_, known| known.stamp.is_current());
    }

    /// Finds and asks those that are not known. Warns as [`Catalogue::find`] does. Blocks.
    pub fn renew(&mut self) -> Vec<String> {
        self.directories = Stamp::of(env::split_paths(&self.search));
        let paths = compilers_on_path(&self.search);
        self.known
            .retain(|path, known| known.stamp.is_current() && paths.contains(path));
        let new: Vec<_> = paths
            .into_iter()
            .filter(|path| !self.known.contains_key(path))
            .collect();
        let (identified, warnings) = identify_all(&new, &self.scratch);
        let by_path = |one: Identified| (PathBuf::from(&one.compiler.path), one);
        self.known.extend(identified.into_iter().map(by_path));
        warnings
    }

    /// What they are.
    pub fn compilers(&self) -> Vec<CompilerIdentity> {
        let known = self.known.values();
        known.map(|known| known.compiler.clone()).collect()
    }

    /// Where they are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.known.keys().cloned().collect()
    }
}
