//! What stands below each help: examples and exit codes.

pub(super) const DISTMESH: &str = "\
Two terminals, nothing to set up:
  distmesh worker                 compiles for whoever builds on this machine
  distmesh build -- make -j       builds with every worker it finds

Every option can be given as a variable too: --min-workers is DISTMESH_MIN_WORKERS (and --jobs of `hosts` is DISTMESH_JOBS_ONLY).

Variables beside those:
  ENCRYPTION_KEY        the shared secret, where no --secret-file is given
  DISTMESH_RUNTIME_DIR  where sessions keep their sockets and secrets [default: in $XDG_RUNTIME_DIR, else in $TMPDIR or /tmp]
  XDG_DATA_HOME         where the launcher lies that CMake trees name [default: ~/.local/share]
  DISTMESH_LOG          what is traced, by the rules of RUST_LOG: distmesh=debug,distmesh::mesh=trace
  CI                    if it is set, --once is the default, and addresses are masked
  NO_COLOR              if it is set, no colours

Exit codes:
  that of the command, for `distmesh build`
  1   `distmesh doctor` found something missing without which distmesh is of no use
  2   the command line is wrong
  96  the command could not be run, or a worker or a session could not start
  97  fewer workers came than --require-workers said";

pub(super) const BUILD: &str = "\
Examples:
  distmesh build -- make -j
  distmesh build --min-workers 2 --wait 5m -- ninja
  distmesh build -- sh -c 'cmake -S . -B out && cmake --build out'
  distmesh build --rendezvous dir:/mnt/shared --secret-file key -- make -j
  distmesh build --rendezvous s3://BUCKET/PREFIX --secret-file key -- make -j

Exit codes:
  that of COMMAND; 128 + N when signal N ended it
  2   the command line is wrong
  96  COMMAND could not be run, or no session could start and --require-workers wanted one
  97  --require-workers was not met";

pub(super) const WORKER: &str = "\
Examples:
  distmesh worker
  distmesh worker --slots 4 --name attic
  distmesh worker --rendezvous dir:/mnt/shared --secret-file key
  distmesh worker --rendezvous s3://BUCKET/PREFIX --secret-file key      with AWS_ACCESS_KEY_ID and so on
  distmesh worker --once --wait-primary 10m --max-lifetime 5h30m
  distmesh worker --until-artifact 'release-*'      in a job of GitHub Actions

Exit codes:
  0   it was stopped, one of the limits above was reached, or the run has no secret (a fork's pull request)
  2   the command line is wrong
  96  it could not start: no distccd, no compiler, no session";

pub(super) const UP: &str = "\
Examples:
  distmesh up --min-workers 2 && distmesh build -- make -j; distmesh down

Exit codes:
  0   the session is up, with however many workers, or the run has no secret (a fork's pull request)
  2   the command line is wrong
  96  it could not start";

pub(super) const DOWN: &str = "\
Example:
  distmesh down

Exit codes:
  0   no such session runs any more
  2   the command line is wrong
  96  it could not be stopped";

pub(super) const HOSTS: &str = "\
Examples:
  distmesh hosts
  DISTCC_HOSTS=$(distmesh hosts) make CC='distcc /usr/bin/gcc' -j$(distmesh hosts --jobs)

The compiler needs its whole path: workers are chosen for exactly that one, and jobs that name another stay on this machine.

Exit codes:
  0   printed; an empty line when no worker is up
  2   the command line is wrong
  96  no such session runs";

pub(super) const STATUS: &str = "\
Examples:
  distmesh status
  distmesh status --json | jq '.workers[].name'

Exit codes:
  0   printed
  2   the command line is wrong
  96  no such session runs";

pub(super) const KEYGEN: &str = "\
Examples:
  (umask 077; distmesh keygen > key)        then --secret-file key on every node
  export ENCRYPTION_KEY=$(distmesh keygen)

Exit codes:
  0   printed
  2   the command line is wrong
  96  the operating system gave no randomness";

pub(super) const DOCTOR: &str = "\
Examples:
  distmesh doctor
  distmesh doctor --stun none
  distmesh doctor --json | jq '.checks[] | select(.state != \"ok\")'

Exit codes:
  0   distmesh can be of use here
  1   something is missing without which it is of no use
  2   the command line is wrong";

pub(super) const COMPLETIONS: &str = "\
Examples:
  distmesh completions bash > ~/.local/share/bash-completion/completions/distmesh
  distmesh completions zsh > ~/.zfunc/_distmesh
  distmesh completions fish > ~/.config/fish/completions/distmesh.fish

Exit codes:
  0   printed
  2   the command line is wrong";

pub(super) const MAN: &str = "\
Examples:
  distmesh man | man -l -
  distmesh man > ~/.local/share/man/man1/distmesh.1

Exit codes:
  0   printed
  2   the command line is wrong";
