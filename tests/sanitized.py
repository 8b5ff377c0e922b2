# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether programs have sanitizers in them (SANITIZE=1 scripts/check), and how
much longer things may take then. A time limit that is there so that a test ends is
multiplied by SLOWER; what compares the times of programs has no meaning, and is
skipped with the reason NO_TIMES."""

import os

SANITIZED = bool(os.environ.get("SANITIZE"))
# As long as scripts/check gives whole tiers
SLOWER = 4 if SANITIZED else 1
NO_TIMES = "programs with sanitizers say nothing of how fast others are"
