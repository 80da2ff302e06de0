//! From what the command line says, or leaves out, to what a node needs.

use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::variable;
use crate::{
    cli::{RendezvousAddress, SessionArgs},
    error::{Failure, Kind, OrFail},
    node::NodeConfig,
    rendezvous::{
        Directory, Rendezvous,
        github::{Access, GitHub, Run, runner_label},
        store::{Store, StoreAddress, StoreRefusal},
    },
    session::{NodeName, Role, RuntimeDir, Secret, SessionDir, SessionKeys, SessionName},
    ui::Ui,
};
use tokio::net::lookup_host;

/// A session as this process takes part in it.
pub(super) struct Setup {
    /// Its name.
    pub(super) session: SessionName,
    /// Its private directory on this machine.
    pub(super) dir: SessionDir,
    keys: Arc<SessionKeys>,
    rendezvous: Arc<dyn Rendezvous>,
    github: Option<Arc<GitHub>>,
    bind: Option<SocketAddr>,
    stun: Vec<SocketAddr>,
}

/// Where the nodes of a session meet.
enum Place {
    /// A directory that was named.
    Dir(PathBuf),
    /// A directory of this user's: nobody comes from outside.
    Here,
    /// The artifacts of a run.
    GitHub(Run),
    /// A bucket or a WebDAV collection.
    Store(StoreAddress),
}

impl Setup {
    /// Finds or makes the private directory, the secret, the rendezvous and the STUN servers' addresses.
    pub(super) async fn new(args: &SessionArgs, ui: &Ui) -> Result<Self, Failure> {
        let (runtime, session, dir) = session_dir(args.session.clone())?;
        let place = Place::find(args)?;
        let secret = secret(args, &place, &runtime, ui)?;
        // Stretching takes a tenth of a second: who has to be asked is asked meanwhile.
        let salt = session.clone();
        let keys = tokio::task::spawn_blocking(move || SessionKeys::derive(&secret, &salt));
        let met = rendezvous(&place, &runtime, &session);
        let stun = stun_servers(args, &place, ui);
        let (keys, met, stun) = tokio::join!(keys, met, stun);
        let (rendezvous, github) = met?;
        let keys = keys.or_cannot("derive the session's keys")??;
        Ok(Self {
            rendezvous,
            github,
            session,
            dir,
            keys: Arc::new(keys),
            bind: args.bind,
            stun,
        })
    }

    /// The run whose artifacts are the rendezvous.
    pub(super) fn github(&self) -> Option<Arc<GitHub>> {
        self.github.clone()
    }

    /// What a node of this session is told.
    pub(super) fn node(&self, role: Role, name: NodeName) -> NodeConfig {
        NodeConfig {
            role,
            name,
            session: self.session.clone(),
            keys: Arc::clone(&self.keys),
            rendezvous: Arc::clone(&self.rendezvous),
            bind: self.bind,
            stun: self.stun.clone(),
        }
    }

    /// What may be wrong where the links' port cannot be had.
    pub(super) fn bind_hint(&self) -> Option<&'static str> {
        self.bind
            .map(|_| "--bind wants an address and a free UDP port of this machine")
    }

    /// The rendezvous in words.
    pub(super) fn rendezvous(&self) -> String {
        self.rendezvous.describe()
    }
}

impl Place {
    fn find(args: &SessionArgs) -> Result<Self, Failure> {
        match &args.rendezvous {
            Some(RendezvousAddress::Dir(path)) => Ok(Self::Dir(path.clone())),
            Some(RendezvousAddress::Store(address)) => Ok(Self::Store(address.clone())),
            None if !on_github() => Ok(Self::Here),
            Some(RendezvousAddress::GitHub) | None => {
                Run::from_env(text_from_env).map(Self::GitHub).map_err(|error| {
                    Failure::cannot_run("there is no run of GitHub Actions to meet in")
                        .because(&error)
                        .hint(
                            "use --rendezvous github in a job of GitHub Actions; elsewhere dir:PATH, or the URL of a bucket or of a \
                             WebDAV collection",
                        )
                })
            }
        }
    }
}

/// Fails, as everything else would later, if this is a run that has no secret.
pub(super) fn require_secret(args: &SessionArgs) -> Result<(), Failure> {
    let has_secret = args.secret_file.is_some() || path_from_env("ENCRYPTION_KEY").is_some();
    match Place::find(args)? {
        Place::GitHub(_) if !has_secret && !args.trust_run => Err(no_secret()),
        Place::Store(_) if !has_secret => Err(no_secret_for_strangers()),
        Place::GitHub(_) | Place::Store(_) | Place::Dir(_) | Place::Here => Ok(()),
    }
}

/// The private directory of a session, for commands that need no more.
pub(super) fn session_dir(
    given: Option<SessionName>,
) -> Result<(RuntimeDir, SessionName, SessionDir), Failure> {
    let runtime = RuntimeDir::locate(path_from_env)?;
    let session = given.map_or_else(default_session, Ok)?;
    let dir = runtime.session(&session)?;
    Ok((runtime, session, dir))
}

/// The session of everybody who names none: inside a run its id and attempt.
fn default_session() -> Result<SessionName, Failure> {
    let run = Run::from_env(text_from_env).ok().filter(|_| on_github());
    run.map_or_else(|| Ok(DEFAULT_SESSION.parse()?), |run| Ok(run.session()))
}

fn on_github() -> bool {
    variable("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// A pipe, as `--secret-file <(…)` gives one, has no mode that means anything.
fn is_open(file: &Path) -> bool {
    const OTHERS: u32 = 0o077;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & OTHERS != 0)
}

fn secret(
    args: &SessionArgs,
    place: &Place,
    runtime: &RuntimeDir,
    ui: &Ui,
) -> Result<Secret, Failure> {
    let secret = match (&args.secret_file, path_from_env("ENCRYPTION_KEY"), place) {
        (Some(file), ..) => Secret::read(file).map_err(|error| {
            let cure = format!(
                "make one with `(umask 077; distmesh keygen >{})`",
                file.display()
            );
            Failure::cannot_run("there is no secret")
                .because(&error)
                .hint(cure)
        })?,
        (None, Some(key), _) => Secret::new(key.into_os_string().into_encoded_bytes())?,
        (None, None, Place::GitHub(run)) if args.trust_run => {
            ui.say("no secret: every job of this run is trusted (--trust-run)");
            return Ok(Secret::of_public_facts(&run.facts()));
        }
        (None, None, Place::GitHub(_)) => return Err(no_secret()),
        (None, None, Place::Store(_)) => return Err(no_secret_for_strangers()),
        (None, None, Place::Dir(_) | Place::Here) => {
            Secret::read_or_create(&runtime.secret_file())?
        }
    };
    if let Some(file) = args.secret_file.as_deref().filter(|file| is_open(file)) {
        let file = file.display();
        ui.warn(format!(
            "other users of this machine may read the secret in {file}: chmod 600 {file}"
        ));
    }
    if secret.is_short() {
        ui.warn(
            "the secret is short: whoever can read the rendezvous can try to guess it; `distmesh keygen` makes a good one",
        );
    }
    Ok(secret)
}

fn no_secret() -> Failure {
    Failure::new(
        Kind::NoSecret,
        "this run has no secret by which its machines could trust each other",
    )
    .hint(
        "set ENCRYPTION_KEY from a secret of the repository; pull requests from forks get none: for them --trust-run trusts every job \
         of the run instead (see SECURITY.md)",
    )
}

/// A secret of this user's would be no help: who meets in a store is on other machines.
fn no_secret_for_strangers() -> Failure {
    Failure::new(
        Kind::NoSecret,
        "there is no secret by which machines that meet there could trust each other",
    )
    .hint(
        "make one with `distmesh keygen` and give it to all of them, as ENCRYPTION_KEY or with --secret-file; a CI gives its secrets \
         to protected branches only, if it is told so",
    )
}

type Met = (Arc<dyn Rendezvous>, Option<Arc<GitHub>>);

async fn rendezvous(
    place: &Place,
    runtime: &RuntimeDir,
    session: &SessionName,
) -> Result<Met, Failure> {
    let path = match place {
        Place::GitHub(run) => {
            let github = Arc::new(github(run, session)?);
            return Ok((Arc::clone(&github) as Arc<dyn Rendezvous>, Some(github)));
        }
        Place::Store(address) => return Ok((Arc::new(store(address, session).await?), None)),
        Place::Dir(path) => path.clone(),
        Place::Here => runtime.rendezvous(),
    };
    Ok((Arc::new(Directory::open(&path)?), None))
}

fn github(run: &Run, session: &SessionName) -> Result<GitHub, Failure> {
    const WHAT: &str = "this step cannot publish artifacts of the run";
    let access = Access::from_env(text_from_env);
    let access = access.map_err(|error| Failure::cannot_run(WHAT).because(&error))?;
    if access.results.is_none() {
        return Err(Failure::cannot_run(format!(
            "{WHAT}: ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL are not set"
        ))
        .hint(
            "start distmesh by its action: only actions get the run's token, `run:` steps do not (and older Enterprise Servers have no such service)",
        ));
    }
    GitHub::new(run.clone(), &access, session.clone()).map_err(|error| {
        Failure::cannot_run(error.to_string()).because(&error).hint(
            "it needs the certificates of public authorities: apt-get install ca-certificates",
        )
    })
}

/// The store, looked at once: keys, rights, names that are wrong will not be right later.
async fn store(address: &StoreAddress, session: &SessionName) -> Result<Store, Failure> {
    let cannot = |refusal: StoreRefusal| {
        Failure::cannot_run(format!("cannot use {address}: {}", refusal.why)).hint(refusal.cure)
    };
    let variables = std::env::vars_os();
    let variables = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let store = Store::new(address, session.clone(), variables).map_err(cannot)?;
    store.first_look().await.map_err(cannot)?;
    Ok(store)
}

/// Looks the servers' names up. Without a rendezvous of its own a session stays on this machine and needs none.
async fn stun_servers(args: &SessionArgs, place: &Place, ui: &Ui) -> Vec<SocketAddr> {
    if matches!(place, Place::Here) && args.stun.is_default() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for server in args.stun.servers() {
        match tokio::time::timeout(LOOKUP, lookup_host((server.host.as_str(), server.port))).await {
            // The socket is IPv4 wherever a NAT is: IPv4 first.
            Ok(Ok(addrs)) => found.extend(addrs.min_by_key(SocketAddr::is_ipv6)),
            Ok(Err(error)) => ui.warn(format!(
                "STUN server {server} is not found ({error}); going on without it"
            )),
            Err(_) => ui.warn(format!(
                "nobody tells the address of STUN server {server}; going on without it"
            )),
        }
    }
    found
}

/// A label that nobody else has: the runner's name on GitHub, by which its job is found, else the host's; and a number, drawn by lot,
/// for in containers hosts and processes are numbered alike.
pub(super) fn unique_name() -> Result<NodeName, Failure> {
    let runner = text_from_env("RUNNER_NAME").filter(|_| on_github());
    let runner = runner.map(|name| runner_label(&name));
    let label = runner
        .filter(|label| !label.is_empty())
        .unwrap_or_else(host_label);
    let mut lot = [0; 4];
    getrandom::fill(&mut lot).or_cannot("draw a number")?;
    let number = u32::from_be_bytes(lot) % 1_000_000;
    Ok(format!("{label}-{number}").parse()?)
}

fn host_label() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let usable: String = host
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(HOST_PART)
        .collect();
    if usable.is_empty() {
        "node".to_owned()
    } else {
        usable
    }
}

/// A variable that holds text; one that is empty is as good as not set.
pub(super) fn text_from_env(name: &str) -> Option<String> {
    variable(name)
        .and_then(|value| value.into_string().ok())
        .filter(|value| !value.is_empty())
}

/// A variable that names a path; one that is empty is as good as not set.
pub(super) fn path_from_env(name: &str) -> Option<PathBuf> {
    variable(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The session of everybody who names none, outside of a run.
const DEFAULT_SESSION: &str = "default";

/// A resolver that works answers within a round trip or two.
const LOOKUP: Duration = Duration::from_secs(3);

/// Leaves room for a process number within a label.
const HOST_PART: usize = 40;
