# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads through QEMU's block layer, and compares with the image."""

import hashlib
import json
import os
import subprocess
import tempfile

from .process import StoreError, program


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def blockdev_args(store):
    """For qemu-img: --object and --image-opts of what store.options() says."""
    args = []
    for obj in store.objects():
        args += ['--object', json.dumps(obj)]
    return args, f'json:{json.dumps(store.options())}'


def same(store, netns=None, timeout=120):
    """Is every byte that the store serves as in its image?"""
    args, name = blockdev_args(store)
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, 'copy')
        enter = netns.enter() if netns else []
        done = subprocess.run(
            [*enter, program('qemu-img'), 'convert', *args, '-O', 'raw', name,
             out], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout)
        if done.returncode != 0:
            raise StoreError(f'qemu-img convert: {done.stderr.strip()}')
        return digest(out) == digest(store.image)
