# shellcheck shell=bash
# Shared by the scripts beside it: finds out what is missing on this machine and installs it.

# Where Debian keeps what an ordinary user's PATH lacks: nft, sysctl, update-distcc-symlinks.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "needs root for: $*; run it as root, or install sudo"
    fi
}

missing=()

# need COMMAND PACKAGE: remembers the package if the command is not there.
need() {
    if ! command -v "$1" >/dev/null 2>&1; then missing+=("$2"); fi
}

# Installs what `need` found missing. Debian's distcc starts a service of its own when there is an init system; distmesh has no
# use for it, so it is told not to.
install_missing() {
    if [ "${#missing[@]}" = 0 ]; then return; fi
    say "installing ${missing[*]}"
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    elif command -v brew >/dev/null 2>&1; then
        brew install "${missing[@]/ninja-build/ninja}"
    else
        die "neither apt-get nor brew is here; install these by hand: ${missing[*]}"
    fi
}

# What `pinned` wants.
need_venv() {
    need python3 python3
    if [ "$(uname)" = Linux ] && ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
}

# pinned REQUIREMENTS DIRECTORY: installs programs that come inside Python packages, pinned by hash, into DIRECTORY/bin. A changed
# pin is a fresh start.
pinned() {
    if ! cmp -s "$1" "$2/requirements.txt"; then
        rm -rf "$2"
        python3 -m venv "$2"
        "$2/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$1"
        cp "$1" "$2/requirements.txt"
    fi
}
