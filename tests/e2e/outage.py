# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests whose stores go away, as TAP: see run_tests().

What an administrator may ask of QEMU is asked at random moments of outages; the
seed of each round is printed, and OUTAGE_SEED=N repeats it. A guest here has no
local copy: all that it reads comes from the store, or waits for it.
"""

import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
import traceback

import daemon
from admin import ANSWER, PORTS, Admin, Wrong
from guest import COMMAND_TIMEOUT, Guest, GuestError

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from stores import faults                       # noqa: E402
from sanitized import SLOWER                    # noqa: E402

# In seconds, what a slow machine is granted
SAVE = 60 * SLOWER
UP = 300 * SLOWER
# --long: so many rounds, or as many as this time allows
ROUNDS = 100
LONG = 900
OUTAGE_WAIT = 2
ERRORS = r"I/O error|critical .* error|EXT4-fs (error|warning)|Remounting filesystem"
# What a user's work reads: programs, libraries, lists of packages. Debian's own
# sums tell whether it is what the image holds.
CHECK = """cd / && cat var/lib/dpkg/status > /dev/null &&
ls var/lib/dpkg/info/*.md5sums | sort -R --random-source=/bin/sh | head -n {count} |
xargs grep -hE ' (usr/)?s?(bin|lib)/' > /tmp/sums && md5sum --quiet -c /tmp/sums &&
wc -l < /tmp/sums"""
READ = "echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/* /usr/lib/*/* > /dev/null 2>&1"


def pvs_disk(path, places, **options):
    return {"driver": "pvs", "node-name": "disk0", "discard": "unmap",
            "file": {"driver": "file", "filename": str(path), "discard": "unmap"},
            "stores": [p.options() for p in places], **options}


class Desktop(Guest):
    """With slots to plug devices in. It boots from its disk, whatever else there is."""

    def disk_args(self, disk):
        args = super().disk_args(disk)
        return [*args[:-1], args[-1] + ",bootindex=0"]


def slots():
    return [a for n in range(PORTS) for a in (
        "-device", f"pcie-root-port,id=port{n},chassis={n + 1},slot={n + 1}")]


class Bench:
    """What a round is made of, in a folder of its own: its random numbers, its
    disk, and what it has to tell."""

    def __init__(self, world, name, seed):
        self.world = world
        self.name = name
        self.rng = random.Random(seed)
        self.folder = world.folder / f"outage-{name}"
        self.folder.mkdir()
        self.disk = self.folder / "desktop.pvs"
        world.image("create", "-f", "pvs", "-o", "role=cache,vdisk=debian,version=1",
                    self.disk, world.master.stat().st_size)
        self.notes = [f"{name}: seed {seed}"]
        self.console = self.folder / "console"

    def note(self, text):
        self.notes.append(f"{self.name}: {text}")

    def desktop(self, disk, *extra, errors="stop"):
        return Desktop(self.world.program("qemu-system-x86_64"), disk, self.console,
                       accel=self.world.how, errors=errors, extra=(*slots(), *extra))


def outage(bench, admin, place, middle, kinds=faults.DEAD):
    """The store goes away, middle() is done, and the store comes back."""
    rng = bench.rng
    kind = rng.choice([k for k in kinds if k in faults.STREAM])
    start, end = faults.STREAM[kind]
    begin = time.monotonic()
    start(place)
    try:
        time.sleep(rng.uniform(0, 1.5 * OUTAGE_WAIT))
        middle()
        time.sleep(rng.uniform(0, 1))
    finally:
        end(place)
    bench.note(f"{kind} at {begin - admin.began:.1f} s, for {time.monotonic() - begin:.1f} s")


def is_up(guest):
    """Has the agent inside answered the door since the last reset?"""
    guest.qmp.collect()
    up = False
    for event in guest.qmp.log:
        if event["event"] == "RESET":
            up = False
        elif event["event"] == "VSERPORT_CHANGE" and event["data"]["id"] == "agent-port":
            up = event["data"]["open"]
    return up


def wait_up(guest, meanwhile=lambda: time.sleep(0.1)):
    """Until it is booted; the seconds since QEMU was started."""
    end = time.monotonic() + UP
    while not is_up(guest):
        meanwhile()
        if time.monotonic() > end:
            raise guest.explained(GuestError(f"it does not boot: {guest.pauses()}"))
    guest.agent.sync(COMMAND_TIMEOUT)
    return time.time() - guest.began


def spawn(guest, script):
    """Begin it inside, and do not wait."""
    return guest.agent.command("guest-exec", path="/bin/sh", arg=["-c", script],
                               **{"capture-output": True})["pid"]


def check_content(guest, count=1000):
    """What it reads now is what the image holds."""
    status, said = guest.run("echo 3 > /proc/sys/vm/drop_caches; " + CHECK.format(count=count),
                             600, check=False)
    if status != 0 or int(said.splitlines()[-1]) < 10:
        raise Wrong(f"content differs: {said}")


def console_errors(bench):
    return [line for line in bench.console.read_text(errors="replace").splitlines()
            if re.search(ERRORS, line)]


def check_log(bench, guest):
    """Neither its log of this boot nor its console tells of errors."""
    lines = guest.disk_errors() + console_errors(bench)
    if lines:
        raise Wrong("\n".join(lines[:10]))


def check_pauses(guest):
    spans = guest.pauses()
    if spans and spans[-1][1] is None:
        raise Wrong(f"it stands still: {spans}")


# Rounds: a guest boots and works through outages in which QEMU is asked for things


def check_outages(admin):
    """What was said to begin was said to end."""
    told = [e["data"]["active"] for e in admin.guest.qmp.log
            if e["event"] == "VDISK_OUTAGE" and e["data"]["node-name"] == "disk0"]
    if told != [True, False] * (len(told) // 2):
        raise Wrong(f"outages begin and end: {told}")


def spare_nodes(place):
    """Nodes that may come and go in an outage: one has to reach the store first."""
    size = place.image.stat().st_size
    return [{"driver": "pvs", "vdisk": "debian", "version": 1, "read-only": True,
             "size": size, "stores": [place.options()]}]


def save(bench, admin):
    """As libvirt's managed save does, in the middle of an outage."""
    state = bench.folder / "state"
    if bench.rng.random() < 0.5:
        admin.stop()
    admin.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    admin.ask("migrate", uri=f"file:{state}")
    end = time.monotonic() + SAVE
    while (now := admin.ask("query-migrate")["status"]) != "completed":
        if now == "failed" or time.monotonic() > end:
            raise Wrong(f"saving: {now}")
        time.sleep(0.1)
    leave(bench, admin)
    return state


def leave(bench, admin):
    """Quit: the answer, and then the end of the process."""
    begin = time.monotonic()
    admin.ask("quit")
    try:
        admin.guest.process.wait(ANSWER)
    except subprocess.TimeoutExpired:
        raise Wrong("QEMU has not ended 3 s after it was told to quit") from None
    bench.note(f"ended {time.monotonic() - begin:.2f} s after 'quit'")


def go_on(bench, place, disk, state):
    """Resume what was saved, with the store back."""
    with bench.desktop(disk, "-S", "-incoming", "defer") as guest:
        admin = Admin(guest, bench.rng, spare_nodes(place))
        admin.ask("migrate-incoming", uri=f"file:{state}")
        end = time.monotonic() + SAVE
        while (now := admin.ask("query-migrate").get("status")) != "completed":
            if now == "failed" or time.monotonic() > end:
                raise Wrong(f"resuming: {now}")
            time.sleep(0.1)
        admin.cont()
        guest.agent.sync(UP)
        finish(bench, admin)
        bench.note(f"resumed; {admin.summary()}")


def finish(bench, admin):
    """Now that there is a store: it runs, all that it reads is right, and nobody
    inside has noticed."""
    admin.settle()
    check_content(admin.guest)
    check_log(bench, admin.guest)
    check_pauses(admin.guest)
    check_outages(admin)


def saves_round(bench, place, disk, guest, admin):
    """It is saved in an outage, booting or working."""
    if bench.rng.random() < 0.5:
        wait_up(guest)
        spawn(guest, READ)
    state = []

    def middle():
        admin.steps(2, Admin.KEEP)
        state.append(save(bench, admin))

    outage(bench, admin, place, middle)
    go_on(bench, place, disk, state[0])


def quits_round(bench, place, disk, guest, admin):
    """It works in one outage, and QEMU is told to quit in another."""
    bench.note(f"up after {wait_up(guest):.0f} s")
    if disk["outage-action"] == "pause":
        pauses(bench, place, admin)
    spawn(guest, READ)
    time.sleep(bench.rng.uniform(0.2, 1))
    outage(bench, admin, place, lambda: admin.steps(bench.rng.randint(3, 4)))
    admin.settle()
    bench.note(f"up after {wait_up(guest):.0f} s")
    finish(bench, admin)
    spawn(guest, READ)
    time.sleep(0.3)
    outage(bench, admin, place, lambda: leave(bench, admin))


def pauses(bench, place, admin, reset=False):
    """The outage stops it in time, and its end lets it go on, even if it was
    reset in between."""
    stops = admin.count("STOP")
    if not reset:
        spawn(admin.guest, READ)
    begin = time.monotonic()
    place.server.freeze()
    try:
        while admin.status() != "io-error":
            if time.monotonic() > begin + OUTAGE_WAIT + ANSWER:
                raise Wrong("the outage does not stop it")
            time.sleep(0.05)
        stopped = time.monotonic() - begin
        if reset:
            admin.reset()
    finally:
        place.server.thaw()
    begin = time.monotonic()
    admin.settle()
    if admin.count("STOP") != stops + 1 or stopped < OUTAGE_WAIT:
        raise Wrong(f"stopped after {stopped:.1f} s: {admin.story()}")
    bench.note(f"stopped after {stopped:.1f} s, went on after {time.monotonic() - begin:.1f} s")


def rounds(bench, action, last):
    """Two outages while it boots, then what comes last."""
    rng = bench.rng
    steps = Admin.KEEP + (Admin.reset,) if last is saves_round else Admin.STEPS
    with faults.Place(bench.world.master) as place:
        disk = pvs_disk(bench.disk, [place], **{"outage-action": action,
                                                "outage-wait": OUTAGE_WAIT})
        with bench.desktop(disk) as guest:
            admin = Admin(guest, rng, spare_nodes(place))
            if action == "pause":
                until_busy(place)
                pauses(bench, place, admin, reset=True)
            for _ in range(2):
                time.sleep(rng.uniform(0.5, 6))
                outage(bench, admin, place, lambda: admin.steps(rng.randint(3, 4), steps))
                admin.settle()
            try:
                last(bench, place, disk, guest, admin)
                missed = set(steps) - admin.done
                if missed:
                    raise Wrong(f"never asked in an outage: {[s.__name__ for s in missed]}")
            finally:
                bench.note(admin.summary())


# Controls: the harness sees what it is to see


def stock(bench):
    """Stock nodes, as an administrator would set them, hang."""
    with faults.Place(bench.world.master) as place:
        path = bench.folder / "stock.qcow2"
        bench.world.image("create", "-f", "qcow2", path, bench.world.master.stat().st_size)
        disk = {"driver": "qcow2", "node-name": "disk0",
                "file": {"driver": "file", "filename": str(path)},
                "backing": {"read-only": True, **place.options(**{"reconnect-delay": 60})}}
        with bench.desktop(disk) as guest:
            admin = Admin(guest, bench.rng, ())
            until_busy(place)
            place.server.freeze()
            time.sleep(0.5)
            try:
                admin.steps(6, (Admin.stop, Admin.cont, Admin.reset))
            except GuestError as error:
                if f"within {ANSWER} s" not in str(error):
                    raise
                return bench.note(f"{error}")
    raise Wrong(f"it does not hang: {admin.took}")


def until_busy(place):
    """The guest is reading."""
    time.sleep(3)
    end = time.monotonic() + UP
    while time.monotonic() < end:
        before = place.link.count()[-1]
        time.sleep(0.05)
        if place.link.count()[-1] > before + (1 << 20):
            return
    raise Wrong("the guest reads nothing")


def reports(bench):
    """With action 'error' and a device that reports them, the guest sees errors."""
    with faults.Place(bench.world.master) as place:
        disk = pvs_disk(bench.disk, [place], **{"outage-action": "error", "outage-wait": 1})
        with bench.desktop(disk, errors="report") as guest:
            wait_up(guest)
            check_log(bench, guest)
            place.server.freeze()
            spawn(guest, READ)
            time.sleep(5)
            place.server.thaw()
            found = console_errors(bench)
            if not found or guest.pauses():
                raise Wrong(f"it sees no errors: {found}, {guest.pauses()}")
            bench.note(f"{len(found)} errors, the last one: {found[-1]}")


# Nothing local, and stores that come and go


def two_stores(bench):
    """One store dies for good while the guest boots, the other one again and again."""
    rng = bench.rng
    with faults.Place(bench.world.master) as one, faults.Place(bench.world.master) as two:
        disk = pvs_disk(bench.disk, [one, two], **{"outage-action": "wait"})
        with bench.desktop(disk) as guest:
            admin = Admin(guest, rng, ())
            places = [one, two]
            rng.shuffle(places)
            dies = rng.uniform(3, 15)
            done = []

            def fault():
                if time.time() - guest.began > dies and len(places) == 2:
                    places.pop().server.kill()
                    bench.note("one has died for good")
                done.append(random_fault(rng, places))

            bench.note(f"up after {wait_up(guest, fault):.0f} s, {len(done)} faults")
            begin, pid = time.monotonic(), spawn(guest, CHECK.format(count=30))
            while not guest.agent.command("guest-exec-status", pid=pid)["exited"]:
                fault()
            bench.note(f"worked for {time.monotonic() - begin:.0f} s, {len(done)} faults")
            finish(bench, admin)
            bench.note(f"{[s['reads'] for s in vdisk(admin)['stores']]} reads of each store")


def random_fault(rng, places):
    kind = rng.choice(("kill", "cut", "cut-answers", "refuse", "freeze"))
    start, end = faults.STREAM[kind]
    place = rng.choice(places)
    start(place)
    time.sleep(rng.uniform(0.1, 1.5))
    end(place)
    time.sleep(rng.uniform(0.2, 2))
    return kind


def vdisk(admin):
    return admin.ask("query-vdisks")[0]["pvs"]


# In a storage daemon, for Debian's QEMU


class Streamer(daemon.Daemon):
    """It streams the desktop that it exports."""

    nodes = ("system",)

    def __init__(self, bench, place):
        super().__init__(bench.world.program("storage-daemon/qemu-storage-daemon"), bench.folder)
        self.disk = {**pvs_disk(bench.disk, [place]), "node-name": "system"}

    def blockdev(self, node):
        return self.disk


def in_daemon(bench):
    """Reads wait there, and go on; meanwhile it answers."""
    rng = bench.rng
    with faults.Place(bench.world.master) as place, Streamer(bench, place) as streamer:
        streamer.reset()
        with daemon.VhostGuest(streamer, bench.console, bench.world.how) as guest:
            admin = Admin(streamer, rng, spare_nodes(place))
            nodes = (Admin.add_node, Admin.delete_node)
            for _ in range(2):
                time.sleep(rng.uniform(1, 6))
                outage(bench, admin, place, lambda: admin.steps(3, nodes))
            bench.note(f"up after {wait_up(guest):.0f} s")
            pid = spawn(guest, CHECK.format(count=1000))
            time.sleep(0.5)
            outage(bench, admin, place, lambda: admin.steps(4, nodes))
            while not guest.agent.command("guest-exec-status", pid=pid)["exited"]:
                time.sleep(0.1)
            check_content(guest)
            check_log(bench, guest)
            bench.note(admin.summary())


# All of it


class Scenario:
    """A thread's work: processes die with the thread that made them, and each
    ends what it began."""

    def __init__(self, world, name, text, seed, run, *arguments):
        self.world = world
        self.name = name
        self.seed = seed
        self.text = text
        self.run = run
        self.arguments = arguments

    def __call__(self):
        """What is wrong, or nothing; and how long it took."""
        begin = time.monotonic()
        self.bench = Bench(self.world, self.name, self.seed)
        try:
            self.run(self.bench, *self.arguments)
            why = None
        except Wrong as wrong:
            why = str(wrong)
        except Exception:       # pylint: disable=broad-except
            why = traceback.format_exc()
        return why, time.monotonic() - begin

    def report(self, tap, result):
        why, seconds = result
        for line in self.bench.notes:
            tap.diag(line)
        tap.ok(not why, f"{self.text} ({seconds:.0f} s)", why or "")
        if not why:
            shutil.rmtree(self.bench.folder)


def scenarios(world, seed):
    """The longest come first."""
    yield Scenario(world, "pause", "outages that pause a guest: QEMU answers, and it ends well",
                   seed, rounds, "pause", quits_round)
    yield Scenario(world, "wait", "outages that a guest waits in, is saved in and resumed after",
                   seed + 1, rounds, "wait", saves_round)
    yield Scenario(world, "two", "nothing local, and two stores that die: a guest boots and works",
                   seed + 2, two_stores)
    yield Scenario(world, "daemon", "in a storage daemon reads wait, and it answers",
                   seed + 3, in_daemon)
    yield Scenario(world, "error", "control: where errors are let through, a guest sees them",
                   seed + 4, reports)
    yield Scenario(world, "stock", "control: stock nodes hang", seed + 5, stock)


def many(world, seed):
    """--long: rounds of the first two kinds, until the time is over."""
    end = time.monotonic() + LONG
    for n in range(ROUNDS):
        if time.monotonic() > end:
            return
        kind = ("pause", "wait")[n % 2], (quits_round, saves_round)[n // 2 % 2]
        yield Scenario(world, f"r{seed + n}", f"outages: {kind[0]}, {kind[1].__name__}",
                       seed + n, rounds, *kind)


def run_tests(tap, world, long):
    seed = int(os.environ.get("OUTAGE_SEED") or random.randrange(1 << 20))
    only = os.environ.get("OUTAGE_ONLY", "")
    tap.diag(f"outages: OUTAGE_SEED={seed}")
    run_all(tap, (s for s in scenarios(world, seed) if only in s.name))
    if long:
        run_all(tap, many(world, seed + 100))


def run_all(tap, all_of_them):
    """Two at a time; one is begun when another one has ended."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = {}
        for scenario in all_of_them:
            running[pool.submit(scenario)] = scenario
            if len(running) == 2:
                reap(tap, running)
        while running:
            reap(tap, running)


def reap(tap, running):
    done, _ = concurrent.futures.wait(running,
                                      return_when=concurrent.futures.FIRST_COMPLETED)
    for future in done:
        running.pop(future).report(tap, future.result())
