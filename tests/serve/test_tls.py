# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is let in by store serve, and who is not; and what both sides say."""

import json
import os
import re
import shutil
import signal
import subprocess

from stores.node import Node
from stores.process import free_port, program, until

from . import tls
from .env import MIB, SHOWS, Relay, Serve, VdiskStore, content, noise, same
from .test_serve import refused

NAME = '/O=Example/CN=host1'
DN = 'O=Example,CN=host1'


def store_of_one():
    store = VdiskStore()
    store.make('win', {0: noise('tls', MIB)}, 2 * MIB)
    return store


def node(port, host='localhost', encrypted=True):
    return {'driver': 'nbd', 'export': 'win@1',
            'server': {'type': 'inet', 'host': host, 'port': str(port)},
            **({'tls-creds': 'tls'} if encrypted else {})}


def looks(options, credentials=None):
    """What a client of QEMU says when it opens the export; '' if it can"""
    objects = ['--object', json.dumps(credentials)] if credentials else []
    done = subprocess.run(
        [program('qemu-img'), 'info', *objects, f'json:{json.dumps(options)}'],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.stderr.strip() if done.returncode else ''


class Trial:
    """A server, and what its clients and it say of each other"""

    def __init__(self, *argv, host='localhost'):
        self.store = store_of_one()
        self.port = free_port()
        self.serve = Serve(self.store, *argv, listen=(host, self.port))

    def __enter__(self):
        self.serve.__enter__()
        return self

    def __exit__(self, *args):
        self.serve.__exit__(*args)

    def lets_in(self, credentials, host='localhost'):
        options = {**node(self.port, host), 'read-only': True}
        with Node(options, [credentials]) as n:
            return same(n.path, self.store.content['win', 1])

    def turns_away(self, credentials, client, server, host='localhost'):
        """None if it does, and both say so: regular expressions"""
        before = len(self.serve.said())
        said = looks(node(self.port, host, credentials is not None),
                     credentials)
        if not said:
            return 'it was let in'
        if not re.search(client, said, re.I):
            return f'the client says: {said}'

        def complaint():
            return re.search(server, self.serve.said()[before:], re.I)
        try:
            if server:
                until(complaint, 5, server)
        except Exception:           # pylint: disable=broad-except
            return f'the server says: {self.serve.said()[before:]}'
        return None


def x509():
    ca, other = tls.Authority(), tls.Authority('stranger')
    right = ca.folder('client', NAME)
    with Trial('--tls-x509', ca.folder('server', '/CN=localhost',
                                       'DNS:localhost'),
               '--authorise', DN) as t:
        for what, arguments in {
            'clear text': (None, 'TLS', ''),
            'another name': (tls.x509(ca.folder('client', '/O=Example/CN=host2')),
                             'reset|closed|broken|end|terminated|denied',
                             'O=Example,CN=host2 is denied'),
            'no certificate': (tls.x509(ca.folder('client', None)),
                               'certificate|alert|reset|closed|terminated',
                               'certificate'),
            'expired': (tls.x509(ca.folder('client', NAME, expired=True),
                                 **{'sanity-check': False}),
                        'expired|alert|certificate|reset|closed|terminated',
                        'certificate is not trusted'),
            'expired, and the client looks': (
                tls.x509(ca.folder('client', NAME, expired=True)), 'expired',
                ''),
            'of a stranger': (tls.x509(other.folder('client', NAME, ca=ca),
                                       **{'sanity-check': False}),
                              'alert|certificate|reset|closed|terminated|issuer',
                              'certificate'),
            'a key is shown': (tls.psk(tls.keys({'host1': 'ab' * 32}), 'host1'),
                               'TLS|alert|handshake', 'TLS|handshake'),
        }.items():
            bad = t.turns_away(*arguments)
            if bad:
                return f'{what}: {bad}'
        return t.lets_in(tls.x509(right))


def wrong_servers():
    """A client does not talk to a server that is not who it should be."""
    ca, other = tls.Authority(), tls.Authority('stranger')
    right = tls.x509(ca.folder('client', NAME))
    for what, folder, text in (
            ('another host', ca.folder('server', '/CN=store2', 'DNS:store2'),
             "not match the hostname|certificate.*host"),
            ('a stranger', other.folder('server', '/CN=localhost',
                                        'DNS:localhost'),
             'issuer|certificate')):
        with Trial('--tls-x509', folder, '--authorise', '*') as t:
            bad = t.turns_away(right, text, '')
            if bad:
                return f'{what}: {bad}'
    store = store_of_one()
    return refused(['--store', store.path, '--listen', f'localhost:{free_port()}',
                    '--tls-x509', ca.folder('server', '/CN=localhost',
                                            'DNS:localhost', expired=True),
                    '--authorise', '*'], 'expired', 1)


def psk():
    key = os.urandom(32).hex()
    folder = tls.keys({'host1': key})
    with Trial('--tls-psk', folder) as t:
        for what, arguments in {
            'clear text': (None, 'TLS', ''),
            'another key': (tls.psk(tls.keys({'host1': os.urandom(32).hex()}),
                                    'host1'),
                            'TLS|handshake|alert|mac', 'TLS|handshake|mac'),
            'another user': (tls.psk(tls.keys({'host2': key}), 'host2'),
                             'TLS|handshake|alert|closed',
                             'TLS|handshake|user|PSK'),
            'a certificate': (tls.x509(tls.Authority().folder('client', NAME)),
                              'TLS|handshake|alert|closed', 'TLS|handshake'),
        }.items():
            bad = t.turns_away(*arguments)
            if bad:
                return f'{what}: {bad}'
        return t.lets_in(tls.psk(folder, 'host1'))


def names_from_a_file():
    """Who is written into it is let in; who is taken out is not. Nobody else is
    disconnected."""
    ca = tls.Authority()
    names = ca.dir / 'names'
    names.write_text('# hosts\n\n' + DN + '\n')
    two = tls.x509(ca.folder('client', '/O=Example/CN=host2'))
    one = tls.x509(ca.folder('client', NAME))
    with Trial('--tls-x509', ca.folder('server', '/CN=localhost',
                                       'DNS:localhost'),
               '--authorise-from', names) as t:
        options = {**node(t.port), 'read-only': True}
        with Node(options, [one]) as n:
            bad = t.turns_away(two, '', 'denied')
            names.write_text('O=Example,CN=host2\n')
            until(lambda: not looks(node(t.port), two), SHOWS,
                  'the second host is let in')
            bad = bad or t.turns_away(one, '', 'denied') or \
                same(n.path, t.store.content['win', 1])
        # What cannot be read changes nothing
        names.unlink()
        until(lambda: '--authorise-from: ' in t.serve.said(), 10,
              'it says that it cannot read the file')
        return bad or looks(node(t.port), two) or \
            t.turns_away(one, '', 'denied')


def renewed():
    """SIGHUP: the new certificate is shown, and clients come back. One that
    cannot be right changes nothing."""
    ca, new = tls.Authority(), tls.Authority('newer')
    folder = ca.folder('server', '/CN=localhost', 'DNS:localhost')
    old = tls.x509(ca.folder('client', NAME))

    def again(t, said):
        t.serve.process.signal(signal.SIGHUP)
        until(lambda: said in t.serve.said(), 60, said)

    with Trial('--tls-x509', folder, '--authorise', DN) as t:
        options = {**node(t.port), 'read-only': True, 'reconnect-delay': 60,
                   'reconnect-interval': 100}
        with Node(options, [old]) as n:
            bad = same(n.path, t.store.content['win', 1])
            ca.issue(folder, 'server', '/CN=localhost', 'DNS:localhost')
            again(t, 'were read again')
            bad = bad or same(n.path, t.store.content['win', 1])
            ca.issue(folder, 'server', '/CN=localhost', 'DNS:localhost',
                     expired=True)
            again(t, 'stay as they were')
            bad = bad or same(n.path, t.store.content['win', 1])
        shutil.copy(new.cert, folder / 'ca-cert.pem')
        new.issue(folder, 'server', '/CN=localhost', 'DNS:localhost')
        t.serve.process.signal(signal.SIGHUP)
        until(lambda: 'certificate' in looks(node(t.port), old), 60,
              'the other certificate is shown')
        return bad


def relay_over_tls():
    """A relay shows its certificate, or its key; and a wrong one in vain."""
    ca, key = tls.Authority(), os.urandom(32).hex()
    server = ca.folder('server', '/CN=localhost', 'DNS:localhost')
    right, wrong = (ca.folder('client', f'/O=Example/CN={n}')
                    for n in ('host1', 'host2'))
    keys, wrong_keys = tls.keys({'host1': key}), tls.keys({'host1': 'ab' * 32})
    for argv, good, bad in (
            (['--tls-x509', server, '--authorise', DN],
             ['--tls-x509', right], ['--tls-x509', wrong]),
            (['--tls-psk', keys], ['--tls-psk', keys, '--tls-user', 'host1'],
             ['--tls-psk', wrong_keys, '--tls-user', 'host1'])):
        with Trial(*argv) as t:
            uri = f'nbds://localhost:{t.port}'
            with Relay([uri], ['win'], *good) as relay:
                relay.wait('win@1', 'hydrated')
                differs = same(relay.path, t.store.content['win', 1], 'win@1')
                if differs:
                    return differs
                content(relay.path, 'win@manifest')
            with Relay([uri], ['win'], *bad) as relay:
                until(lambda r=relay: f'win at {uri}: ' in r.said(), 10,
                      'it says that it cannot')
                if relay.of('win@1'):
                    return 'it was let in'
    return None


def tests():
    yield 'tls: certificates', x509
    yield 'tls: a server that is another one', wrong_servers
    yield 'tls: pre-shared keys', psk
    yield 'tls: names from a file that changes', names_from_a_file
    yield 'tls: certificates are renewed', renewed
    yield 'tls: a relay and its far store', relay_over_tls
