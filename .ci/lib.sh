# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts here and demo/run share; sourced, never run. Sets names; runs nothing.

top=$(realpath "${BASH_SOURCE[0]%/*}/..")
target=${TARGET:-x86_64-unknown-linux-musl}
cargo=${CARGO:-cargo}
bin=${CARGO_TARGET_DIR:-$top/target}/$target/fast
lab=${CORTEN_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/corten-lab}
export CORTEN_LAB=$lab CARGO_TERM_PROGRESS_WHEN=never

say() {
    echo "${0#"$top"/}: $*"
}

die() {
    echo "${0#"$top"/}: $*" >&2
    exit 1
}

# True if as_root can work.
can_root() {
    ((EUID == 0)) || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; } || [[ -t 0 && -x /usr/bin/sudo ]]
}

# Runs a command as root, through sudo if need be.
as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo env "PATH=$PATH:/usr/sbin:/sbin" "CORTEN_LAB=$lab" "$@"
    fi
}

# apt_install PACKAGES...: installs those that are missing, and says which.
apt_install() {
    local missing=() package
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ii* ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "install these first (no apt-get here): ${missing[*]}"
    can_root || die "needs root to install: ${missing[*]}"
    say "installing with apt-get: ${missing[*]}"
    local install=(timeout 600 env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends)
    as_root "${install[@]}" "${missing[@]}" </dev/null >/dev/null 2>&1 || # the machine's lists may be old or absent
        { as_root timeout 300 apt-get update -qq && as_root "${install[@]}" "${missing[@]}" </dev/null >/dev/null; } ||
        die "apt-get could not install: ${missing[*]}"
}

# One build for all that runs containers here. The package set never varies: with another one cargo would choose other
# features for shared dependencies and build them again.
build_fast() {
    local words
    say "building corten, the shim and spec-tests (profile fast; a minute or two the first time)"
    words=$(timeout 1200 "$cargo" build --locked --quiet --profile fast --target "$target" -p corten -p containerd-shim-corten-v2 \
        -p spec-tests \
        --color always 2>&1 </dev/null) || { echo "$words" >&2 && return 1; } # warnings are for `make lint`
}
