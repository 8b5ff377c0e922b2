# SPDX-License-Identifier: GPL-2.0-or-later
"""A package upgrade while the store dies, as TAP: see upgrade.py and rows.py.

UPGRADE_ONLY=NAME runs one of its rows alone.
"""

import concurrent.futures
import os
import shutil
import time
import traceback

import package
from rows import ROWS
from upgrade import Script, Upgrade

# The disks that are under test; --long adds a control
NAMES = ("pvs", "nbd-raw", "nbd-qcow2")
# In seconds, that the store stays away
AWAY_SHORT, AWAY_LONG = 15, 60


def kept(result):
    """What must hold for us: statements, and whether they do."""
    yield result.finished == 0, "the upgrade ends with status 0"
    yield result.alone, "it ends while the store is away"
    yield not result.stops, "the guest is never stopped"
    yield not result.lost, "the store's image holds every file that is durable"
    yield not result.check, "its file system is clean"
    yield result.elsewhere == "", "streamed elsewhere in standard image mode it has the upgrade"


def failed(result):
    """What stock QEMU must show, or the comparison proves nothing."""
    yield not result.alone, "the upgrade does not end while the store is away"
    yield result.waited >= 0.9 * result.away, "it stands still until the store is back"
    yield bool(result.lost), "files that the guest was told are durable are lost"


def script_held(result, script):
    """What must hold for every row, or it did not see what it was to see."""
    yield result.gap >= package.DOWN - 1, "the guest's network is down for ten seconds"
    yield result.away >= script.away, f"the store is away for {script.away} s"
    yield result.before > 0 and not result.lost_before, \
        "the store's image holds what was durable before it was killed"


def statements(row, result, script):
    yield from script_held(result, script)
    yield from (kept if row.name == "pvs" else failed)(result)


class Trial:
    """One row, in a thread of its own. A control has a store that forgets
    nothing, and no file may be lost."""

    def __init__(self, world, name, script, control=False):
        self.name = f"{name}-control" if control else name
        self.folder = world.folder / f"upgrade-{self.name}"
        self.folder.mkdir()
        self.how = world.how
        self.script = script
        self.control = control
        self.notes = []
        self.row = ROWS[name](world.master, self.folder, volatile=not control)

    def note(self, text):
        self.notes.append(f"{self.name}: {time.monotonic() - self.began:.0f} s: {text}")

    def judge(self, result):
        if self.control:
            yield result.waited >= 0.9 * result.away, "it stands still until the store is back"
            yield not result.lost, "a store that forgets nothing has every file"
        else:
            yield from statements(self.row, result, self.script)

    def __call__(self):
        self.began = time.monotonic()
        try:
            result = Upgrade(self.row, self.script, self.folder, self.how, self.note).run()
            shutil.rmtree(self.folder)
            return list(self.judge(result)), str(vars(result))
        except Exception:       # pylint: disable=broad-except
            return [(False, "comes to its end")], traceback.format_exc()

    def report(self, tap, answer):
        held, why = answer
        for line in self.notes:
            tap.diag(line)
        for holds, text in held:
            tap.ok(holds, f"upgrade, {self.name}: {text}", why)


def trials(world, long):
    script = Script(AWAY_LONG, 24) if long else Script(AWAY_SHORT, 8)
    only = os.environ.get("UPGRADE_ONLY")
    for name in [only] if only else NAMES:
        yield Trial(world, name, script)
    if long:
        yield Trial(world, "nbd-raw", script, control=True)


def run_tests(tap, world, long):
    """All at once: most of the time they wait."""
    chosen = list(trials(world, long))
    with concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
        for trial, future in [(t, pool.submit(t)) for t in chosen]:
            trial.report(tap, future.result())
