# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal, for what programs draw on it."""

import os
import pty
import subprocess


def errors_on_terminal(argv, env):
    """(exit status, what it drew) of a program whose standard error is one"""
    leader, follower = pty.openpty()
    with subprocess.Popen([str(a) for a in argv], env=env, stderr=follower,
                          stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:
        os.close(follower)
        drawn = b''
        try:
            while data := os.read(leader, 65536):
                drawn += data
        except OSError:         # nobody has the other end any more
            pass
        os.close(leader)
    return process.returncode, drawn.decode()
