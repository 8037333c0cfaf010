# Shared by the scripts of this directory; sourced, not run. Needs $0 to be a script in integration/.

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# be_root WHY "$@": goes on as root; who is another user is asked for a password by sudo.
be_root() {
    why=$1
    shift
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null || die "$why, and there is no sudo: run it as root"
    exec sudo -E "$0" "$@"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "needs root, and there is no sudo: run it as root"
    fi
}

# need_packages PACKAGE...: installs those that are missing, on Debian and its descendants.
need_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "$(basename "$0"): this is not Debian or Ubuntu; going on as if these packages' programs were there: $*"
        return 0
    fi
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    say "installing:$missing"
    # A fresh machine's package lists are empty or old.
    as_root apt-get -o DPkg::Lock::Timeout=300 -qq update
    # Services that come along stay off: the tests start their own, privately.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    else
        policy=
    fi
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $missing >&2 || missing=failed
    [ -z "$policy" ] || as_root rm -f "$policy"
    [ "$missing" != failed ] || die "apt-get could not install the packages"
}

# need_rust: a Rust tool chain at least as new as the workspace asks for.
need_rust() {
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$top/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        # Debian 13 and Ubuntu 24.04 have rustup as a package; Debian 12's own cargo is too old to be of use.
        if apt-cache show rustup >/dev/null 2>&1; then
            need_packages rustup
            rustup default stable >&2
        else
            die "Rust $wanted or later is needed: install it with rustup (https://rustup.rs) and call this again"
        fi
    fi
    have=$(cargo --version | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)
    [ "$oldest" = "$wanted" ] || die "Rust $wanted or later is needed, this is $have: run 'rustup update'"
}

# target_dir: where the built programs are, by profile.
target_dir() {
    echo "${CARGO_TARGET_DIR:-$top/target}/$(rustc -vV | sed -n 's/^host: //p')"
}

# debian_mirror: the mirror that the machine itself uses, where it is a Debian.
debian_mirror() {
    mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*debian\) .*/\2/p' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
    echo "${mirror:-http://deb.debian.org/debian}"
}

# suite_begin DIR SUITE: an apt of its own, in DIR, for the packages of another Debian suite. Nothing is installed by it.
suite_begin() {
    suite_dir=$1
    rm -rf "$suite_dir"
    mkdir -p "$suite_dir/state/lists/partial" "$suite_dir/cache/archives/partial"
    : >"$suite_dir/status"
    cat >"$suite_dir/suite.sources" <<EOF
Types: deb
URIs: $(debian_mirror)
Suites: $2
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
}

# suite_apt COMMAND...: apt-get with what suite_begin made.
suite_apt() {
    apt-get -qq \
        -o Dir::State="$suite_dir/state" -o Dir::State::status="$suite_dir/status" -o Dir::Cache="$suite_dir/cache" \
        -o Dir::Etc::sourcelist="$suite_dir/suite.sources" -o Dir::Etc::sourceparts="$suite_dir/none" \
        -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Acquire::Languages=none \
        -o Acquire::Retries=3 -o APT::Update::Post-Invoke::= "$@"
}
