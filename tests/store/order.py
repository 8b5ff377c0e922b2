# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which a command changed a store, judged for a power cut.

At any moment the medium has, of a file or a folder, at least what was there at
its last fsync; anything later may be there or not. So when a manifest takes its
place, it and all that it names must be durable; and what is removed must not be
named by the manifest that is durable.
"""

import json
import pathlib

CONTENT = {'write', 'pwrite64', 'writev', 'pwritev', 'pwritev2', 'ftruncate',
           'fallocate', 'truncate', 'sendfile', 'copy_file_range', 'chmod',
           'fchmod', 'fchmodat'}
SYNC = {'fsync', 'fdatasync'}
RENAME = {'rename', 'renameat', 'renameat2'}
REMOVE = {'unlink', 'unlinkat', 'rmdir'}
CREATE = {'open', 'openat', 'creat', 'mkdir', 'mkdirat', 'link', 'linkat'}


def named(text):
    """The files of a manifest's versions."""
    return {v[k] for v in json.loads(text)['versions']
            for k in ('image', 'tree', 'trace') if k in v}


class Medium:
    def __init__(self):
        self.dirty = set()          # files whose content is not durable
        self.entries = {}           # folder: names whose entry is not
        self.manifests = {}         # folder: files named by the durable one
        self.pending = {}           # folder: by one that was renamed only

    def created(self, path):
        self.entries.setdefault(path.parent, set()).add(path.name)

    def synced(self, path):
        self.dirty.discard(path)
        self.entries.pop(path, None)
        if path in self.pending:
            self.manifests[path] = self.pending.pop(path)

    def renamed(self, old, new, manifest):
        folder = new.parent
        if old in self.dirty:
            return f'{old.name} is not durable'
        if new.name == 'manifest.json':
            names = named(manifest)
            for name in names:
                if folder / name in self.dirty:
                    return f'{name} is not durable'
                if name in self.entries.get(folder, set()):
                    return f'the entry of {name} is not durable'
            self.pending[folder] = names
        # A folder that is renamed takes what is known of it along
        for known in (self.entries, self.manifests, self.pending):
            if old in known:
                known[new] = known.pop(old)
        self.created(new)
        return ''

    def removed(self, path):
        names = (self.manifests.get(path.parent, set()) |
                 self.pending.get(path.parent, set()))
        # In .old-NAME a manifest has nothing to say any more
        if path.name in names and not path.parent.name.startswith('.old-'):
            return f'{path.name} is removed, and named still'
        self.dirty.discard(path)
        self.entries.get(path.parent, set()).discard(path.name)
        return ''


def start(medium, store):
    """The manifests that were there before: what the first change replaces."""
    for path in store.glob('vdisks/*/manifest.json'):
        medium.manifests[path.parent] = named(path.read_text())


def check(log, store, before=None):
    medium = Medium()
    if before:
        start(medium, before)
    for line in log.read_text().splitlines():
        number, call, *paths = line.split(' ')
        paths = [pathlib.Path(p) for p in paths]
        why = ''
        if call in CONTENT:
            medium.dirty.add(paths[0])
        elif call in SYNC:
            medium.synced(paths[0])
        elif call in CREATE:
            medium.created(paths[-1])
        elif call in RENAME:
            copy = pathlib.Path(f'{log}.{number}')
            why = medium.renamed(*paths, copy.read_text() if copy.exists()
                                 else '')
        elif call in REMOVE:
            why = medium.removed(paths[0])
        if why:
            return f'{line}: {why}'
    last = [f for f in medium.entries if f == store / 'vdisks' or
            f.parent == store / 'vdisks']
    named_only = [f for f in last if any(not n.startswith('.')
                                         for n in medium.entries[f])]
    return f'at its end {named_only} are not durable' if named_only else ''
