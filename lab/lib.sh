# SPDX-License-Identifier: Apache-2.0
#
# What the lab's scripts share; sourced, never run. Must never do anything when sourced but set names and check them.

# Where the lab lives (lab/build fills it), and the name of the running tool for messages.
lab=${CORTEN_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/corten-lab}
tool=lab/${0##*/}

# Where container engines keep layers: a tmpfs of its own in every environment.
storage_dirs=(/var/lib/containerd /var/lib/containers /var/lib/docker)

# The lab's own failures end with 125, so that they are not taken for the exit code of CMD.
die() {
    echo "$tool: $*" >&2
    exit 125
}

[[ $lab == /* ]] || die "CORTEN_LAB must be an absolute path, not $lab"

# Fails unless lab/build has put FILE (relative to the lab) in place.
need() {
    [[ -e $lab/$1 ]] || die "$lab/$1 is missing: run lab/build${2:+ $2} first"
}

need_root() {
    ((EUID == 0)) || die "needs root"
}

# The host's own Debian mirror; nothing on another distribution (mmdebstrap then uses its default).
host_mirror() {
    apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(LABEL) $(REPO_URI)' |
        sed -n 's/^Packages Debian Debian //p' | sort -u | sed -n 1p
}

# mount_view [PART]: mounts a throw-away writable view of the tree, or of another part, at $lab/mnt/view: an overlay whose upper layer is a tmpfs.
# Only for a private mount namespace: the mounts and all that was written go with it.
mount_view() {
    cd "$lab" || die "cannot enter $lab" # relative layers: the lab's path may hold what overlay options cannot
    mount -t tmpfs -o mode=755 tmpfs mnt
    mkdir mnt/upper mnt/work mnt/view mnt/uml
    mount -t overlay -o "lowerdir=${1:-tree},upperdir=mnt/upper,workdir=mnt/work" overlay mnt/view
    cp --remove-destination -L /etc/resolv.conf mnt/view/etc/resolv.conf 2>/dev/null || true
}

# make_tree DIR SUITE PACKAGES...: a small Debian of that suite in $lab/DIR, with these packages, and the file stamp-$recipe. It is made aside and renamed.
make_tree() {
    need_root
    local dir=$lab/$1 new=$lab/$1.new suite=$2 start=$SECONDS mirror
    shift 2
    rm -rf --one-file-system "$new" "$new.log"
    mirror=$(host_mirror)
    { apt-config dump | grep -E '^Acquire::(http|https|Check-)' || true; } >"$new.conf" # the host's proxy and CA
    echo 'Acquire::Check-Valid-Until "false";' >>"$new.conf"                           # the mirror may be a snapshot
    mmdebstrap --quiet --variant=minbase --include="$(IFS=, && echo "$*")" --aptopt="$new.conf" \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        "$suite" "$new" ${mirror:+"$mirror"} >"$new.log" 2>&1 ||
        { tail -n 20 "$new.log" >&2 && die "mmdebstrap of $dir failed"; }
    touch "$new/stamp-$recipe"
    rm -rf --one-file-system "$dir"
    mv "$new" "$dir"
    rm -f "$new.conf" "$new.log"
    echo "$tool: ${dir#"$lab/"}: $((SECONDS - start))s, $(du -sh "$dir" | cut -f 1)"
}
