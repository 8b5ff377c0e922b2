# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to read through pvs, as in ways.py: a desktop's node in the process that
is measured, before a relay that owns the host's cache and talks to the store."""

import contextlib
import functools
import json
import re
import subprocess
import sys
import tempfile

import tools

sys.path.append(str(tools.REPO / 'tests'))
from stores import nbd                  # noqa: E402
from stores.node import Node            # noqa: E402

NAME = {'vdisk': 'disk', 'version': 1}


@functools.cache
def tree_of(image):
    """The tree's file and its root hash."""
    tree = image.with_suffix('.tree')
    said = tools.run('veritysetup', 'format', '--hash=sha256',
                     '--data-block-size=4096', '--hash-block-size=4096',
                     str(image), str(tree))
    return tree, re.search(r'Root hash:\s*(\w+)', said)[1]


class Version:
    """What all nodes of one version are told; a cache that is new."""

    def __init__(self, source, verified, maps):
        self.source = source
        self.cache = source.new(f'cache{len(source.kept)}')
        self.common = {
            'driver': 'pvs', **NAME, 'size': source.image.stat().st_size,
            'host-cache': str(self.cache), 'host-cache-map': f'{maps}/map'}
        if verified:
            self.common['verity-root'] = tree_of(source.image)[1]

    def tree(self):
        return {'verity-tree': self.source.tree.options()} \
            if 'verity-root' in self.common else {}

    def relay(self, **more):
        return Node({**self.common, **self.tree(), **more,
                     'stores': [self.source.server.options()]})

    @contextlib.contextmanager
    def desktop(self, path):
        """Its options; the relay's socket is at path."""
        layer = self.source.new('desktop.pvs')
        root = self.common.get('verity-root')
        options = ''.join([f'role=cache,vdisk={NAME["vdisk"]},version=1',
                           f',verity-root={root}' if root else ''])
        tools.run(tools.IMG, 'create', '-q', '-f', 'pvs', '-o', options,
                  str(layer), str(self.common['size']))
        store = {'driver': 'nbd', 'server': nbd.server_options(path),
                 'export': 'disk'}
        yield {**self.common, **self.tree(), 'stores': [store],
               'read-only': False,
               'file': {'driver': 'file', 'filename': str(layer)}}
        layer.unlink()


@contextlib.contextmanager
def version(source, verified):
    with tempfile.TemporaryDirectory(dir='/dev/shm') as maps:
        v = Version(source, verified, maps)
        yield v
        v.cache.unlink(missing_ok=True)


@contextlib.contextmanager
def chain(source, verified, **more):
    with version(source, verified) as v, v.relay(**more) as relay, \
            v.desktop(relay.path) as options:
        yield options


@contextlib.contextmanager
def bare(source):
    yield {'driver': 'pvs', **NAME, 'read-only': True,
           'size': source.image.stat().st_size,
           'stores': [source.server.options()]}


@contextlib.contextmanager
def filling(source, verified=False):
    """A relay's node, in the process that is measured: one hop, as the peers
    have it."""
    with version(source, verified) as v:
        yield {**v.common, **v.tree(), 'read-only': True,
               'stores': [source.server.options()]}


def filling_verity(source):
    return filling(source, True)


def cold(source):
    return chain(source, False)


def verity(source):
    return chain(source, True)


@contextlib.contextmanager
def full(source):
    """A relay whose cache has all."""
    with version(source, True) as v, v.relay() as relay:
        relay.command('vdisk-hydrate', **{'node-name': 'disk',
                                          'job-id': 'hydrate'})
        relay.qmp.wait_event('BLOCK_JOB_COMPLETED', 300)
        yield v, relay


@contextlib.contextmanager
def warm(source):
    v, relay = source.once('full', lambda: full(source))
    with v.desktop(relay.path) as options:
        yield options


@contextlib.contextmanager
def alone(source):
    with full(source) as (v, relay):
        relay.popen.kill()
        relay.popen.wait()
        yield v, relay


@contextlib.contextmanager
def hydrated(source):
    v, relay = source.once('alone', lambda: alone(source))
    with v.desktop(relay.path) as options:
        yield options


@contextlib.contextmanager
def recorded(source):
    """The trace of the reads that are replayed; the link is no part of it."""
    from streams import boot_reads              # pylint: disable=C0415
    name = source.new('boot.trace')
    with version(source, True) as v, v.relay(**{'boot-trace': str(name)}) as r:
        with v.desktop(r.path) as options:
            reads = [f'read -q {at} {n}' for at, n in boot_reads()]
            subprocess.run([tools.IO, 'json:' + json.dumps(options)],
                           input='\n'.join(reads), text=True, check=True,
                           stdout=subprocess.DEVNULL)
        r.end()
    if not name.exists():
        raise tools.Failed('no boot trace was written')
    yield name


@contextlib.contextmanager
def trace(source):
    name = source.once('trace', lambda: recorded(source))
    with chain(source, True, **{'boot-trace': str(name)}) as options:
        yield options
