# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest harness of tests/e2e tells of outages, shown on QEMU's own
drivers and on pvs: desktops that stream through an outage. With --long only."""

import pathlib
import time

from . import faults, nbd
from .process import guest_image, program, run, until

import accel                                # node has told Python where
from guest import Guest


def boot(node, folder, name, extra=(), errors='stop'):
    """A Guest on any node; errors stop it and keep the request, or are
    reported to it."""
    qemu = program('qemu-system-x86_64')
    how, _ = accel.choose(qemu, str(guest_image()))
    return Guest(qemu, {**node, 'node-name': 'disk0'},
                 f'{folder}/{name}.console', accel=how, extra=extra,
                 errors=errors)


def overlay(folder, name, backing):
    path = f'{folder}/{name}.qcow2'
    run(program('qemu-img'), 'create', '-q', '-f', 'qcow2', path,
        str(guest_image().stat().st_size))
    return {'driver': 'qcow2', 'backing': backing,
            'file': {'driver': 'file', 'filename': path}}


def stops_and_goes_on(folder):
    """The server is killed: the guest stops, runs again when it is told to, and
    has seen nothing."""
    with faults.Place(guest_image()) as place:
        node = overlay(folder, 'stock', {'read-only': True, **place.options()})
        with boot(node, folder, 'stock') as guest:
            guest.wait_boot()
            # what that takes is read before the outage
            guest.agent.command('guest-exec', path='/bin/sh', arg=[
                '-c', 'cat /bin/cat; sleep 2; cat /usr/bin/* > /dev/null'])
            time.sleep(1)
            place.server.kill()
            guest.qmp.wait_event('STOP', 30)
            place.server.start()
            if guest.pauses()[-1][1] is not None:
                return f'it runs without its disk: {guest.pauses()}'
            until(lambda: cont(guest), 30, 'it runs on')
            begin, end = guest.pauses()[0]
            if guest.run('cat /usr/bin/* | wc -c') < '1' or end <= begin:
                return str(guest.pauses())
            return '\n'.join(guest.disk_errors())


def cont(guest):
    """Running for half a second? NBD redials in its own time."""
    guest.qmp.command('cont')
    guest.qmp.collect(0.5)
    return guest.qmp.command('query-status')['running']


def finds_errors(folder):
    """Errors that are let through to the guest are found in its log."""
    fail = pathlib.Path(folder) / 'fail'
    with nbd.Nbdkit(guest_image(), ['error'], [
            'error=EIO', f'error-file={fail}', 'error-rate=100%']) as bad:
        node = overlay(folder, 'errors', {'read-only': True, **bad.options()})
        with boot(node, folder, 'errors', errors='report') as guest:
            guest.wait_boot()
            fail.touch()
            guest.run('cat /usr/share/*/* > /dev/null', check=False)
            fail.unlink()
            found = guest.disk_errors()
            return None if found and not guest.pauses() else f'{found}'


def streams_through(folder):
    """A desktop on pvs: no store, so it stops; it runs on unaided when the store
    is back, and its kernel has seen nothing."""
    image = guest_image()
    with faults.Place(image) as place:
        with boot(desktop(folder, image, place), folder, 'pvs') as guest:
            guest.wait_boot()
            guest.agent.command('guest-exec', path='/bin/sh', arg=[
                '-c', 'cat /bin/cat; sleep 2; cat /usr/bin/* > /dev/null'])
            time.sleep(1)
            place.server.kill()
            guest.qmp.wait_event('STOP', 30)
            place.server.start()
            guest.qmp.wait_event('RESUME', 5)
            guest.run('cat /usr/bin/* /usr/sbin/* > /dev/null')
            stood = guest.pauses()
            if len(stood) != 1:
                return str(stood)
            return '\n'.join(guest.disk_errors())


def desktop(folder, image, *places):
    layer = f'{folder}/desktop.pvs'
    size = str(image.stat().st_size)
    run(program('qemu-img'), 'create', '-q', '-f', 'pvs', '-o',
        'role=cache,vdisk=disk,version=1', layer, size)
    return {'driver': 'pvs', 'vdisk': 'disk', 'version': 1, 'size': int(size),
            'outage-action': 'pause', 'outage-wait': 1,
            'stores': [p.options() for p in places],
            'file': {'driver': 'file', 'filename': layer}}


def tests(folder, args):
    if args.long:
        yield 'a desktop on pvs goes on by itself', streams_through, folder
        yield ('a guest stops at an outage, and goes on', stops_and_goes_on,
               folder)
        yield 'errors are found in the log of a guest', finds_errors, folder
