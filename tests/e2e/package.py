# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian package whose upgrade takes the network down, for a guest to install.

Version 1.0 sets up the guest's network. The upgrade to 2.0 restarts it, which
takes the interface down for ten seconds, and meanwhile writes files in rounds,
each of which it makes durable. What it does it tells the host through a port:

    begin | written ROUND | durable ROUND | down | up | end
    sum ROUND SHA256 PATH       before it is written; durable with its round

Both packages are in a tar archive that is the guest's second disk.
"""

import hashlib
import os
import pathlib
import subprocess
import tarfile

NAME = "desktop-suite"
OLD, NEW = "1.0", "2.0"
PORT = "org.deskcast.report.0"
FOLDER = "/opt/suite"
MIB = 1 << 20
# Each round writes that many files of that many KiB
FILES, FILE_KIB = 4, 512
# What the package itself brings: files of 1 MiB
PAYLOAD = 6
# In seconds: the interface is down; and at most for the host's word, between
# writing and making durable, in the round in which the store is to die
DOWN = 10
REST = 30

CONTROL = """Package: {name}
Version: {version}
Architecture: all
Maintainer: IT department <it@example.org>
Description: what the users asked for
"""

NETWORK = """# SPDX-License-Identifier: GPL-2.0-or-later
[Match]
Type=ether
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
"""

INSTALL = """#!/bin/sh
set -e
rm -f /etc/systemd/system/systemd-networkd.service
systemctl daemon-reload
systemctl enable --quiet --now systemd-networkd
"""

# $1 is "configure"; a direct write is acknowledged, and not durable before sync
UPGRADE = """#!/bin/bash
set -e
exec 3<>/dev/virtio-ports/{port}
report() {{ echo "$*" >&3; }}

restart_network() {{
    local i
    systemctl stop systemd-networkd.socket systemd-networkd 2>&1
    for i in /sys/class/net/e*; do
        echo $(($(cat $i/flags) & ~1)) >$i/flags
    done
    report down
    sleep {down}
    systemctl start systemd-networkd
    report up
}}

report begin
mkdir -p {folder}/data /run/{name}
for round in $(seq {rounds}); do
    if [ $round = {down_round} ]; then restart_network & fi
    for n in $(seq {files}); do
        file={folder}/data/$round.$n
        dd if=/dev/urandom of=/run/{name}/part bs={kib}k count=1 iflag=fullblock status=none
        set -- $(sha256sum /run/{name}/part)
        report sum $round $1 $file
        dd if=/run/{name}/part of=$file bs={kib}k oflag=direct status=none
    done
    report written $round
    if [ $round = {kill_round} ]; then read -r -t {rest} -u 3 || true; fi
    sync
    report durable $round
done
wait
report end
"""


def script(rounds, down_round, kill_round):
    return UPGRADE.format(port=PORT, name=NAME, folder=FOLDER, down=DOWN, rest=REST,
                          files=FILES, kib=FILE_KIB, rounds=rounds, down_round=down_round,
                          kill_round=kill_round)


def build(folder, version, postinst, files):
    """Make a package in the folder; return its path. files: content by path."""
    root = pathlib.Path(folder) / f"{NAME}-{version}"
    sums = ""
    for path, content in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        sums += f"{digest}  {path.lstrip('/')}\n"
    control = root / "DEBIAN"
    control.mkdir(mode=0o755)
    (control / "control").write_text(CONTROL.format(name=NAME, version=version))
    (control / "md5sums").write_text(sums)
    (control / "postinst").write_text(postinst)
    (control / "postinst").chmod(0o755)
    deb = root.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, deb],
                   check=True, capture_output=True)
    return deb


def medium(folder, rounds, down_round, kill_round):
    """The disk with both packages; return its path, and the sums of what the new
    one brings: SHA-256 by path."""
    folder = pathlib.Path(folder)
    network = {"/etc/systemd/network/10-desktop.network": NETWORK.encode()}
    brings = {f"{FOLDER}/lib/part{n}": os.urandom(MIB) for n in range(PAYLOAD)}
    path = folder / "medium.tar"
    with tarfile.open(path, "w") as tar:
        for version, postinst, files in (
                (OLD, INSTALL, network),
                (NEW, script(rounds, down_round, kill_round), {**network, **brings})):
            tar.add(build(folder, version, postinst, files), f"{version}.deb")
    return path, {p: hashlib.sha256(c).hexdigest() for p, c in brings.items()}
