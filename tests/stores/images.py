# SPDX-License-Identifier: GPL-2.0-or-later
"""Images to read: no two granules of them, or of each other, are the same."""

import pathlib
import random

MIB = 1 << 20


def make(folder, name, size=8 * MIB):
    path = pathlib.Path(folder) / name
    if not path.exists():
        rng = random.Random(name)
        with open(path, 'wb') as f:
            for _ in range(0, size, MIB):
                f.write(rng.randbytes(MIB))
    return path
