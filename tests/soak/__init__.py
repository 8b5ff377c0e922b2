# SPDX-License-Identifier: GPL-2.0-or-later
"""Desktops of both models at work, for as long as it is told.

    content   what a disk has to hold: its version, and what was written over it
    virtio    a driver of virtio-blk, by qtest
    machine   a desktop's QEMU, without a guest
    desk      a desktop at work: requests, resets, kills
    desktops  each kind of them
    guests    real Debian guests
    updates   new versions, pushes, rollbacks; the desktop that installs them
    places    stores and a relay, and their faults
    checks    what is looked at all the time
    findings  what was found, and how slow the machine is
    breaks    what the soak has to find
    world     all of it
"""
