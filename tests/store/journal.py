# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands write into the journal. A socket stands in for journald, in a
mount namespace with a /run of its own."""

import json
import subprocess
import sys

from stores.process import Missing

LISTENER = '''
import json, pathlib, socket, subprocess, sys
journal = pathlib.Path('/run/systemd/journal')
journal.mkdir(parents=True)
def entries(s):
    while True:
        try:
            yield s.recv(65536).decode()
        except BlockingIOError:
            return
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.bind(str(journal / 'socket'))
    s.settimeout(0)
    for words in json.loads(sys.argv[1]):
        done = subprocess.run(words, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        print(json.dumps([done.returncode, done.stdout, done.stderr,
                          list(entries(s))]), flush=True)
'''


def heard(commands, environment):
    """[(exit status, output, errors, [fields of an entry])] of each command"""
    words = json.dumps([[str(w) for w in words] for words in commands])
    done = subprocess.run(
        ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs run /run && exec "$@"',
         'sh', sys.executable, '-c', LISTENER, words], capture_output=True,
        text=True, check=False, env=environment)
    if done.returncode:
        raise Missing(f'a mount namespace: {done.stderr.strip()}')
    for line in done.stdout.splitlines():
        status, out, err, entries = json.loads(line)
        yield status, out, err, [
            dict(f.split('=', 1) for f in e.splitlines()) for e in entries]
