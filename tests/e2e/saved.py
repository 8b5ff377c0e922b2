# SPDX-License-Identifier: GPL-2.0-or-later
"""A pooled desktop that is saved, as libvirt's managed save does, and resumed."""

from guest import COMMAND_TIMEOUT, Guest, GuestError, mcs_disk

RAM = 4 * 1024 * 1024       # less than the desktop writes: most is in the file


def desktop(world, program, *extra):
    disk = world.folder / "pooled.mcs"
    return Guest(program, mcs_disk("disk0", disk, **{"write-cache-ram": RAM}),
                 world.folder / "saved.console", accel=world.how, extra=extra)


def save(guest, state):
    guest.qmp.command("migrate-set-capabilities", capabilities=[
        {"capability": "events", "state": True}])
    guest.qmp.command("migrate", uri=f"file:{state}")
    guest.qmp.wait_event("MIGRATION", COMMAND_TIMEOUT, status="completed")
    guest.kill()


def resume(guest, state):
    guest.qmp.command("migrate-set-capabilities", capabilities=[
        {"capability": "events", "state": True}])
    guest.qmp.command("migrate-incoming", uri=f"file:{state}")
    guest.qmp.wait_event("MIGRATION", COMMAND_TIMEOUT, status="completed")
    guest.qmp.command("cont")


def run_tests(tap, world, program, write, sums):
    """write(guest) and sums(guest) put files into a guest and tell their content."""
    state = world.folder / "state"
    with desktop(world, program) as guest:
        guest.wait_boot()
        content = write(guest)
        save(guest, state)
    incoming = ("-S", "-incoming", "defer")
    with desktop(world, program, *incoming) as guest:
        resume(guest, state)
        guest.agent.sync(COMMAND_TIMEOUT)
        guest.run("echo 3 > /proc/sys/vm/drop_caches")
        tap.ok(sums(guest) == content, "pooled: a saved desktop goes on with what it wrote")
        guest.run("echo more > /root/more; sync")
        guest.kill()
    with desktop(world, program, *incoming) as guest:
        try:
            resume(guest, state)
            said = "it runs"
        except GuestError as error:
            said = str(error)
        tap.ok("has changed since the state was saved" in said,
               "pooled: it is not resumed a second time", said)
    state.unlink()
