# SPDX-License-Identifier: GPL-2.0-or-later
"""What the acts of the demo share: how a step is told, timed and checked."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DESKCAST_BUILD") or TOP / "build")
if (BUILD / "qemu").is_dir():
    BUILD = BUILD / "qemu"
QEMU_IMG = BUILD / "qemu-img"
QEMU = BUILD / "qemu-system-x86_64"

sys.path.insert(0, str(TOP / "tests" / "e2e"))


class Failed(Exception):
    """The demo saw something that must not be."""


class Ticker:
    """On a terminal, shows that a long step is still at work."""

    # Held by whoever prints, so that the clock never lands in a line.
    screen = threading.Lock()

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = None
        if sys.stdout.isatty():
            self.thread = threading.Thread(target=self.tick, daemon=True)
            self.thread.start()
        return self

    def tick(self):
        began = time.monotonic()
        while not self.stop.wait(1):
            with self.screen:
                print(f"\r    ... {time.monotonic() - began:.0f} s ", end="", flush=True)

    def __exit__(self, *_):
        self.stop.set()
        if self.thread:
            self.thread.join()
            print("\r\033[K", end="", flush=True)


def say(text):
    """A paragraph for the reader."""
    print(textwrap.fill(" ".join(text.split()), 79), flush=True)


def note(text):
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    with Ticker.screen:
        print(f"{clear}    {text}", flush=True)


class Step:
    """One step of the tour, numbered across the act."""

    number = 0

    def __init__(self, title, why=""):
        Step.number += 1
        print()
        print(textwrap.fill(f"{Step.number}. {title}", 79, subsequent_indent="   "), flush=True)
        if why:
            print(textwrap.indent(textwrap.fill(" ".join(why.split()), 75), "   "), flush=True)

    def note(self, text):
        note(text)

    def check(self, holds, text):
        """A statement about what was seen; a false one ends the demo."""
        if not holds:
            note(f"WRONG, it is not so: {text}")
            raise Failed(f"not so: {text}")
        note(f"ok: {text}")

    def __enter__(self):
        self.began = time.monotonic()
        self.ticker = Ticker()
        self.ticker.__enter__()
        return self

    def __exit__(self, *error):
        self.ticker.__exit__(*error)
        note(f"took {time.monotonic() - self.began:.1f} s")


def table(head, rows):
    """Print rows of text in columns."""
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        note("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def size(count):
    """Bytes in words: 14.2 MiB."""
    unit = "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def qemu_img(*arguments):
    done = subprocess.run([QEMU_IMG, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"qemu-img {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def on_disk(path):
    """What a file occupies, in bytes: a sparse one less than its length."""
    return os.stat(path).st_blocks * 512


def granules_held(path):
    """How many granules of 4 KiB a differencing disk holds itself."""
    extents = json.loads(qemu_img("map", "-f", "mcs", "--output=json", path))
    return sum(extent["length"] for extent in extents if extent["depth"] == 0) // 4096


def fresh_folder(name):
    """An empty folder for an act, in the build folder; replaced at the next run."""
    folder = TOP / "build" / "demo" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def ended_cleanly():
    """Let an interrupted demo end its guests on the way out."""
    def leave(number, _frame):
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    from guest import GuestError
    try:
        yield
    except (Failed, GuestError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
