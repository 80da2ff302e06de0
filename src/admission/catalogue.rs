//! The compilers of a worker, kept true while others install, upgrade and remove them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    CompilerIdentity, Stamp, compilers_on_path,
    output::Kind,
    prober::{Identified, identify_all},
};

/// The compilers on a PATH, as they are by default and for the targets that a build names. Whoever asks for their word has
/// their files looked at again.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    search: OsString,
    scratch: PathBuf,
    /// The directories of the PATH: a compiler that comes or goes changes its directory.
    directories: Stamp,
    known: Known,
    targets: BTreeMap<String, Known>,
}

type Known = BTreeMap<PathBuf, Identified>;

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

    /// Has [`Catalogue::renew`] ask for this target too; `false` when it does so already, or when there are too many.
    pub fn want(&mut self, target: String) -> bool {
        let new = self.targets.len() < MOST_TARGETS && !self.targets.contains_key(&target);
        if new {
            self.targets.insert(target, Known::new());
        }
        new
    }

    /// Whether no file of any compiler has changed, come or gone.
    pub fn is_current(&self) -> bool {
        let mut all = self.answers().flat_map(BTreeMap::values);
        self.directories.is_current() && all.all(|known| known.stamp.is_current())
    }

    /// Whether this compiler is still the one that was identified, for whatever target.
    pub fn vouches_for(&self, path: &str) -> bool {
        let path = Path::new(path);
        let mut answers = self.answers().filter_map(|known| known.get(path));
        self.known.contains_key(path) && answers.all(|known| known.stamp.is_current())
    }

    /// Forgets the compilers that have changed, and returns whether there are any; [`Catalogue::renew`] asks them anew.
    pub fn retire(&mut self) -> bool {
        let count = |catalogue: &Self| catalogue.answers().map(BTreeMap::len).sum::<usize>();
        let before = count(self);
        let default = [&mut self.known].into_iter();
        for known in default.chain(self.targets.values_mut()) {
            known.retain(|_, known| known.stamp.is_current());
        }
        count(self) < before
    }

    /// Finds and asks those that are not known. Warns as [`Catalogue::find`] does. Blocks.
    pub fn renew(&mut self) -> Vec<String> {
        self.retire();
        self.directories = Stamp::of(env::split_paths(&self.search));
        let paths = compilers_on_path(&self.search);
        let mut warnings = complete(&mut self.known, paths, None, &self.scratch);
        // gcc has one target.
        let clangs = self.known.values().map(|known| &known.compiler);
        let clangs =
            clangs.filter(|compiler| Kind::of_version_line(&compiler.version) == Kind::Clang);
        let clangs: Vec<_> = clangs
            .map(|compiler| PathBuf::from(&compiler.path))
            .collect();
        for (target, known) in &mut self.targets {
            warnings.extend(complete(known, clangs.clone(), Some(target), &self.scratch));
        }
        warnings
    }

    /// What they are by default.
    pub fn compilers(&self) -> Vec<CompilerIdentity> {
        identities(&self.known)
    }

    /// What they are for each target that was wanted; those that cannot compile for it are not there.
    pub fn targets(&self) -> BTreeMap<String, Vec<CompilerIdentity>> {
        let targets = self.targets.iter();
        targets
            .map(|(target, known)| (target.clone(), identities(known)))
            .collect()
    }

    /// Where they are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.known.keys().cloned().collect()
    }

    fn answers(&self) -> impl Iterator<Item = &Known> {
        [&self.known].into_iter().chain(self.targets.values())
    }
}

/// Asks those of the paths that are not known, and forgets all other paths.
fn complete(
    known: &mut Known,
    paths: Vec<PathBuf>,
    target: Option<&str>,
    scratch: &Path,
) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| known.contains_key(path));
    let old: BTreeSet<_> = old.into_iter().collect();
    known.retain(|path, _| old.contains(path));
    let (identified, warnings) = identify_all(&new, target, scratch);
    let by_path = |one: Identified| (PathBuf::from(&one.compiler.path), one);
    known.extend(identified.into_iter().map(by_path));
    warnings
}

fn identities(known: &Known) -> Vec<CompilerIdentity> {
    let known = known.values();
    known.map(|known| known.compiler.clone()).collect()
}

/// A build has one or two; each costs every clang some questions, and a primary must not keep a worker busy with them.
const MOST_TARGETS: usize = 16;
