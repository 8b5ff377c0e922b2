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

sys.path.append(str(tools.REPO / 'tests'))
from stores import nbd          # noqa: E402


@dataclasses.dataclass(frozen=True)
class Source:
    """What is read: a server of tests/stores, or a link in front of it.

    near   options of a client of the server
    image  the same image as a local file
    dir    for what a way makes; on the file system that is measured
    """
    server: object
    image: pathlib.Path
    dir: pathlib.Path

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


# pvs: functions like those above, which make a relay, fill its cache, and so on


@dataclasses.dataclass(frozen=True)
class Way:
    name: str
    title: str
    open: object        # the context manager


WAYS = {w.name: w for w in (
    Way('local', 'the image as a local file, in the page cache', local),
    Way('nbd', 'bare NBD', bare_nbd),
    Way('qcow2', 'qcow2 overlay over NBD', overlay),
    Way('cor', 'the same with copy-on-read', copy_on_read),
    Way('nbdkit-cow', 'NBD through nbdkit --filter=cow cow-on-read',
        nbdkit_cow),
    Way('nbdkit-cache', 'NBD through nbdkit --filter=cache cache-on-read',
        nbdkit_cache),
    # pvs-cold, pvs-verity (cold), pvs-warm, pvs-hydrated, pvs-trace (cold)
)}
