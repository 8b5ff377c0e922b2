# SPDX-License-Identifier: GPL-2.0-or-later
"""Choose between KVM and emulation: KVM only where a guest really boots.

On some machines /dev/kvm exists and guests hang in it. So a probe guest is
booted once, and the answer kept until the machine or QEMU's binary changes.
"""

import json
import os
import pathlib
import subprocess
import tempfile

import guest as guests

# In seconds. Emulated, which is the slower way, a boot takes about 20.
PROBE_TIMEOUT = 25


def cache_file():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "deskcast" / "kvm-probe.json"


def probe_key(qemu):
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stat = os.stat(qemu)
    return [boot_id, os.getuid(), str(qemu), stat.st_size, stat.st_mtime_ns]


def remembered(key):
    try:
        answer = json.loads(cache_file().read_text())
        return answer["kvm"] if answer["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key, kvm):
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({"key": key, "kvm": kvm}))
    new.replace(path)


def make_scratch(qemu, image, path):
    """A pooled disk over the image, for what the probe guest writes."""
    subprocess.run([pathlib.Path(qemu).parent / "qemu-img", "create", "-q", "-f", "mcs",
                    "-b", image, "-F", "raw", "-o", "lifetime=pooled", path], check=True)


def boots_under_kvm(qemu, image):
    with tempfile.TemporaryDirectory(prefix="deskcast-probe-") as folder:
        scratch = f"{folder}/probe.mcs"
        make_scratch(qemu, image, scratch)
        disk = guests.mcs_disk("disk0", scratch)
        try:
            with guests.Guest(qemu, disk, f"{folder}/console", accel="kvm") as guest:
                guest.wait_boot(PROBE_TIMEOUT)
                return guest.run("echo here") == "here\n"
        except (guests.GuestError, OSError):
            return False


def choose(qemu, image):
    """Return "kvm" or "tcg", and the reason in words."""
    if not os.path.exists("/dev/kvm"):
        return "tcg", "this machine has no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "you may not use /dev/kvm (are you in group kvm?)"
    key = probe_key(qemu)
    kvm = remembered(key)
    if kvm is None:
        kvm = boots_under_kvm(qemu, image)
        remember(key, kvm)
    if kvm:
        return "kvm", "a probe guest booted under it"
    return "tcg", "/dev/kvm exists, but a probe guest did not boot under it"
