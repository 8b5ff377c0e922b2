# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154  # names are shared among the files
#
# A private apt: the machine's own Debian archives with other suites, its state
# in our cache. The machine's configuration is read, never changed.
# Sourced after lib.sh.

# Print "URI signed-by" of each Debian archive the machine is set up for, as
# apt itself reads its sources. Third parties' archives carry other paths.
debian_archives() {
    apt-get indextargets --no-release-info \
        --format '$(REPO_URI) $(SIGNED_BY)' 'Created-By: Packages' |
    sed -e 's/ \$(SIGNED_BY)$/ /' |
    grep -E '^[^ ]*/debian(-security)?(/[0-9]+T[0-9]+Z)?/? ' | sort -u
}

# private_sources TYPE CODENAME SUITE...: TYPE is deb or deb-src. Suites named
# *-security are looked for in the security archive, the others in the main one.
private_sources() {
    local type=$1 uri key suite
    shift
    debian_archives | while read -r uri key; do
        # A key embedded in the source has no short form: apt's own keyring.
        case $key in /*) key="[signed-by=$key] " ;; *) key= ;; esac
        for suite; do
            case $uri,$suite in
            */debian-security/*,*-security | */debian-security,*-security) ;;
            */debian-security/*,* | */debian-security,* | *,*-security) continue ;;
            esac
            printf '%s %s%s %s main\n' "$type" "$key" "$uri" "$suite"
        done
    done
}

# private_apt NAME: define the array `apt` that runs apt-get with the sources
# in $cache/apt/NAME/sources.list.
private_apt() {
    local dir=$cache/apt/$1
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    : >"$dir/preferences"
    apt=(apt-get -q
         -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
         -o "Dir::Etc::preferences=$dir/preferences" -o Dir::Etc::preferencesparts=/dev/null
         -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir"
         -o "Dir::Cache::archives=$dir/archives"
         -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
         -o Acquire::Languages=none -o Acquire::Retries=3)
    # apt drops to _apt for downloads, which cannot enter root's cache.
    [ "$(id -u)" != 0 ] || apt+=(-o APT::Sandbox::User=root)
}

# private_update NAME TYPE SUITE...: make the sources and fetch their lists.
private_update() {
    local name=$1 dir=$cache/apt/$1
    shift
    private_apt "$name"
    private_sources "$@" >"$dir/sources.list"
    [ -s "$dir/sources.list" ] ||
        die "no Debian archive among this machine's apt sources" \
            "expected an address that ends in /debian"
    logged "apt-$name" "${apt[@]}" update
}

# A listing that changes when a file of the tree is added, cut or edited. Byte
# code is left out: Python writes it beside what it runs.
tree_stamp() {
    (cd "$1" && find . -name __pycache__ -prune -o ! -type d -printf '%y %P %l %s %T@\n' |
        sort | hash_of)
}

# A tree in the cache is whole if its stamp, written last, still fits it.
tree_whole() {
    [ -d "$1" ] && [ -s "$1.stamp" ] && [ "$(tree_stamp "$1")" = "$(cat "$1.stamp")" ]
}

# Move a finished tree into place; a crash in between leaves no stamp.
tree_publish() {
    rm -rf "$2.stamp" "$2"
    mv "$1" "$2"
    tree_stamp "$2" >"$2.stamp.new"
    mv "$2.stamp.new" "$2.stamp"
}

# mmdebstrap ignores the machine's apt.conf, and with it the way to the archive.
apt_network_options() {
    apt-config dump --no-empty |
        grep -E '^Acquire::(https?|ftp)(::[^:]+)?::(Proxy|CaInfo|Verify-)' || true
}

# debian_tree "SUITE..." ARG...: mmdebstrap ARG..., whose last ones are the release, what
# to make, and "-" for the sources, which come on standard input. Uses the folder $work.
debian_tree() {
    apt_network_options >"$work/apt.conf"
    # shellcheck disable=SC2086  # one word per suite
    private_sources deb $1 >"$work/sources.list"
    [ -s "$work/sources.list" ] ||
        die "no Debian archive among this machine's apt sources"
    # The tools of Debian's root live in sbin, which is not on a user's PATH.
    as_root env PATH="$PATH:/usr/sbin:/sbin" mmdebstrap --mode=root \
        --aptopt="$work/apt.conf" --aptopt='Acquire::Retries "3"' "${@:2}" \
        <"$work/sources.list"
}
