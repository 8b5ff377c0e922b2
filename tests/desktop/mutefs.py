# SPDX-License-Identifier: GPL-2.0-or-later
"""usage: mutefs.py [--sunk] FOLDER COMMAND...

Run a command while a file system that never answers is mounted at FOLDER, as one
on a server that is gone: who touches it waits, and only SIGKILL ends that. --sunk:
nor does SIGKILL, as with a disk that hangs. For use in a mount namespace of its own.
"""

import ctypes
import os
import struct
import subprocess
import sys
import threading

# struct fuse_init_out behind its header, of version 7.31 of the protocol
ANSWER = struct.pack("<IiQ8I8I", 80, 0, 0, 7, 31, 0, 0, 0, 4096, 0, 0, *[0] * 8)


def take(fuse):
    """Take each request and answer but the first, which mounts: who made one that
    was taken waits for its answer whatever happens."""
    unique = os.read(fuse, 1 << 17)[8:16]
    os.write(fuse, ANSWER[:8] + unique + ANSWER[16:])
    while os.read(fuse, 1 << 17):
        pass


def main():
    sunk = sys.argv[1] == "--sunk"
    del sys.argv[1:1 + sunk]
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"mute", sys.argv[1].encode(), b"fuse", 0, options):
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    if sunk:
        threading.Thread(target=take, args=(fuse,), daemon=True).start()
    try:
        return subprocess.run(sys.argv[2:], timeout=20, check=False).returncode
    except subprocess.TimeoutExpired:
        return 124


sys.exit(main())
