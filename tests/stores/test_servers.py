# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of store serves its image, byte for byte, and locks it."""

import contextlib

from . import ceph, client, far, images, nbd, node
from .node import GuestError
from .process import StoreError, program, run


def serves(store):
    with store:
        return None if client.same(store, store.netns) else 'content differs'


def needs_key(image):
    """Without the key, nobody comes in."""
    with nbd.StorageDaemon(image, tcp=True, psk=True) as store, \
            nbd.StorageDaemon(image, tcp=True, psk=True) as other:
        try:
            other.address = store.address       # the right door, another key
            client.same(other)
        except StoreError as e:
            return None if 'TLS' in str(e) else str(e)
        return 'it let somebody in with another key'


@contextlib.contextmanager
def writable_export(options, **more):
    """A daemon that exports the image to write to, or a GuestError."""
    with node.Node({**options, 'read-only': False}, add=False) as daemon:
        daemon.command('blockdev-add', **daemon.options)
        daemon.command('block-export-add', **{
            'type': 'nbd', 'id': 'export', 'node-name': 'disk',
            'writable': True}, **more)
        yield daemon


def refused(options):
    try:
        with writable_export(options, exclusive=True):
            return False
    except GuestError as e:
        return 'Cannot promise an exclusive export' in str(e)


def writes(daemon):
    run(program('qemu-io'), '-f', 'raw', '-c', 'write 0 4k', daemon.uri())


def locks(cluster):
    """An exclusive export over RBD keeps all other writers out, and no longer
    than its daemon lives."""
    with cluster:
        options = cluster.options()
        with writable_export(options, exclusive=True) as first:
            if not refused(options):
                return 'two daemons promise the same'
            with writable_export(options) as other:
                try:
                    writes(other)
                    return 'somebody else writes'
                except StoreError:
                    writes(first)
            first.popen.kill()
            first.popen.wait()
            # Until the cluster takes the lock from it
            with writable_export(options, exclusive=True) as second:
                writes(second)
        cluster.tool('rbd', 'create', '--size', '8M', '--image-feature',
                     'layering', f'{ceph.POOL}/plain')
        if not refused({**options, 'image': 'plain'}):
            return 'it is promised without the feature exclusive-lock'
    return None


def tells_difference(folder, image):
    """The comparison is one: it finds a wrong byte."""
    changed = images.make(folder, 'changed')
    with open(image, 'rb') as f:
        data = bytearray(f.read())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    with nbd.StorageDaemon(changed) as store:
        store.image = image
        return 'a changed byte is not found' if client.same(store) else None


def tests(folder, args):
    image = images.make(folder, 'image')
    yield ('qemu-storage-daemon, Unix socket', serves,
           nbd.StorageDaemon(image))
    yield ('qemu-storage-daemon, TLS with a pre-shared key', serves,
           nbd.StorageDaemon(image, tcp=True, psk=True))
    yield 'qemu-storage-daemon, another key', needs_key, image
    for name, parameter in (('delay', 'rdelay=5ms'), ('rate', 'rate=800M'),
                            ('error', 'error-rate=0%'), ('pause', None)):
        parameters = [parameter] if parameter else []
        if name == 'pause':
            parameters = [f'pause-control={folder}/pause']
        yield (f'nbdkit, filter {name}', serves,
               nbd.Nbdkit(image, [name], parameters, tcp=True))
    yield ('nbdkit, simple replies', serves, nbd.Nbdkit(image, simple=True))
    yield 'nginx, HTTPS', serves, far.Nginx(image)
    yield 'tgt, iSCSI', serves, far.Tgt(image)
    yield 'nfs-ganesha, NFS', serves, far.Ganesha(image)
    if args.long:
        yield 'Ceph, RBD', serves, ceph.Ceph(image)
        yield 'Ceph, exclusive exports of RBD', locks, ceph.Ceph(image)
    yield 'the comparison finds a byte', tells_difference, folder, image
