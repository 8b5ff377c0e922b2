# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator asks of a guest's QEMU, at random, each with a deadline."""

import time

from guest import GuestError, event_time
from sanitized import SLOWER             # guest has told Python where

# In seconds: what is promised, and what a slow machine is granted
ANSWER = 3 * SLOWER
RESUME = 10 * SLOWER
# That devices can be plugged in
PORTS = 4


class Wrong(Exception):
    """A promise that was not kept."""


class Admin:
    """Asks QEMU for things, each of which it has to answer soon.

    stopped: it is we who stopped the guest, and nobody else may let it run
    """

    def __init__(self, guest, rng, spare):
        self.guest = guest
        self.rng = rng
        self.spare = spare
        guest.qmp.patience = ANSWER
        self.began = time.monotonic()
        self.took = []
        self.stopped = False
        self.serial = 0
        self.nodes = []
        self.plugged = {}
        self.done = set()

    def ask(self, name, **arguments):
        begin = time.monotonic()
        try:
            return self.guest.qmp.command(name, **arguments)
        except GuestError as error:
            if "closed" in str(error):
                raise self.guest.explained(GuestError(f"{name} {arguments}: {error}")) from None
            raise
        finally:
            now = time.monotonic()
            self.took.append((round(now - begin, 3), name, round(begin - self.began, 1)))

    def status(self):
        return self.ask("query-status")["status"]

    def look(self):
        if self.stopped and self.status() not in ("paused", "prelaunch"):
            raise Wrong(f"it runs though it was stopped: {self.story()}")

    def name(self):
        self.serial += 1
        return f"n{self.serial}"

    # What can be asked

    def stop(self):
        self.ask("stop")
        # An error that came first has stopped it: to QEMU, that is all
        self.stopped = self.stopped or self.status() == "paused"

    def cont(self):
        self.ask("cont")
        self.stopped = False

    def reset(self):
        before = self.count("RESET")
        self.ask("system_reset")
        end = time.monotonic() + ANSWER
        while self.count("RESET") == before:
            if time.monotonic() > end:
                raise Wrong("the reset does not happen")
            self.ask("query-status")

    def count(self, event):
        """How many such events came until the last answer."""
        return sum(e["event"] == event for e in self.guest.qmp.log)

    def add_node(self):
        node = self.rng.choice([{"driver": "null-co"}, *self.spare])
        self.nodes.append(self.name())
        self.ask("blockdev-add", **{**node, "node-name": self.nodes[-1]})

    def delete_node(self):
        if not self.nodes:
            self.add_node()
        self.ask("blockdev-del", **{"node-name": self.nodes.pop()})

    def plug(self):
        """Returns what was done instead, if that is so."""
        free = set(range(PORTS)) - set(self.plugged.values())
        if not free:
            self.unplug()
            return Admin.unplug
        device, port = self.name(), min(free)
        args = {"driver": "virtio-rng-pci"}
        if self.rng.random() < 0.5:
            self.ask("blockdev-add", **{"driver": "null-co", "size": 1 << 20,
                                        "read-zeroes": True, "node-name": f"d{device}"})
            args = {"driver": "virtio-blk-pci", "drive": f"d{device}"}
        self.ask("device_add", **args, id=device, bus=f"port{port}")
        self.plugged[device] = port
        return None

    def unplug(self):
        if not self.plugged:
            self.plug()
            return Admin.plug
        device = self.rng.choice(sorted(self.plugged))
        try:
            self.ask("device_del", id=device)
        except GuestError as error:
            # The guest takes its time to let it go, or has just done so
            if "in the process of unplug" not in str(error) and "not found" not in str(error):
                raise
        for event in self.guest.qmp.log:
            if event["event"] == "DEVICE_DELETED":
                self.plugged.pop(event["data"].get("device"), None)
        return None

    STEPS = (stop, cont, reset, add_node, delete_node, plug, unplug)
    KEEP = (stop, cont, add_node, delete_node)      # a saved state is to fit again

    def steps(self, count, choice=STEPS):
        """Some of them at random, each once before one comes again."""
        for _ in range(count):
            step = self.rng.choice([s for s in choice if s not in self.done] or choice)
            self.done.add(step(self) or step)
            time.sleep(self.rng.uniform(0, 0.8))
            self.look()

    def settle(self):
        """The store is back: it runs if we let it, and nobody has to help."""
        self.look()
        if self.stopped:
            self.cont()
        end = time.monotonic() + RESUME
        while self.status() != "running":
            if time.monotonic() > end:
                raise Wrong(f"it is left standing ({self.status()}): {self.story()}")
            time.sleep(0.1)

    def story(self):
        """What was said and heard of late, by the time."""
        heard = [(round(event_time(e) - self.guest.began, 3), e["event"])
                 for e in self.guest.qmp.log]
        said = [(at, name) for _, name, at in self.took if name != "query-status"]
        return sorted(heard + said)[-30:]

    def summary(self):
        slowest = max(self.took)
        return (f"{len(self.took)} answers, the last one wanted after {slowest[0]:.2f} s "
                f"({slowest[1]}); {self.count('STOP')} stops, {self.count('RESUME')} resumes, "
                f"{self.count('RESET')} resets, {self.own_resets()} by the guest itself")

    def own_resets(self):
        return sum(e["event"] == "RESET" and e["data"]["guest"] for e in self.guest.qmp.log)
