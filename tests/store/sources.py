# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that somebody brings: of every format, and bad ones."""

import random

from . import env

SIZE = 9 * 1024 * 1024 + 1536       # no multiple of 4096
PADDED = (SIZE + 4095) // 4096 * 4096


def raw(path, seed=1, size=SIZE, pieces=40):
    """A disk that is partly filled."""
    rnd = random.Random(seed)
    data = bytearray(size)
    for _ in range(pieces):
        at = rnd.randrange(size)
        piece = rnd.randbytes(min(rnd.randrange(1, 90000), size - at))
        data[at:at + len(piece)] = piece
    data[-512:] = rnd.randbytes(512)
    path.write_bytes(data)
    return bytes(data)


# name, format, options of qemu-img convert
FORMATS = [
    ('disk.raw', 'raw', []),
    ('disk.qcow2', 'qcow2', []),
    ('compressed.qcow2', 'qcow2', ['-c']),
    ('dynamic.vhd', 'vpc', ['-o', 'force_size=on']),
    ('fixed.vhd', 'vpc', ['-o', 'force_size=on,subformat=fixed']),
    ('disk.vhdx', 'vhdx', []),
    ('disk.vmdk', 'vmdk', []),
    ('stream.vmdk', 'vmdk', ['-o', 'subformat=streamOptimized']),
    ('flat.vmdk', 'vmdk', ['-o', 'subformat=monolithicFlat']),
    ('split.vmdk', 'vmdk', ['-o', 'subformat=twoGbMaxExtentSparse']),
    ('disk.vdi', 'vdi', []),
]


def make(folder, name, kind, options):
    path = folder / name
    if kind != 'raw':
        env.qemu_img('convert', '-O', kind, *options, folder / 'disk.raw', path)
    return path


def cut(path, part):
    """Only the first @part of it."""
    size = path.stat().st_size
    with open(path, 'r+b') as f:
        f.truncate(int(size * part) // 512 * 512 + 7)


def patch(path, offset, data):
    with open(path, 'r+b') as f:
        f.seek(offset)
        f.write(data)


def converter(folder, *lines):
    """A qemu-img that does more than it should after it has converted: shell
    commands, in which $target is the file it wrote."""
    path = folder / 'lying-qemu-img'
    path.write_text(
        '#!/bin/bash\n'
        f'{env.QEMU_IMG} "$@" || exit\n'
        '[ "$1" = convert ] || exit 0\n'
        'target=$(grep -o \'"filename":"[^"]*\' <<<"${@: -1}" | cut -d\\" -f4)\n'
        '[ "$target" ] || for a; do case $a in file:*) target=${a#file:};; '
        'esac; done\n' + '\n'.join(lines) + '\n')
    path.chmod(0o755)
    return {'DESKCAST_QEMU_IMG': str(path)}


def meddler(*lines):
    """Before the copy of a file is durable: shell commands, in which $target is
    the file that it was written to."""
    return {'LD_PRELOAD': str(env.AT_SYNC), 'AT_SYNC': '\n'.join(lines)}


def flip(target, offset):
    """Shell that turns one bit there."""
    return (f'python3 -c "import sys; f = open(sys.argv[1], \'r+b\'); '
            f'f.seek({offset}); b = f.read(1); f.seek({offset}); '
            f'f.write(bytes([b[0] ^ 1]))" "{target}"')


def vmdk_descriptor(*extents, parent='ffffffff'):
    return ('# Disk DescriptorFile\nversion=1\nCID=12345678\n'
            f'parentCID={parent}\ncreateType="monolithicFlat"\n\n' +
            '\n'.join(extents) + '\n\nddb.virtualHWVersion = "4"\n'
            'ddb.geometry.cylinders = "20"\nddb.geometry.heads = "16"\n'
            'ddb.geometry.sectors = "63"\nddb.adapterType = "ide"\n')
