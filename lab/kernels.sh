# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by lab/build: Debian's cloud kernels for lab/qemu, below $lab/kernels.
#
#   NAME/vmlinuz, initrd, version   the kernel; an initramfs of busybox and the modules that the tests use
#   guest.ext4, guest               the guests' root, for all of them: busybox, the programs below out of the tree, the
#                                   container root file systems; and the stamp of what it was made from
#
# Packages come from the machine's own mirror through apt-get with lists of its own. Must never touch the machine's lists.

# The suites that hold a kernel; of several the newest counts.
declare -A kernel_suites=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [newest]="sid trixie-backports")
kernel_names=(5.10 6.1 6.12 newest)
qemu_packages=(qemu-system-x86 xz-utils e2fsprogs)

# The first are for the guest itself; what they need is found.
kernel_modules=(virtio_pci virtio_blk virtio_console overlay veth dummy loop bridge tun fuse squashfs isofs)
# What CRIU asks about sockets and holds packets off with.
kernel_modules+=(inet_diag tcp_diag udp_diag raw_diag unix_diag af_packet_diag netlink_diag nf_tables nf_conntrack_netlink nf_nat)
guest_programs=(dash runc crun newuidmap newgidmap ip nsenter unshare setpriv strace ps losetup mount umount)
guest_programs+=(criu tar gzip) # CRIU keeps what is in a tmpfs with GNU's tar
guest_recipe=3 # for the guests' root alone
kernel_recipe=4 # raise it when a change here must rebuild everybody's kernels

kernels_are_done() {
    local name
    [[ -n ${kernels[*]} ]] || return 0
    [[ $(cat "$lab/kernels/guest" 2>/dev/null) == "$(guest_stamp)" && -e $lab/kernels/guest.ext4 ]] || return
    for name in "${kernels[@]}"; do
        [[ $(cat "$lab/kernels/$name/recipe" 2>/dev/null) == "$kernel_recipe ${kernel_modules[*]}" ]] || return
    done
}

# The guest's programs are the tree's: made anew with it.
guest_stamp() {
    echo "$kernel_recipe $guest_recipe ${guest_programs[*]} $(cksum <"$lab/stamp" 2>/dev/null) $(cksum <"$lab/versions" 2>/dev/null)"
}

make_kernels() {
    local name
    mkdir -p "$lab/kernels" "$new/kernels"
    [[ $(cat "$lab/kernels/guest" 2>/dev/null) == "$(guest_stamp)" ]] || make_guest
    for name in "${kernels[@]}"; do
        [[ $(cat "$lab/kernels/$name/recipe" 2>/dev/null) == "$kernel_recipe ${kernel_modules[*]}" ]] || make_kernel "$name"
    done
}

make_kernel() { # NAME
    local from=$new/kernels/$1 suite best='' version='' start=$SECONDS
    for suite in ${kernel_suites[$1]}; do
        fetch_lists "$suite" || { say "no suite $suite here" && continue; }
        version=$(kernel_apt apt-cache "$suite" policy linux-image-cloud-amd64 | sed -n 's/^ *Candidate: *//p')
        [[ -n $version && $version != '(none)' ]] || continue
        if [[ -z $best ]] || dpkg --compare-versions "$version" gt "${best#* }"; then best="$suite $version"; fi
    done
    [[ -n $best ]] || die "no linux-image-cloud-amd64 in ${kernel_suites[$1]}"
    mkdir -p "$from/debs" "$from/tree"
    fetch_kernel "${best% *}" "$from/debs" || die "kernel $1 could not be fetched from ${best% *}"
    make_initrd "$from/tree" "$from"
    echo "${best#* }" >"$from/version"
    echo "$kernel_recipe ${kernel_modules[*]}" >"$from/recipe"
    rm -rf "$from/debs" "$from/tree" "$from/initramfs" "$lab/kernels/$1"
    mv "$from" "$lab/kernels/$1"
    say "kernel $1: ${best#* }, $((SECONDS - start))s"
}

# kernel_apt TOOL SUITE ARGUMENTS...: apt with lists and a cache for this suite alone.
kernel_apt() {
    local tool=$1 dir=$new/kernels/apt-$2
    shift 2
    APT_CONFIG=$new/apt.conf "$tool" -qq -o "Dir::Etc::SourceList=$dir/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::State::Status=/dev/null \
        -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@"
}

fetch_lists() { # SUITE
    local dir=$new/kernels/apt-$1 mirror
    [[ ! -d $dir ]] || return 0
    mirror=$(host_mirror)
    [[ -n $mirror ]] || die "no Debian mirror in this machine's apt sources"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$dir/sources"
    kernel_apt apt-get "$1" update >"$dir/log" 2>&1 && [[ -n $(kernel_apt apt-cache "$1" pkgnames linux-image-cloud) ]]
}

# The meta package names the one with the kernel; newer ones are in parts.
fetch_kernel() { # SUITE DIR
    local packages
    mapfile -t packages < <(kernel_apt apt-cache "$1" depends --recurse --no-recommends --no-suggests --no-breaks \
        --no-conflicts --no-replaces --no-enhances linux-image-cloud-amd64 |
        grep -E '^linux-(image|binary|modules)-[0-9].*-cloud-amd64$' | sort -u)
    ((${#packages[@]})) || return
    (cd "$2" && kernel_apt apt-get "$1" download "${packages[@]}" >log 2>&1) || { tail -n 5 "$2/log" >&2 && return 1; }
    local deb
    for deb in "$2"/*.deb; do dpkg-deb --extract "$deb" "$2/../tree" || return; done
}

# The modules with what they need, depmod's tables, busybox, and what brings the guest up.
make_initrd() { # TREE DIR
    local image release modules root=$2/initramfs module path
    mkdir -p "$1/boot" "$1/lib/modules" "$1/usr/lib/modules" # suites differ in which they use
    image=$(find "$1/boot" "$1/usr/lib/modules" -name 'vmlinuz*' | sed -n 1p)
    modules=$(find "$1/lib/modules" "$1/usr/lib/modules" -maxdepth 1 -mindepth 1 | sed -n 1p)
    [[ -n $image && -n $modules ]] || die "no kernel in the packages of ${2##*/}"
    release=${modules##*/}
    cp "$image" "$2/vmlinuz"
    mkdir -p "$root"/{bin,dev,proc,sys,new} "$root/lib/modules/$release"
    # depmod wants to see all of them uncompressed.
    find "$modules" -name '*.ko.xz' -exec xz --decompress --threads=2 {} +
    mkdir -p "$1/depmod/lib/modules" && mv "$modules" "$1/depmod/lib/modules/"
    modules=$1/depmod/lib/modules/$release
    (cd "$modules" && busybox depmod -b "$1/depmod" "$release") || die "depmod of ${2##*/} failed"
    for module in "${kernel_modules[@]}"; do
        for path in $(awk -v want="$module" -F': *' '{
            name = $1; sub(/.*\//, "", name); sub(/\.ko$/, "", name); gsub(/-/, "_", name)
            if (name == want) print $1, $2 }' "$modules/modules.dep"); do
            mkdir -p "$root/lib/modules/$release/${path%/*}"
            cp "$modules/$path" "$root/lib/modules/$release/$path"
        done
    done
    cp "$modules"/modules.builtin* "$modules/modules.order" "$root/lib/modules/$release/" 2>/dev/null || true
    (cd "$root/lib/modules/$release" && busybox depmod -b "$root" "$release") || die "depmod of ${2##*/} failed"
    cp "$(command -v busybox)" "$root/bin/busybox"
    # Not compressed: the guest has more memory than time.
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$2/initrd"
}

# One image for all kernels, on a file system with extended attributes and id-mapped mounts; the guests' changes are lost.
make_guest() {
    local root=$new/kernels/root program size start=$SECONDS
    need tree/usr/bin/runc
    cp -a "$lab/busybox" "$root"
    mkdir -p "$root/rootfs" "$root/lab" "$root/lib64" "$root/var/lib"
    echo user:100000:65536 | tee "$root/etc/subuid" >"$root/etc/subgid"
    cp -a "$lab/busybox" "$root/rootfs/busybox"
    cp -a "$lab/debian" "$root/rootfs/debian"
    # Without iptables; corten, which has its own file, finds that out by itself.
    mkdir -p "$root/etc/criu"
    echo "network-lock nftables" >"$root/etc/criu/runc.conf"
    : >"$root/etc/criu/corten.conf"
    for program in "${guest_programs[@]}"; do put_program "$root" "$program"; done
    ln -sf dash "$root/bin/sh" # busybox's takes its own setpriv and ip before the programs
    size=$(($(du -sm "$root" | cut -f 1) * 5 / 4 + 800)) # of it sparse: what a thousand cases leave
    mke2fs -q -t ext4 -b 4096 -O ^has_journal -m 0 -N 120000 -d "$root" "$new/kernels/guest.ext4" "${size}M" >/dev/null || die "mke2fs failed"
    mv "$new/kernels/guest.ext4" "$lab/kernels/guest.ext4"
    guest_stamp >"$lab/kernels/guest"
    rm -rf "$root"
    say "the guests' root: $((SECONDS - start))s, ${size}M"
}

# The program in place of busybox's, and the libraries that it links, under the tree's own names.
put_program() { # ROOT PROGRAM
    local tree=$lab/tree path library
    path=$(cd "$tree" && find usr/bin usr/sbin -maxdepth 1 -name "$2" | sed -n 1p)
    [[ -n $path ]] || die "the tree has no $2"
    rm -f "$1/bin/$2" "$1/sbin/$2" "$1/usr/bin/$2" "$1/usr/sbin/$2"
    cp -L "$tree/$path" "$1/bin/$2"
    ln -s "../../bin/$2" "$1/usr/bin/$2"
    [[ ! -u $tree/$path ]] || chmod u+s "$1/bin/$2"
    for library in $("$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" \
        --list "$tree/$path" 2>/dev/null | grep -o "$tree/[^ ]*"); do
        mkdir -p "$1/usr/lib/x86_64-linux-gnu"
        cp -L "$library" "$1/usr/lib/x86_64-linux-gnu/"
    done
    cp -L "$tree/usr/lib64/ld-linux-x86-64.so.2" "$1/lib64/"
}
