# SPDX-License-Identifier: GPL-2.0-or-later
"""Two real Debian desktops boot off one image, and are two; twice."""

# As cloud-init looks for it, and what it would take from there
IDENTITY = """udevadm settle
modprobe isofs; mkdir -p /run/cidata
mount -o ro /dev/disk/by-label/CIDATA /run/cidata
cat /run/cidata/meta-data /run/cidata/vendor-data
umount /run/cidata"""
FILE = "/root/secret"


class Identity:
    """Who a desktop is, as seen from inside."""

    def __init__(self, desktop):
        text = desktop.run(IDENTITY)
        lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        self.name = lines.get("local-hostname")
        self.instance = lines.get("instance-id")
        self.keys = text.partition("ssh_keys:")[2]
        self.given_machine = lines.get("  content", "").strip('"').replace("\\n", "")
        self.machine = desktop.run("cat /etc/machine-id").strip()
        self.mac = desktop.run("cat /sys/class/net/[!l]*/address").strip()

    def parts(self):
        return {self.name, self.instance, self.keys, self.machine, self.mac}


def first_time(tap, desktops):
    for desktop in desktops:
        desktop.wait_boot(600)
    tap.ok(True, "two pooled desktops boot off one image")
    found = [Identity(d) for d in desktops]
    tap.ok([i.name for i in found] == [d.name for d in desktops], "each knows its host name",
           [vars(i) for i in found])
    tap.ok(not found[0].parts() & found[1].parts() and all(found[0].parts()),
           "UUID, SSH host key, machine id and MAC are different", [vars(i) for i in found])
    tap.ok(all(i.machine == i.given_machine for i in found),
           "the machine id that systemd took is the one that is given",
           [vars(i) for i in found])
    for desktop in desktops:
        desktop.run(f"echo {desktop.name} > {FILE}; sync")
    return found


def second_time(tap, desktops, found):
    for desktop in desktops:
        desktop.reset()
    for desktop in desktops:
        desktop.wait_reset(600)
    gone = [d.run(f"test ! -e {FILE} && echo gone").strip() for d in desktops]
    tap.ok(gone == ["gone", "gone"], "after a reset both have forgotten what they wrote", gone)
    again = [Identity(d) for d in desktops]
    tap.ok([vars(i) for i in again] == [vars(i) for i in found],
           "and both are who they were", [vars(i) for i in again])


def behind(tap, world):
    """--long: the same image in Debian's QEMU, before a storage daemon."""
    world.catalog("gallery", run="vhost-user")
    world.create("gallery", "g3", "--version", "1")
    desktop = world.desktop("g3")
    desktop.start()
    desktop.wait_boot(600)
    tap.ok(Identity(desktop).name == "g3", "vhost-user: it boots, and knows its host name")
    desktop.destroy()
    world.command("desktop", "rm", "g3")


def run_tests(tap, world):
    world.catalog("guests")
    world.create("guests", "g1", "g2", "--version", "1", "--ssh-host-keys")
    desktops = [world.desktop("g1"), world.desktop("g2")]
    for desktop in desktops:
        desktop.start()
    found = first_time(tap, desktops)
    second_time(tap, desktops, found)
    for desktop in desktops:
        desktop.destroy()
    world.command("desktop", "rm", "g1", "g2")
    if world.long:
        behind(tap, world)
