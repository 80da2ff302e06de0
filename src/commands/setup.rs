//! From what the command line says, or leaves out, to what a node needs.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::variable;
use crate::{
    cli::{RendezvousAddress, SessionArgs},
    error::{Failure, OrFail},
    node::NodeConfig,
    rendezvous::{Directory, Rendezvous},
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
    bind: Option<SocketAddr>,
    stun: Vec<SocketAddr>,
}

impl Setup {
    /// Finds or makes the private directory, the secret, the rendezvous and the STUN servers' addresses.
    pub(super) async fn new(args: &SessionArgs, ui: &Ui) -> Result<Self, Failure> {
        let (runtime, session, dir) = session_dir(args.session.clone())?;
        let secret = secret(args, &runtime, ui)?;
        // Stretching takes a tenth of a second: the names of STUN servers are looked up meanwhile.
        let salt = session.clone();
        let keys = tokio::task::spawn_blocking(move || SessionKeys::derive(&secret, &salt));
        let stun = stun_servers(args, ui);
        let (keys, stun) = tokio::join!(keys, stun);
        let keys = keys.or_cannot("derive the session's keys")??;
        Ok(Self {
            rendezvous: rendezvous(args, &runtime)?,
            session,
            dir,
            keys: Arc::new(keys),
            bind: args.bind,
            stun,
        })
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

    /// The rendezvous in words.
    pub(super) fn rendezvous(&self) -> String {
        self.rendezvous.describe()
    }
}

/// The private directory of a session, for commands that need no more.
pub(super) fn session_dir(
    given: Option<SessionName>,
) -> Result<(RuntimeDir, SessionName, SessionDir), Failure> {
    let runtime = RuntimeDir::locate(path_from_env)?;
    let session = given.map_or_else(|| DEFAULT_SESSION.parse(), Ok)?;
    let dir = runtime.session(&session)?;
    Ok((runtime, session, dir))
}

fn secret(args: &SessionArgs, runtime: &RuntimeDir, ui: &Ui) -> Result<Secret, Failure> {
    let secret = match (&args.secret_file, path_from_env("ENCRYPTION_KEY")) {
        (Some(file), _) => Secret::read(file).map_err(|error| {
            let cure = format!("make one with `distmesh keygen > {}`", file.display());
            Failure::cannot_run("there is no secret")
                .because(&error)
                .hint(cure)
        })?,
        (None, Some(key)) => Secret::new(key.into_os_string().into_encoded_bytes())?,
        (None, None) => Secret::read_or_create(&runtime.secret_file())?,
    };
    if secret.is_short() {
        ui.warn(
            "the secret is short: whoever can read the rendezvous can try to guess it; `distmesh keygen` makes a good one",
        );
    }
    Ok(secret)
}

fn rendezvous(args: &SessionArgs, runtime: &RuntimeDir) -> Result<Arc<dyn Rendezvous>, Failure> {
    let path = match &args.rendezvous {
        Some(RendezvousAddress::Dir(path)) => path.clone(),
        None => runtime.rendezvous(),
    };
    Ok(Arc::new(Directory::open(&path)?))
}

/// Looks the servers' names up. Without a rendezvous of its own a session stays on this machine and needs none.
async fn stun_servers(args: &SessionArgs, ui: &Ui) -> Vec<SocketAddr> {
    if args.rendezvous.is_none() && args.stun.is_default() {
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

/// A label that nobody else has: the host's name, and this process's number.
pub(super) fn unique_name() -> Result<NodeName, Failure> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let usable: String = host
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(HOST_PART)
        .collect();
    let label = if usable.is_empty() { "node" } else { &usable };
    Ok(format!("{label}-{}", std::process::id()).parse()?)
}

/// A variable that names a path; one that is empty is as good as not set.
pub(super) fn path_from_env(name: &str) -> Option<PathBuf> {
    variable(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The session of everybody who names none.
const DEFAULT_SESSION: &str = "default";

/// A resolver that works answers within a round trip or two.
const LOOKUP: Duration = Duration::from_secs(3);

/// Leaves room for a process number within a label.
const HOST_PART: usize = 40;
