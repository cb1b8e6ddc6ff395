# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by lab/build: Debian's cloud kernels for lab/qemu, below $lab/kernels.
#
#   NAME/vmlinuz, initrd, version   the kernel; an initramfs of busybox and the modules that the tests use
#   guest.ext4, guest               the guests' root, for all of them: busybox, the programs below out of the tree, the
#                                   container root file systems; and the stamp of what it was made from
#   guest-arm64.ext4, guest-arm64   the same for the kernels that are called NAME-arm64, out of Debian's arm64; with containerd
#
# Packages come from the machine's own mirror through apt-get with lists of its own. Must never touch the machine's lists.

# The suites that hold a kernel; of several the newest counts. NAME-arm64 is that kernel for aarch64.
declare -A kernel_suites=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [newest]="sid trixie-backports")
kernel_names=(5.10 6.1 6.12 newest)
qemu_packages=(xz-utils e2fsprogs)
declare -A qemu_system=([amd64]=qemu-system-x86 [arm64]=qemu-system-arm)

# The first are for the guest itself; what they need is found.
kernel_modules=(virtio_pci virtio_blk virtio_console overlay veth dummy loop bridge tun fuse squashfs isofs)
# What CRIU asks about sockets and holds packets off with.
kernel_modules+=(inet_diag tcp_diag udp_diag raw_diag unix_diag af_packet_diag netlink_diag nf_tables nf_conntrack_netlink nf_nat)
guest_programs=(dash runc crun newuidmap newgidmap ip nsenter unshare setpriv strace ps losetup mount umount)
guest_programs+=(criu tar gzip) # CRIU keeps what is in a tmpfs with GNU's tar
# Of a guest of another architecture, too: containerd, which of ours runs natively, and what spec-tests/containerd-test takes.
containerd_programs=(containerd ctr containerd-shim-runc-v2 bash script pgrep timeout)
# What these are in, where the lab's tree is for another architecture.
guest_packages=(busybox-static dash runc crun uidmap iproute2 util-linux strace procps mount criu tar gzip containerd bash bsdutils coreutils)
debian_packages=(apt base-files bash coreutils dash dpkg libc-bin) # of its container root file system
guest_recipe=3 # for the guests' root alone
kernel_recipe=4 # raise it when a change here must rebuild everybody's kernels

# The architecture that a kernel is for, in Debian's words.
kernel_arch() { # NAME
    if [[ $1 == *-arm64 ]]; then echo arm64; else echo amd64; fi
}

kernel_archs() {
    local name
    for name in "${kernels[@]}"; do kernel_arch "$name"; done | sort -u
}

# guest_of ARCH: what its guests' root is called.
guest_of() {
    if [[ $1 == amd64 ]]; then echo guest; else echo "guest-$1"; fi
}

kernels_are_done() {
    local name arch
    for arch in $(kernel_archs); do guest_is_done "$arch" || return; done
    for name in "${kernels[@]}"; do
        [[ $(cat "$lab/kernels/$name/recipe" 2>/dev/null) == "$kernel_recipe ${kernel_modules[*]}" ]] || return
    done
}

guest_is_done() { # ARCH
    local guest=$lab/kernels/$(guest_of "$1")
    [[ $(cat "$guest" 2>/dev/null) == "$(guest_stamp "$1")" && -e $guest.ext4 ]]
}

# The guest's programs are the tree's: made anew with it. Those of another architecture are as old as the recipe.
guest_stamp() { # ARCH
    if [[ $1 == amd64 ]]; then
        echo "$kernel_recipe $guest_recipe ${guest_programs[*]} $(cksum <"$lab/stamp" 2>/dev/null) $(cksum <"$lab/versions" 2>/dev/null)"
    else
        echo "$kernel_recipe $guest_recipe ${guest_programs[*]} ${containerd_programs[*]} ${guest_packages[*]} ${debian_packages[*]}"
    fi
}

make_kernels() {
    local name arch
    mkdir -p "$lab/kernels" "$new/kernels"
    for arch in $(kernel_archs); do
        guest_is_done "$arch" || make_guest "$arch"
    done
    for name in "${kernels[@]}"; do
        [[ $(cat "$lab/kernels/$name/recipe" 2>/dev/null) == "$kernel_recipe ${kernel_modules[*]}" ]] || make_kernel "$name"
    done
}

make_kernel() { # NAME
    local from=$new/kernels/$1 suite best='' version='' start=$SECONDS arch
    arch=$(kernel_arch "$1")
    for suite in ${kernel_suites[${1%-arm64}]}; do
        fetch_lists "$suite" "$arch" || { say "no suite $suite here" && continue; }
        version=$(kernel_apt apt-cache "$suite" "$arch" policy "linux-image-cloud-$arch" | sed -n 's/^ *Candidate: *//p')
        [[ -n $version && $version != '(none)' ]] || continue
        if [[ -z $best ]] || dpkg --compare-versions "$version" gt "${best#* }"; then best="$suite $version"; fi
    done
    [[ -n $best ]] || die "no linux-image-cloud-$arch in ${kernel_suites[${1%-arm64}]}"
    mkdir -p "$from/debs" "$from/tree"
    fetch_kernel "${best% *}" "$arch" "$from/debs" || die "kernel $1 could not be fetched from ${best% *}"
    make_initrd "$from/tree" "$from"
    echo "${best#* }" >"$from/version"
    echo "$kernel_recipe ${kernel_modules[*]}" >"$from/recipe"
    rm -rf "$from/debs" "$from/tree" "$from/initramfs" "$lab/kernels/$1"
    mv "$from" "$lab/kernels/$1"
    say "kernel $1: ${best#* }, $((SECONDS - start))s"
}

# kernel_apt TOOL SUITE ARCH ARGUMENTS...: apt with lists and a cache for this suite and architecture alone.
kernel_apt() {
    local tool=$1 dir=$new/kernels/apt-$2-$3 arch=$3
    shift 3
    APT_CONFIG=$new/apt.conf "$tool" -qq -o "Dir::Etc::SourceList=$dir/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::State::Status=/dev/null \
        -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@"
}

fetch_lists() { # SUITE ARCH
    local dir=$new/kernels/apt-$1-$2 mirror
    [[ ! -d $dir ]] || return 0
    mirror=$(host_mirror)
    [[ -n $mirror ]] || die "no Debian mirror in this machine's apt sources"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$dir/sources"
    kernel_apt apt-get "$1" "$2" update >"$dir/log" 2>&1 && [[ -n $(kernel_apt apt-cache "$1" "$2" pkgnames linux-image-cloud) ]]
}

# The meta package names the one with the kernel; newer ones are in parts. With them comes busybox for the initramfs.
fetch_kernel() { # SUITE ARCH DIR
    local packages
    mapfile -t packages < <(kernel_apt apt-cache "$1" "$2" depends --recurse --no-recommends --no-suggests --no-breaks \
        --no-conflicts --no-replaces --no-enhances "linux-image-cloud-$2" |
        grep -E "^linux-(image|binary|modules)-[0-9].*-cloud-$2\$" | sort -u)
    ((${#packages[@]})) || return
    (cd "$3" && kernel_apt apt-get "$1" "$2" download busybox-static "${packages[@]}" >log 2>&1) || { tail -n 5 "$3/log" >&2 && return 1; }
    local deb
    for deb in "$3"/*.deb; do dpkg-deb --extract "$deb" "$3/../tree" || return; done
}

# The modules with what they need, depmod's tables, busybox, and what brings the guest up.
make_initrd() { # TREE DIR
    local image release modules busybox root=$2/initramfs module path
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
    busybox=$1/usr/bin/busybox
    [[ -e $busybox ]] || busybox=$1/bin/busybox # bullseye's
    cp "$busybox" "$root/bin/busybox"
    # Not compressed: the guest has more memory than time.
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$2/initrd"
}

# One image for all kernels, on a file system with extended attributes and id-mapped mounts; the guests' changes are lost.
make_guest() { # ARCH
    local root=$new/kernels/root tree=$lab/tree program size start=$SECONDS guest programs=("${guest_programs[@]}")
    guest=$(guest_of "$1")
    if [[ $1 == amd64 ]]; then
        need tree/usr/bin/runc
    else
        tree=$new/kernels/tree-$1
        programs+=("${containerd_programs[@]}")
        unpack_tree "$1" "$tree"
    fi
    cp -a "$lab/busybox" "$root"
    # Where spec-tests/containerd-test looks, with CORTEN_LAB=/opt/lab.
    mkdir -p "$root/opt/lab/containerd/sid"
    ln -s /bin "$root/opt/lab/containerd/sid/bin"
    ln -s /rootfs/busybox "$root/opt/lab/busybox"
    [[ -e $root/etc/hosts ]] || echo '127.0.0.1 localhost' >"$root/etc/hosts" # containerd copies it for every pod
    put_busybox "$tree" "$root"
    mkdir -p "$root/rootfs" "$root/lab" "$root/lib" "$root/lib64" "$root/var/lib"
    echo user:100000:65536 | tee "$root/etc/subuid" >"$root/etc/subgid"
    cp -a "$lab/busybox" "$root/rootfs/busybox"
    put_busybox "$tree" "$root/rootfs/busybox"
    put_debian "$1" "$root/rootfs/debian"
    # Without iptables; corten, which has its own file, finds that out by itself.
    mkdir -p "$root/etc/criu"
    echo "network-lock nftables" >"$root/etc/criu/runc.conf"
    : >"$root/etc/criu/corten.conf"
    for program in "${programs[@]}"; do put_program "$tree" "$root" "$program"; done
    ln -sf dash "$root/bin/sh" # busybox's takes its own setpriv and ip before the programs
    size=$(($(du -sm "$root" | cut -f 1) * 5 / 4 + 800)) # of it sparse: what a thousand cases leave
    mke2fs -q -t ext4 -b 4096 -O ^has_journal -m 0 -N 120000 -d "$root" "$new/kernels/$guest.ext4" "${size}M" >/dev/null || die "mke2fs failed"
    mv "$new/kernels/$guest.ext4" "$lab/kernels/$guest.ext4"
    guest_stamp "$1" >"$lab/kernels/$guest"
    rm -rf "$root" "$new/kernels/tree-$1"
    say "the guests' root for $1: $((SECONDS - start))s, ${size}M"
}

# unpack_tree ARCH DIR [PACKAGE...]: Debian sid's packages for another architecture, whose own scripts cannot run here.
unpack_tree() {
    local arch=$1 dir=$2 mirror
    shift 2
    (($#)) || set -- "${guest_packages[@]}"
    mirror=$(host_mirror)
    mmdebstrap --quiet --architectures="$arch" --variant=extract --include="$(IFS=, && echo "$*")" --aptopt="$new/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        sid "$dir" ${mirror:+"$mirror"} >"$dir.log" 2>&1 || { tail -n 20 "$dir.log" >&2 && die "mmdebstrap for $arch failed"; }
}

put_busybox() { # TREE ROOT
    cp --remove-destination -L "$1/usr/bin/busybox" "$2/bin/busybox"
}

# A container root file system; for another architecture unpacked, and configured as the lab's is.
put_debian() { # ARCH DIR
    [[ $1 != amd64 ]] || { cp -a "$lab/debian" "$2" && return; }
    unpack_tree "$1" "$2" "${debian_packages[@]}"
    rm -f "$2.log"
    cp -a "$lab/debian/etc/passwd" "$lab/debian/etc/group" "$2/etc/"
    [[ -e $2/bin/sh ]] || ln -s dash "$2/bin/sh"
}

# The program in place of busybox's, and the libraries that it links, under the tree's own names.
put_program() { # TREE ROOT PROGRAM
    local path loader library
    path=$(cd "$1" && find usr/bin usr/sbin -maxdepth 1 -name "$3" | sed -n 1p)
    [[ -n $path ]] || die "the tree has no $3"
    rm -f "$2/bin/$3" "$2/sbin/$3" "$2/usr/bin/$3" "$2/usr/sbin/$3"
    cp -L "$1/$path" "$2/bin/$3"
    ln -s "../../bin/$3" "$2/usr/bin/$3"
    [[ ! -u $1/$path ]] || chmod u+s "$2/bin/$3"
    loader=$(patchelf --print-interpreter "$1/$path" 2>/dev/null) || return 0 # static
    cp -L "$1/usr$loader" "$2$loader"
    for library in $(libraries_of "$1" "$1/$path"); do
        mkdir -p "$2/${library%/*}"
        cp -L "$1/$library" "$2/$library"
    done
}

# libraries_of TREE FILE: those that it links, and those that they link, below TREE. What is for another machine cannot be asked itself.
libraries_of() {
    local todo=("$2") seen=' ' name path
    while ((${#todo[@]})); do
        for name in $(patchelf --print-needed "${todo[0]}"); do
            path=$(cd "$1" && find usr/lib/*-linux-gnu -maxdepth 1 -name "$name" | sed -n 1p)
            [[ -n $path && $seen != *" $path "* ]] || continue
            seen+="$path "
            todo+=("$1/$path")
        done
        todo=("${todo[@]:1}")
    done
    echo "$seen"
}
