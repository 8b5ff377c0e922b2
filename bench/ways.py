# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to read an image that is on a server: the peers, and pvs.

A way is a context manager. It gets a Source and yields the options of a node
(a dictionary, as for blockdev-add) that has seen nothing of the image before,
unless its title says so. Everything it makes is gone after it."""

import contextlib
import dataclasses
import pathlib
import sys

import tools
import ways_pvs

sys.path.append(str(tools.REPO / 'tests'))
from stores import nbd          # noqa: E402
from stores.node import Node    # noqa: E402


@dataclasses.dataclass(frozen=True)
class Source:
    """What is read: a server of tests/stores, or a link in front of it.

    image  the same image as a local file
    dir    for what a way makes; on the file system that is measured
    tree   server of its verity tree, behind a link of the same kind
    stack  of what is to last for all samples of a workload, and kept, where
           once() remembers it
    """
    server: object
    image: pathlib.Path
    dir: pathlib.Path
    tree: object = None
    stack: contextlib.ExitStack = None
    kept: dict = dataclasses.field(default_factory=dict)

    def once(self, key, make):
        """What the context manager make() gives; made when first asked for."""
        if key not in self.kept:
            self.kept[key] = self.stack.enter_context(make())
        return self.kept[key]

    def near(self, **more):
        return {'read-only': True, **self.server.options(**more)}

    def new(self, name):
        path = self.dir / name
        path.unlink(missing_ok=True)
        return path


# The peers

@contextlib.contextmanager
def local(source):
    yield {'driver': 'file', 'read-only': True,
           'filename': str(source.image)}


@contextlib.contextmanager
def bare_nbd(source):
    yield source.near()


@contextlib.contextmanager
def nbd_twice(source):
    """A stock relay: it reads for all of a host, and keeps nothing."""
    with Node(source.near()) as relay:
        yield {'read-only': True, 'driver': 'nbd', 'export': 'disk',
               'server': nbd.server_options(relay.path)}


@contextlib.contextmanager
def overlay(source):
    path = source.new('overlay.qcow2')
    tools.run(tools.IMG, 'create', '-q', '-f', 'qcow2', str(path),
              str(source.image.stat().st_size))
    yield {'driver': 'qcow2', 'backing': source.near(), 'read-only': False,
           'file': {'driver': 'file', 'filename': str(path),
                    'read-only': False}}
    path.unlink()


@contextlib.contextmanager
def copy_on_read(source):
    with overlay(source) as options:
        yield {'driver': 'copy-on-read', 'read-only': False, 'file': options}


@contextlib.contextmanager
def nbdkit_in_front(source, name, parameter):
    """nbdkit that reads from the server and keeps what it read; its temporary
    file is on the file system that is measured."""
    address = source.server.address
    plugin = ['nbd', f'uri={source.server.uri}', 'shared=true']
    assert isinstance(address, str)
    with nbd.Nbdkit(source.image, [name], [parameter], plugin=plugin,
                    tmpdir=source.dir) as front:
        yield front.options()


def nbdkit_cow(source):
    return nbdkit_in_front(source, 'cow', 'cow-on-read=true')


def nbdkit_cache(source):
    return nbdkit_in_front(source, 'cache', 'cache-on-read=true')


@dataclasses.dataclass(frozen=True)
class Way:
    """fits(stream) tells whether it is measured there."""
    name: str
    title: str
    open: object        # the context manager
    fits: object = lambda stream: True


def not_capped(stream):
    return not stream.rate


def at_hand(stream):
    """What is local does not depend on the link."""
    return not stream.rate and not stream.delay


def boots(stream):
    return stream.kind == 'boot'


WAYS = {w.name: w for w in (
    Way('local', 'the image as a local file, in the page cache', local,
        not_capped),
    Way('nbd', 'bare NBD', bare_nbd),
    Way('nbd-twice', 'NBD through a storage daemon that reads it by NBD',
        nbd_twice),
    Way('qcow2', 'qcow2 overlay over NBD', overlay),
    Way('cor', 'the same with copy-on-read', copy_on_read),
    Way('nbdkit-cow', 'NBD through nbdkit --filter=cow cow-on-read',
        nbdkit_cow),
    Way('nbdkit-cache', 'NBD through nbdkit --filter=cache cache-on-read',
        nbdkit_cache),
    Way('pvs-bare', 'a pvs node on the store: no relay, no cache, no tree',
        ways_pvs.bare),
    Way('pvs-relay', 'a node that fills an empty cache, no tree',
        ways_pvs.filling),
    Way('pvs-relay-verity', 'the same with a tree', ways_pvs.filling_verity),
    Way('pvs-cold', 'a desktop and a relay with an empty cache, no tree',
        ways_pvs.cold),
    Way('pvs-verity', 'the same with a tree', ways_pvs.verity),
    Way('pvs-warm', 'the same with all in the cache', ways_pvs.warm, at_hand),
    Way('pvs-hydrated', 'the same, and the relay gone', ways_pvs.hydrated,
        at_hand),
    Way('pvs-trace', 'as pvs-verity, with the trace of such a boot',
        ways_pvs.trace, boots),
)}
