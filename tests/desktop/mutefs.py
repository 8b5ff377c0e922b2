# SPDX-License-Identifier: GPL-2.0-or-later
"""usage: mutefs.py FOLDER COMMAND...

Run a command while a file system that never answers is mounted at FOLDER, as one
on a server that is gone: who touches it waits, and only SIGKILL ends that. For
use in a mount namespace of its own.
"""

import ctypes
import os
import subprocess
import sys


def main():
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"mute", sys.argv[1].encode(), b"fuse", 0, options):
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        return subprocess.run(sys.argv[2:], timeout=20, check=False).returncode
    except subprocess.TimeoutExpired:
        return 124


sys.exit(main())
