# SPDX-License-Identifier: GPL-2.0-or-later
"""What the hook adds to a start: the same desktop with and without it, in turn."""

import os
import statistics
import time

import host as hosts

ROUNDS = 9
BUDGET_MS = 50


def start_ms(host, name):
    began = time.monotonic()
    host.virsh("start", name, "--paused")
    took = time.monotonic() - began
    host.virsh("destroy", name)
    return took * 1000


def second_host(world, name):
    """A libvirtd without the hook, with the same desktop on the same disk."""
    host = hosts.Host(world.folder / "bare", {}, hook=False)
    owner = (world.vdi / f"{name}.mcs").stat()
    folder = host.folder / "deskcast" / name
    folder.mkdir()
    os.chown(folder, owner.st_uid, owner.st_gid)
    return host


def run_tests(tap, world):
    world.catalog("cost")
    world.create("cost", "k1")
    start_ms(world.host, "k1")
    with second_host(world, "k1") as bare:
        bare.define(world.host.xml("k1"))
        start_ms(bare, "k1")
        times = {"with": [], "without": []}
        for _ in range(ROUNDS * (3 if world.long else 1)):
            times["with"].append(start_ms(world.host, "k1"))
            times["without"].append(start_ms(bare, "k1"))
    for how, took in times.items():
        tap.diag(f"a start {how} the hook takes {statistics.median(took):.0f} ms, at best "
                 f"{min(took):.0f} (of {len(took)})")
    # whatever else runs on the machine only adds to both
    added = min(times["with"]) - min(times["without"])
    tap.ok(added < BUDGET_MS, f"the hook adds {added:.0f} ms to a start, under {BUDGET_MS}",
           times)
    world.command("desktop", "rm", "k1")
