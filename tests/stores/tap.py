# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints TAP."""

import signal
import sys
import time
import traceback

from .process import Missing


class Tap:
    def __init__(self):
        self.count = self.failed = 0
        # So that servers are ended and folders removed then, too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def ok(self, holds, text, why=''):
        self.count += 1
        self.failed += not holds
        print(f'{"ok" if holds else "not ok"} {self.count} - {text}',
              flush=True)
        if why and not holds:
            self.diag(why)
        return holds

    def skip(self, text, why):
        self.count += 1
        why = ' '.join(str(why).split())
        print(f'ok {self.count} - {text} # SKIP {why}', flush=True)

    def diag(self, text):
        for line in str(text).splitlines():
            print(f'# {line}', flush=True)

    def run(self, text, test, *args):
        """A test is a function that returns what is wrong, or nothing; or
        raises."""
        begin = time.monotonic()
        try:
            why = test(*args)
        except Missing as e:
            self.skip(text, e)
            return
        except Exception:       # pylint: disable=broad-except
            why = traceback.format_exc()
        seconds = time.monotonic() - begin
        self.ok(not why, f'{text} ({seconds:.1f} s)', why or '')

    def end(self):
        print(f'1..{self.count}')
        sys.exit(1 if self.failed else 0)
