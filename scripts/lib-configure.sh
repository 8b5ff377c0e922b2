# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154  # names are shared among the files
#
# How QEMU is configured. Sourced after lib.sh.

# Where Debian keeps firmware
firmware=(/usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu)

# A QEMU run from its build directory looks for /DIR in qemu-bundle/DIR only.
link_firmware() {
    local dir
    for dir in "${firmware[@]}"; do
        mkdir -p "$1/qemu-bundle${dir%/*}"
        ln -sfn "$dir" "$1/qemu-bundle$dir"
    done
}

# configure_options TREE enable|disable VERSION: the second says what to do with our
# drivers, the last is what --version adds to QEMU's own. What a desktop host needs and no more: all of QEMU takes far longer to build.
configure_options() {
    local feature tree=$1 ours=$2
    printf '%s\n' --target-list=x86_64-softmmu --without-default-features \
        --disable-modules --disable-install-blobs --disable-docs --disable-download \
        --disable-containers --disable-fdt --audio-drv-list= \
        --with-pkgversion="$3" \
        --firmwarepath="$(IFS=:; echo "${firmware[*]}")"
    ! grep -q "^option('avx2'" "$tree/meson_options.txt" || printf '%s\n' --enable-avx2
    for feature in tools kvm tcg malloc-trim coroutine-pool stack-protector pixman \
        gnutls seccomp slirp tpm zstd linux-aio linux-io-uring vhost-user \
        vhost-user-blk-server rbd curl libiscsi libnfs vdi vhdx vmdk vpc; do
        printf '%s\n' "--enable-$feature"
    done
    ! grep -q "^option('vdisk'" "$tree/meson_options.txt" ||
        printf '%s\n' "--$ours-vdisk"
}

# The same for a build in a checkout
configure_args() {
    printf '%s\n' --cc="ccache gcc" --python="$python" --extra-cflags=-g1
    configure_options "$@" Deskcast
    [ -z "$sanitize" ] ||
        printf '%s\n' --enable-asan --enable-ubsan --extra-ldflags="$build/sanitizers.o"
}
