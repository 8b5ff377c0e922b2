# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a command, and be the parent of all that it leaves behind.

libvirt's QEMUs are daemons, and libvirt waits until they are gone. In a container
whose first process is slow at burying the dead, that takes seconds each time.
When the command is told to end (SIGTERM here), what it left behind ends too.
"""

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def main():
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("cannot be the parent of orphans")
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    while os.waitpid(-1, 0)[0] != pid:
        pass
    for orphan in children():
        os.kill(orphan, signal.SIGKILL)


main()
