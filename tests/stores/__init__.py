# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores that a version is read from, and what goes wrong with them.

    process   a server: started, stopped for sure, stopped and killed on the way
    nbd       qemu-storage-daemon, also with a volatile cache, and nbdkit
    far       HTTPS, iSCSI, NFS; ceph: Ceph
    netns     network namespaces with a link between them
    link      a proxy that delays, slows, stalls and cuts
    damage    a proxy that damages what NBD servers answer
    garble    a proxy that damages the protocol itself
    faults    random schedules of faults, which can be repeated
    client    reads through QEMU, compared with the image

Only the standard library is used. DESKCAST_BUILD names the build.
"""
