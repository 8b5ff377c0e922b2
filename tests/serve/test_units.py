# SPDX-License-Identifier: GPL-2.0-or-later
"""The units and the profiles that are shipped."""

import os
import pathlib
import re
import shlex
import subprocess

from stores.process import TOP, new_folder, need

from .env import DESKCAST, MIB, Relay, Serve, VdiskStore, noise, same

UNITS = TOP / 'packaging/systemd'
PROFILES = TOP / 'packaging/apparmor'
NAMES = ('deskcast-store', 'deskcast-relay')


def unit(name, change=lambda text: text):
    """A copy of a unit among copies of all, which run our program, which is
    where it is looked for"""
    folder = new_folder('unit')
    for path in UNITS.iterdir():
        text = path.read_text().replace('/usr/bin/deskcast', DESKCAST)
        (folder / path.name).write_text(change(text) if path.name == name
                                        else text)
    return folder / name


def analyze(path):
    """'' or what systemd does not like"""
    done = subprocess.run(
        [need('systemd-analyze'), 'verify', '--man=no', path],
        env={**os.environ, 'SYSTEMD_LOG_LEVEL': 'warning'},
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stderr if done.returncode or done.stderr else ''


def units():
    """Each that is shipped; and none with a mistake"""
    names = sorted(path.name for path in UNITS.iterdir())
    if not {'deskcast-follow.service', 'deskcast-follow.timer'} < set(names):
        return f'there are only {names}'
    for name in names:
        said = analyze(unit(name))
        if said:
            return f'{name}: {said}'
        if not analyze(unit(name, lambda t: re.sub(
                '^(Restart|TimeoutStartSec|OnCalendar)=.*', r'\1=maybe', t,
                flags=re.M))):
            return f'{name}: with a mistake it passes'
    return None


def options():
    """What the units and their comments say is understood by our program."""
    for name, command in zip(NAMES, (['store', 'serve'], ['relay'])):
        text = (UNITS / f'{name}.service').read_text().replace('\\\n', ' ')
        comment = text.replace('#', ' ')
        given = re.search(r'_OPTIONS=(.*)', comment)[1]
        line = re.search(r'ExecStart=/usr/bin/deskcast (.*) \$', text)[1]
        argv = shlex.split(line) + shlex.split(given)
        known = subprocess.run([DESKCAST, *command, '--help'],
                               capture_output=True, text=True).stdout
        for option in argv:
            if option.startswith('--') and option not in known:
                return f'{name}: there is no {option}'
    return None


def profiles():
    parser = need('apparmor_parser')
    for name in NAMES:
        done = subprocess.run([parser, '-Q', '-K', '-S', PROFILES / name],
                              stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode or not done.stdout:
            return f'{name}: {done.stderr.decode()}'
        if f'AppArmorProfile=-{name}\n' not in \
                (UNITS / f'{name}.service').read_text():
            return f'{name}.service does not name it'
    broken = new_folder('profile') / 'broken'
    broken.write_text((PROFILES / NAMES[0]).read_text() + '}')
    done = subprocess.run([parser, '-Q', '-K', '-S', broken],
                          stdin=subprocess.DEVNULL, capture_output=True)
    return None if done.returncode else 'a profile with a mistake passes'


def few_rights():
    """With the capabilities that the units leave"""
    need('setpriv')
    if os.geteuid():
        return None
    few = ['setpriv', '--bounding-set=-all,+chown', '--inh-caps=-all',
           '--no-new-privs', '--']
    store = VdiskStore()
    store.make('win', {0: noise('few', MIB)}, 2 * MIB)
    store.command('version', 'new', 'win', '--for', 'pvs')
    serve = Serve(store, '--group', 'nogroup')
    serve.argv = few + serve.argv
    with serve:
        relay = Relay([serve.uri], ['win'], '--group', 'nogroup')
        relay.argv = few + relay.argv
        with relay:
            status = pathlib.Path(f'/proc/{relay.daemon()}/status').read_text()
            if re.search(r'CapBnd:\t(\w+)', status)[1] != '0' * 15 + '1':
                return 'the daemon has other capabilities'
            relay.wait('win@1', 'hydrated')
            mode = os.stat(relay.path).st_mode & 0o777
            if mode != 0o660:
                return f'the socket has mode {mode:o}'
            return same(relay.path, store.content['win', 1], 'win@1')


def tests():
    yield 'units: systemd takes them', units
    yield 'units: their options are ours', options
    yield 'units: AppArmor takes the profiles', profiles
    yield 'units: with the rights that they leave', few_rights
