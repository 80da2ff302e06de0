//! The compilers of a worker, kept true while others install, upgrade and remove them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::machine::access::is_open_to_all;

use super::{
    CompilerIdentity, Stamp, Verdict, admit, compilers_on_path,
    name::{CompilerName, Driver, file_name},
    output::Kind,
    prober::{Identified, identify_all, one_compiler_each},
    search::is_usual,
};

/// The compilers on a PATH, as they are by default and for the targets that a build names. Whoever asks for their word has
/// their files looked at again.
///
/// A machine may have a dozen, a build uses one or two, and each costs a tenth of a second of CPU or two to ask: the usual
/// ones are asked at once, the others when a primary has one that none of those is.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    search: OsString,
    scratch: PathBuf,
    /// The directories of the PATH: a compiler that comes or goes changes its directory.
    directories: Stamp,
    known: Known,
    /// Those on the PATH that nobody has asked for yet.
    unasked: BTreeSet<PathBuf>,
    /// Those that did not say who they are, as they were then. They are asked again when they or the PATH have changed.
    failed: BTreeMap<PathBuf, Stamp>,
    /// Those that distccd could not run, whose user is another than root.
    closed: BTreeSet<PathBuf>,
    /// The compilers of primaries: one like each is looked for. The last in the list was named last.
    wanted: VecDeque<CompilerIdentity>,
    targets: BTreeMap<String, Known>,
}

/// What a primary would have of a worker's compilers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// One like this.
    Compiler(Box<CompilerIdentity>),
    /// What they are for a target, as the build's arguments name it.
    Target(String),
}

type Known = BTreeMap<PathBuf, Identified>;

impl Catalogue {
    /// Finds the compilers on a PATH and asks the usual ones, in `scratch`, a private directory. Those that cannot be identified
    /// are left out and explained in a warning each. Blocks.
    pub fn find(search: OsString, scratch: PathBuf) -> (Self, Vec<String>) {
        let mut catalogue = Self {
            search,
            scratch,
            ..Self::default()
        };
        let warnings = catalogue.renew();
        (catalogue, warnings)
    }

    /// Has [`Catalogue::renew`] see to this too; `false` when it does so already, when there is nothing to ask for it, or when
    /// there are too many targets.
    pub fn want(&mut self, want: Want) -> bool {
        match want {
            Want::Target(target) => {
                let new = self.targets.len() < MOST_TARGETS && !self.targets.contains_key(&target);
                if new {
                    self.targets.insert(target, Known::new());
                }
                new
            }
            Want::Compiler(ours) => {
                let lacks = !self.unasked.is_empty() && !self.has_one_like(&ours);
                if !self.wanted.contains(&*ours) {
                    self.wanted.push_back(*ours);
                    let excess = self.wanted.len().saturating_sub(MOST_WANTED);
                    self.wanted.drain(..excess);
                }
                lacks
            }
        }
    }

    /// Has [`Catalogue::renew`] ask those again that did not say who they are.
    pub fn retry(&mut self) {
        self.failed.clear();
    }

    /// Whether no file of any compiler has changed, come or gone.
    pub fn is_current(&self) -> bool {
        let known = self.answers().flat_map(BTreeMap::values);
        let mut stamps = known.map(|known| &known.stamp).chain(self.failed.values());
        self.directories.is_current() && stamps.all(Stamp::is_current)
    }

    /// The files of this compiler, if it is still the one that was identified, for whatever target. One that was replaced and asked anew
    /// has others.
    pub fn vouches_for(&self, path: &str) -> Option<Stamp> {
        let path = Path::new(path);
        let mut answers = self.answers().filter_map(|known| known.get(path));
        let known = self.known.get(path)?;
        let is_current = answers.all(|known| known.stamp.is_current());
        is_current.then(|| known.stamp.clone())
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

    /// Finds the compilers and asks those that are usual or wanted and not known. Warns as [`Catalogue::find`] does. Blocks.
    pub fn renew(&mut self) -> Vec<String> {
        self.retire();
        let groups = one_compiler_each(&self.look());
        let mut warnings: Vec<_> = self.closed.iter().map(|path| closed(path)).collect();
        warnings.extend(self.ask(&groups, is_usual));
        if self.known.is_empty() {
            warnings.extend(self.ask(&groups, |_| true));
        }
        if !self.targets.is_empty() {
            warnings.extend(self.ask(&groups, is_clang));
        }
        for ours in self.wanted.clone() {
            let namesake = |path: &Path| path.file_name() == Some(file_name(&ours.path).as_ref());
            if !self.has_one_like(&ours) {
                warnings.extend(self.ask(&groups, namesake));
            }
            if !self.has_one_like(&ours) {
                warnings.extend(self.ask(&groups, |_| true));
            }
        }
        warnings.extend(self.ask_for_targets());
        warnings
    }

    /// Whether there are some that nobody has asked for yet.
    pub fn has_unasked(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Whether some were asked and did not say who they are.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
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

    /// Where they are, and then where those are that may yet be asked: all that distccd may ever have to run.
    pub fn paths(&self) -> Vec<PathBuf> {
        // Its list, and the protocol, are of text; such a path is told of when it is asked.
        let unasked = self.unasked.iter().filter(|path| {
            let text = path.to_str();
            text.is_some_and(|text| !text.contains(char::is_control) && text.trim() == text)
        });
        self.known.keys().chain(unasked).cloned().collect()
    }

    /// What lies on the PATH now.
    fn look(&mut self) -> Vec<PathBuf> {
        let directories = Stamp::of(env::split_paths(&self.search));
        if directories != self.directories {
            self.failed.clear();
        }
        self.directories = directories;
        let found = compilers_on_path(&self.search).into_iter();
        let is_root = rustix::process::geteuid().is_root();
        let (found, closed): (Vec<_>, Vec<_>) =
            found.partition(|path| !is_root || is_open_to_all(path));
        self.closed = closed.into_iter().collect();
        self.known.retain(|path, _| found.contains(path));
        self.failed.retain(|_, stamp| stamp.is_current());
        self.unasked = found.iter().cloned().collect();
        self.unasked
            .retain(|path| !self.known.contains_key(path) && !self.failed.contains_key(path));
        found
    }

    /// Asks compilers that were not, by all their names: those of which a name is so.
    fn ask(&mut self, groups: &[Vec<PathBuf>], is_meant: impl Fn(&Path) -> bool) -> Vec<String> {
        let meant = groups
            .iter()
            .filter(|names| names.iter().any(|name| is_meant(name)));
        let new: Vec<_> = meant
            .flatten()
            .filter(|name| self.unasked.remove(*name))
            .cloned()
            .collect();
        let looks = new.iter().cloned();
        let looks: Vec<_> = looks
            .map(|name| (name.clone(), Stamp::of([name])))
            .collect();
        let warnings = complete(&mut self.known, &new, None, &self.scratch);
        let silent = looks
            .into_iter()
            .filter(|(name, _)| !self.known.contains_key(name));
        self.failed.extend(silent);
        warnings
    }

    /// gcc has one target, and so every clang is asked for each.
    fn ask_for_targets(&mut self) -> Vec<String> {
        let is_clang =
            |known: &&Identified| Kind::of_version_line(&known.compiler.version) == Kind::Clang;
        let clangs = self.known.values().filter(is_clang);
        let clangs: BTreeSet<_> = clangs
            .map(|known| PathBuf::from(&known.compiler.path))
            .collect();
        let mut warnings = Vec::new();
        for (target, known) in &mut self.targets {
            known.retain(|path, _| clangs.contains(path));
            let new = clangs.iter().filter(|path| !known.contains_key(*path));
            let new: Vec<_> = new.cloned().collect();
            warnings.extend(complete(known, &new, Some(target), &self.scratch));
        }
        warnings
    }

    fn has_one_like(&self, ours: &CompilerIdentity) -> bool {
        matches!(admit(ours, &self.compilers()), Verdict::Admitted { .. })
    }

    fn answers(&self) -> impl Iterator<Item = &Known> {
        [&self.known].into_iter().chain(self.targets.values())
    }
}

/// distccd would take another compiler of the same name instead.
fn closed(path: &Path) -> String {
    format!(
        "{} is not offered: the user that distccd runs as may not run it; open its directories (chmod o+x), or run the worker as an \
         ordinary user",
        path.display()
    )
}

/// Adds those of the paths that answer.
fn complete(
    known: &mut Known,
    paths: &[PathBuf],
    target: Option<&str>,
    scratch: &Path,
) -> Vec<String> {
    let (identified, warnings) = identify_all(paths, target, scratch);
    let by_path = |one: Identified| (PathBuf::from(&one.compiler.path), one);
    known.extend(identified.into_iter().map(by_path));
    warnings
}

/// By its name: what is asked tells.
fn is_clang(path: &Path) -> bool {
    let name = path.to_str().and_then(CompilerName::of_path);
    name.is_some_and(|name| matches!(name.driver, Driver::Clang | Driver::Clangxx))
}

fn identities(known: &Known) -> Vec<CompilerIdentity> {
    let known = known.values();
    known.map(|known| known.compiler.clone()).collect()
}

/// A build has one or two; each costs every clang some questions, and a primary must not keep a worker busy with them.
const MOST_TARGETS: usize = 16;

/// A primary has a dozen compilers with some names each, and primaries come one after another: the oldest are forgotten.
const MOST_WANTED: usize = 256;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::admission::fake::script;

    /// A directory of compilers that note that they were asked.
    struct Machine {
        root: tempfile::TempDir,
    }

    impl Machine {
        /// Each is the real gcc with one more flag.
        fn new(compilers: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for directory in ["bin", "asked", "scratch"] {
                fs::create_dir(root.path().join(directory)).unwrap();
            }
            let machine = Self { root };
            for (name, flag) in compilers {
                machine.install(name, &format!("exec /usr/bin/gcc {flag} \"$@\""));
            }
            machine
        }

        fn install(&self, name: &str, body: &str) -> PathBuf {
            let asked = self.root.path().join("asked").join(name);
            let body = format!("echo >> {}; {body}", asked.display());
            script(&self.root.path().join("bin"), name, &body)
        }

        fn search(&self) -> (Catalogue, Vec<String>) {
            let at = |name| self.root.path().join(name);
            Catalogue::find(at("bin").into(), at("scratch"))
        }

        fn find(&self) -> Catalogue {
            self.search().0
        }

        fn questions(&self, name: &str) -> usize {
            let asked = fs::read(self.root.path().join("asked").join(name));
            asked.unwrap_or_default().len()
        }

        fn asked(&self, name: &str) -> bool {
            self.questions(name) > 0
        }
    }

    fn names(catalogue: &Catalogue) -> Vec<String> {
        let compilers = catalogue.compilers().into_iter();
        compilers
            .map(|compiler| file_name(&compiler.path).to_owned())
            .collect()
    }

    fn want(like: &Catalogue, name: &str) -> Want {
        let mut all = like.compilers().into_iter();
        Want::Compiler(Box::new(
            all.find(|compiler| file_name(&compiler.path) == name)
                .unwrap(),
        ))
    }

    #[test]
    fn others_are_asked_when_a_primary_has_one_that_none_of_the_usual_is() {
        let compilers = [("gcc", ""), ("gcc-11", "-O1"), ("clang-9", "-O3")];
        let primary = Machine::new(&[("gcc", ""), ("cc", "-O1"), ("c++", "-O2")]).find();
        let machine = Machine::new(&compilers);
        let mut worker = machine.find();
        assert_eq!(names(&worker), ["gcc"]);
        assert_eq!(
            worker.paths().len(),
            3,
            "distccd may run what is asked later"
        );
        let path = machine.root.path().join("bin/gcc-11");
        assert_eq!(worker.vouches_for(path.to_str().unwrap()), None);
        assert!(!worker.want(want(&primary, "gcc")), "it has that");
        assert!(worker.has_unasked() && !machine.asked("gcc-11"));

        let Want::Compiler(mut namesake) = want(&primary, "cc") else {
            unreachable!()
        };
        namesake.path = "/opt/gcc-11".into();
        assert!(worker.want(Want::Compiler(namesake)));
        assert_eq!(worker.renew(), Vec::<String>::new());
        assert_eq!(names(&worker), ["gcc", "gcc-11"]);
        assert!(worker.vouches_for(path.to_str().unwrap()).is_some());
        assert!(!machine.asked("clang-9"), "its namesake is asked first");

        assert!(!worker.want(want(&primary, "cc")));
        assert!(worker.want(want(&primary, "c++")), "nothing like that yet");
        worker.renew();
        assert!(machine.asked("clang-9"), "any other might be the same");
        assert!(!worker.has_unasked(), "so that the answer is final");
    }

    /// Root's distccd becomes another user, and would take the next compiler of that name.
    #[test]
    fn a_compiler_that_distccd_could_not_run_is_not_offered_by_root() {
        use std::os::unix::fs::PermissionsExt as _;

        let machine = Machine::new(&[("gcc", "")]);
        let is_root = rustix::process::geteuid().is_root();
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(machine.root.path(), closed).unwrap();
        let (worker, warnings) = machine.search();
        assert_eq!(names(&worker).is_empty(), is_root);
        assert_eq!(
            warnings.iter().any(|text| text.contains("chmod")),
            is_root,
            "{warnings:?}"
        );
    }

    #[test]
    fn what_the_last_primary_wants_is_looked_for_however_many_were_wanted_before() {
        let machine = Machine::new(&[("gcc", ""), ("gcc-11", "-O1")]);
        let mut worker = machine.find();
        let like = |version: usize| {
            let mut compiler = worker.compilers().remove(0);
            compiler.version = version.to_string();
            Want::Compiler(Box::new(compiler))
        };
        let wants: Vec<_> = (0..MOST_WANTED + 3).map(like).collect();
        for want in wants {
            assert!(worker.want(want));
        }
        assert_eq!(worker.wanted.len(), MOST_WANTED);
        worker.renew();
        assert!(!worker.has_unasked(), "the answer to each is final");
    }

    #[test]
    fn one_that_failed_is_asked_again_when_it_or_the_path_has_changed() {
        let machine = Machine::new(&[("gcc", "")]);
        machine.install("c++", "exit 1");
        let (mut worker, warnings) = machine.search();
        assert_eq!(
            (names(&worker), warnings.len()),
            (vec!["gcc".to_owned()], 1)
        );
        assert!(!worker.has_unasked());
        assert_eq!(worker.renew(), Vec::<String>::new());
        assert_eq!(machine.questions("c++"), 1, "nothing has changed");
        worker.retry();
        assert!(!worker.has_failed());
        assert_eq!((worker.renew().len(), machine.questions("c++")), (1, 2));
        assert!(worker.has_failed() && worker.is_current());
        machine.install("c++", "exit 2");
        assert_eq!((worker.renew().len(), machine.questions("c++")), (1, 3));
        machine.install("gcc-11", "exit 1");
        assert_eq!((worker.renew().len(), machine.questions("c++")), (1, 4));
        assert!(worker.has_unasked());
    }

    #[test]
    fn a_machine_without_the_usual_ones_asks_what_it_has() {
        let machine = Machine::new(&[("gcc-12", "")]);
        assert_eq!(names(&machine.find()), ["gcc-12"]);
    }

    #[test]
    fn a_target_has_every_clang_asked_and_nothing_else() {
        let machine = Machine::new(&[("cc", ""), ("clang", ""), ("gcc-11", "")]);
        let mut worker = machine.find();
        assert!(!machine.asked("clang"));
        assert!(worker.want(Want::Target("arm-linux-gnueabihf".into())));
        worker.renew();
        assert!(machine.asked("clang") && !machine.asked("gcc-11"));
    }
}
