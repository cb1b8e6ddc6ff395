# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts here and demo/run share; sourced, never run. Sets names; runs nothing.

top=$(realpath "${BASH_SOURCE[0]%/*}/..")
target=${TARGET:-x86_64-unknown-linux-musl}
cargo=${CARGO:-cargo}
bin=${CARGO_TARGET_DIR:-$top/target}/$target/fast
# Not in the lab, which may be root's.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/corten-tools
deny=0.20.2 # of cargo-deny
lab=${CORTEN_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/corten-lab}
PATH=$PATH:$lab/criu # checkpoints; the host's own CRIU goes before
export CORTEN_LAB=$lab CARGO_TERM_PROGRESS_WHEN=never
# The other architecture: what its programs are built for, by the toolchain's own linker, and the kernel they run on.
arm=aarch64-unknown-linux-musl
arm_bin=${CARGO_TARGET_DIR:-$top/target}/$arm/fast
arm_kernel=6.12-arm64
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER:-rust-lld}

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

# Those of v1, and the v2 beside them, where a runtime makes groups as well.
hierarchies() {
    awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts
}

# leave_groups GROUP: takes our own groups away, once all their processes are gone; deepest first, and never the mount point above.
leave_groups() {
    local at try
    for at in $(hierarchies); do
        for try in {1..50}; do
            [[ -d $at/$1 ]] || break
            find "$at/$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
            [[ -d $at/$1 ]] && sleep 0.1
        done
        [[ ! -d $at/$1 ]] || echo "left behind: $at/$1" >&2
    done
}

# start_containerd WORK [COMMAND...]: a containerd of its own in WORK, whose socket is there on return, by COMMAND if there is one; sets `daemon`
# to its pid.
start_containerd() {
    local work=$1
    cat >"$work/config.toml" <<EOF
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$work/containerd.sock"
EOF
    "${@:2}" containerd --config "$work/config.toml" >"$work/log" 2>&1 &
    # shellcheck disable=SC2034 # the caller's
    daemon=$!
    for _ in {1..300}; do
        [[ -S $work/containerd.sock ]] && break
        kill -0 $daemon 2>/dev/null || die "containerd does not start: $(tail -n 3 "$work/log")"
        sleep 0.1
    done
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
# features for shared dependencies and build them again. With --show cargo tells how far it is.
build_fast() {
    local words
    local build=(timeout 1200 "$cargo" build --locked --profile fast --target "$target")
    build+=(-p corten -p containerd-shim-corten-v2 -p spec-tests)
    say "building corten, the shim and spec-tests for ${target%%-*} (profile fast; a minute or two the first time)"
    if [[ ${1-} == --show ]]; then
        CARGO_TERM_PROGRESS_WHEN=auto "${build[@]}" </dev/null
        return
    fi
    words=$("${build[@]}" --quiet --color always 2>&1 </dev/null) || { echo "$words" >&2 && return 1; } # warnings are for `make lint`
}

# What labels and profiles touch; the other chapters are the same with and without them.
labelled=(lsm/ mounts/ rootfs/ masked/ process/ keyring/ exec/ lifecycle/ hooks/)

# What differs from kernel to kernel, for a minute of it: namespaces, mounts, groups, devices, the ways in and out.
on_a_kernel=(devices/owner-in-a-user-namespace userns/root-inside-is-100000-outside userns/mount-idmapped mounts/option-nosymfollow
    mounts/bind-option-r mounts/rro old-kernel/ cgroup/cpuset cgroup/hugetlb cgroup/mounted-inside bite/cpus-are bite/memory-after
    cgroup-devices/access-by-kind rootless/own-id-alone rootless/spec-writes-what-runs rootless/hosts-sysfs timens/
    seccomp/docker-default-profile lifecycle/create-start freeze/ exec/affinity doctor/tells doctor/as-a-user)

# What differs from machine to machine: numbers and ABIs of system calls, structures of the kernel's, the stage's own code.
on_aarch64=(seccomp/32-bit seccomp/errno seccomp/SCMP_ seccomp/docker-default-profile seccomp/notify-with seccomp/dies-for-capset seccomp/flags-
    cgroup-devices/ timens/ userns/root-inside-is-100000-outside userns/mount-idmapped mounts/option-nosymfollow mounts/rro old-kernel/ bite/cpus-are
    bite/memory-after freeze/ lifecycle/create-waits exec/affinity process/personality terminal/console-size attack/S01-program
    rootless/own-id-alone doctor/tells)

# The kernel whose turn it is: with each commit another one, so that a bisection sees them all.
kernel_in_turn() {
    local names=(5.10 6.1 6.12 newest) turn
    turn=$(git -C "$top" rev-list --count HEAD 2>/dev/null) || turn=$(date +%-j)
    echo "${KERNEL:-${names[turn % ${#names[@]}]}}"
}

# shim_cases ENVIRONMENT SHIM [OPTION...]: what runs the cases of a shim natively, under that name, into the array `command`.
shim_cases() {
    command=("$bin/spec-tests" shim --shim "$2" --env "$1" --runc "$lab/peers/runc" --rootfs-busybox "$lab/busybox" "${@:3}")
}

# cases_in ENVIRONMENT RUNTIME BARE [OPTION...]: what runs the cases of RUNTIME (its path in there), into the array `command`:
# with the lab's root file systems, and in a guest as the only one, unless BARE says something. The options are lab/uml's, or
# lab/qemu's for kernel-NAME and kernel-NAME-v1.
cases_in() {
    local chapter programs run=(run --env "$1" --runtime "$2") options=("${@:4}" --share "$bin:/corten")
    if [[ $1 == kernel-* ]]; then
        chapter=${1#kernel-}
        programs=$bin
        [[ $1 != *-arm64* ]] || programs=$arm_bin
        options=("${@:4}" --kernel "${chapter%-v1}" --share "$programs/corten:/corten/corten"
            --share "$programs/spec-tests:/corten/spec-tests")
        [[ $chapter != *-v1 ]] || options+=(--v1)
        # The guest's root, and so /var/tmp, is a file system that id-mapped mounts know from the first.
        run+=(--timeout 120 --alone --tmp /var/tmp --rootfs-busybox /rootfs/busybox --rootfs-debian /rootfs/debian)
        command=("$top/lab/qemu" "${options[@]}" -- /corten/spec-tests "${run[@]}")
        return
    fi
    if [[ $1 == native-* ]]; then
        command=("$top/lab/$1" "$bin/spec-tests" "${run[@]}")
        [[ -n $3 ]] || command+=(--rootfs-busybox "$lab/busybox" --rootfs-debian "$lab/debian")
        return
    fi
    run=(/corten/spec-tests "${run[@]}" --timeout 60)
    if [[ -z $3 ]]; then
        options+=(--share "$lab/busybox:/rootfs/busybox" --share "$lab/debian:/rootfs/debian")
        run+=(--alone --rootfs-busybox /rootfs/busybox --rootfs-debian /rootfs/debian)
    fi
    case $1 in
    uml-systemd)
        options+=(--systemd)
        run+=(--filter systemd/ --filter cgroup/disabled)
        # shellcheck disable=SC2016 # the guest's arguments
        run=(sh -c 'systemctl start dbus.service systemd-logind.service && exec "$@"' sh "${run[@]}")
        ;;
    uml-*)
        options+=(--lsm "${1#uml-}")
        for chapter in "${labelled[@]}"; do run+=(--filter "$chapter"); done
        ;;
    esac
    # shellcheck disable=SC2034 # the caller's
    command=("$top/lab/uml" "${options[@]}" -- "${run[@]}")
}

# twins_in ENVIRONMENT SECONDS OPTION...: what compares corten with its peers there, into the array `command`; a guest gets so
# many seconds. The options are those of spec-tests twins.
twins_in() {
    local out=${CARGO_TARGET_DIR:-$top/target}/twins run
    mkdir -p "$out"
    run=(twins --env "$1" "${@:3}")
    if [[ $1 == native-* ]]; then
        command=("$top/lab/$1" "$bin/spec-tests" "${run[@]}" --runtime "$bin/corten" --peer "$lab/peers/runc" --peer "$lab/peers/crun"
            --rows "$top/docs/differences.md" --out "$out")
        return
    fi
    # The bundles lie on a file system without nosuid and nodev, which systemd's /tmp has; and what is executed a thousand times
    # lies in memory.
    run=(/run/twins/spec-tests "${run[@]}" --runtime /run/twins/corten --peer /usr/bin/runc --peer /usr/bin/crun
        --rows /docs/differences.md --out /out --timeout 60 --jobs 1 --tmp /var/lib/containers)
    local before='mkdir /run/twins && cp /corten/spec-tests /corten/corten /run/twins'
    # Whoever opens a disk first loads the driver, with which /proc/scsi comes.
    before+=' && { modprobe -q sd_mod || true; }'
    # runc mounts cgroup2 without the options that systemd chose, which takes them from the whole machine: so they go first.
    [[ $1 != uml-systemd ]] || before+=' && systemctl start dbus.service systemd-logind.service && mkdir /run/twins/cgroup2 &&
        mount -t cgroup2 cgroup2 /run/twins/cgroup2 && umount /run/twins/cgroup2'
    run=(sh -c "$before && exec \"\$@\"" sh "${run[@]}")
    # shellcheck disable=SC2034 # the caller's
    command=("$top/lab/uml" --mem 2G --timeout "$2" --share "$bin:/corten" --share "$top/docs:/docs" --share "$out:/out")
    [[ $1 != uml-systemd ]] || command+=(--systemd)
    command+=(-- "${run[@]}")
}
