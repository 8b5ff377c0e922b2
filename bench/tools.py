# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that are measured, and how they are run."""

import json
import os
import pathlib
import re
import subprocess
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get('DESKCAST_BUILD') or REPO / 'build/qemu')

IMG = str(BUILD / 'qemu-img')
IO = str(BUILD / 'qemu-io')
DAEMON = str(BUILD / 'storage-daemon/qemu-storage-daemon')


class Failed(Exception):
    """A program that was to be measured failed."""


def missing():
    return [p for p in (IMG, IO, DAEMON) if not os.access(p, os.X_OK)]


def run(*argv):
    """Run a program to its end; returns what it printed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False)
    except OSError as e:
        raise Failed(f'{argv[0]}: {e.strerror}') from e
    if done.returncode != 0:
        what = ' '.join(argv)
        raise Failed(f'{what[:400]}: {done.stdout}{done.stderr}'.strip())
    return done.stdout


def run_seconds(*argv):
    begin = time.monotonic()
    run(*argv)
    return time.monotonic() - begin


def bench_seconds(*argv):
    """What 'qemu-img bench' says it took: opening and closing excluded."""
    out = run(IMG, 'bench', *argv)
    found = re.search(r'Run completed in ([0-9.]+) seconds', out)
    if not found:
        raise Failed(f'no time in the output of qemu-img bench: {out}')
    return max(float(found[1]), 0.001)


class Daemon:
    """A qemu-storage-daemon, or another program with a monitor at its standard
    input and output, for use in a with statement."""

    def __init__(self, argv=(DAEMON, '--chardev', 'stdio,id=monitor',
                             '--monitor', 'chardev=monitor')):
        self.proc = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.events = []
        self._read()
        self.command('qmp_capabilities')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.stdin.close()
        self.proc.terminate()
        self.proc.stdout.close()
        self.proc.wait()

    def _read(self):
        line = self.proc.stdout.readline()
        if not line:
            raise Failed('qemu-storage-daemon ended unexpectedly')
        return json.loads(line)

    def command(self, name, **arguments):
        request = {'execute': name, 'arguments': arguments}
        self.proc.stdin.write(json.dumps(request) + '\n')
        self.proc.stdin.flush()
        while True:
            answer = self._read()
            if 'error' in answer:
                raise Failed(f"{name}: {answer['error']['desc']}")
            if 'return' in answer:
                return answer['return']
            self.events.append(answer['event'])

    def wait(self, event):
        """Until it has come, if it has not come since the last wait for it."""
        while event not in self.events:
            self.events.append(self._read()['event'])
        self.events = self.events[self.events.index(event) + 1:]

    def create(self, **options):
        """blockdev-create, and wait until its job has ended."""
        self.command('blockdev-create', **{'job-id': 'create',
                                           'options': options})
        while True:
            event = self._read()
            data = event.get('data', {})
            if (event.get('event') == 'JOB_STATUS_CHANGE' and
                    data.get('status') == 'concluded'):
                break
        job = self.command('query-jobs')[0]
        self.command('job-dismiss', id='create')
        if 'error' in job:
            raise Failed(f"blockdev-create: {job['error']}")

    def resident(self):
        """Bytes of memory that the process has."""
        with open(f'/proc/{self.proc.pid}/statm', encoding='ascii') as f:
            return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
