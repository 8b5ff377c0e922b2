# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of store serves its image, byte for byte."""

from . import ceph, client, far, images, nbd
from .process import StoreError


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
    yield 'the comparison finds a byte', tells_difference, folder, image
