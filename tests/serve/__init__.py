# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast store serve and deskcast relay."""
