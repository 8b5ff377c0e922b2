# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions of one store in another one: what moves, and what may go wrong."""

import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from . import env, sources
from .env import deskcast, must
from .test_content import new_store
from .test_kill import write
from .test_store import first_of, refused
from .test_verify import flip, three
from stores.process import Process, free_port, need, run, until, answers

BLOCK = 4096


def target(folder, name='there'):
    store = folder / name
    must('store', 'create', store)
    return store


def same(a, b, vdisk='win'):
    """All sealed versions of @a are in @b, by content, tree and root."""
    ma, mb = env.manifest(a, vdisk), env.manifest(b, vdisk)
    if (ma['uuid'], ma['salt']) != (mb['uuid'], mb['salt']):
        return 'another UUID or salt'
    va, vb = env.versions(ma), env.versions(mb)
    for number, v in va.items():
        if v['access'] in ('maintenance', 'retired'):
            continue
        if number not in vb:
            return f'version {number} is not there'
        for key in ('root', 'size', 'access', 'sealed', 'created'):
            if v[key] != vb[number][key]:
                return f'version {number}: {key} is {vb[number][key]}'
        if env.content(a, vdisk, number) != env.content(b, vdisk, number):
            return f'version {number}: another content'
    return env.what_is_wrong(b)


def replicate(here, there, *argv, status=0, **kwargs):
    done = deskcast('store', 'replicate', '--from', here, '--to', there,
                    '--json', *argv, **kwargs)
    if done.status != status:
        raise AssertionError(f'exit {status} is expected: {done}')
    return done.json()['vdisks']


class Server:
    """A store served as "store serve" does, on a TCP port. @tls: a folder of
    certificates."""

    def __init__(self, store, folder, vdisk='win', tls=None, node=None):
        self.port = free_port()
        self.log = folder / 'server.log'
        m = env.manifest(store, vdisk)
        argv = [env.QSD]
        if tls:
            argv += ['--object', f'tls-creds-x509,id=tls,endpoint=server,'
                     f'dir={tls}/server,verify-peer=on']
        argv += ['--nbd-server', f'addr.type=inet,addr.host=127.0.0.1,'
                 f'addr.port={self.port}' + (',tls-creds=tls' if tls else '')]
        path = store / 'vdisks' / vdisk
        nodes = {f'{vdisk}@manifest': self.raw(path / 'manifest.json')}
        for number, v in env.versions(m).items():
            nodes[f'{vdisk}@{number}'] = env.chain(store, vdisk, m, v)
            nodes[f'{vdisk}@{number}.tree'] = self.raw(path / v['tree'])
            if 'trace' in v:
                nodes[f'{vdisk}@{number}.trace'] = self.raw(path / v['trace'])
        nodes.update(node or {})
        for i, (name, what) in enumerate(nodes.items()):
            argv += ['--blockdev', json.dumps(
                {**what, 'node-name': f'n{i}', 'read-only': True})]
            argv += ['--export', f'type=nbd,id=e{i},node-name=n{i},'
                     f'name={name}']
        self.argv = argv

    @staticmethod
    def raw(path):
        return {'driver': 'raw', 'file': {'driver': 'file',
                                          'filename': str(path)}}

    def __enter__(self):
        self.process = Process(self.argv, self.log)
        try:
            until(lambda: answers(('127.0.0.1', self.port)), 10,
                  'the server answers')
        except Exception as e:
            raise AssertionError(self.process.said()) from e
        return self

    def __exit__(self, *_):
        self.process.stop()

    @property
    def url(self):
        return f'nbd://127.0.0.1:{self.port}'


class Link:
    """A proxy that counts bytes, and cuts the line after so many."""

    def __init__(self, port, cut=None):
        self.to, self.cut = port, cut
        self.bytes, self.lock = 0, threading.Lock()
        self.ends = []
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f'nbd://127.0.0.1:{self.port}'

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(('127.0.0.1', self.to))
            self.ends += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(a, b),
                                 daemon=True).start()

    def pump(self, a, b):
        try:
            while data := a.recv(1 << 16):
                with self.lock:
                    self.bytes += len(data)
                    if self.cut and self.bytes > self.cut:
                        self.break_off()
                        return
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def break_off(self):
        for s in (self.listener, *self.ends):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.break_off()


def from_folder(folder):
    """From a folder; again when there is more; nothing the third time"""
    here, there = three(folder), target(folder)
    must('version', 'promote', 'win', 2, store=here)
    first = replicate(here, there)[0]
    why = same(here, there)
    must('version', 'new', 'win', store=here)
    write(here, 'win', 4, 0x99, 5 * BLOCK, 2 * BLOCK)
    must('version', 'seal', 'win', store=here)
    must('version', 'promote', 'win', 3, store=here)
    must('version', 'retire', 'win', 1, store=here)
    more = replicate(here, there)[0]
    why = why or same(here, there)
    again = replicate(here, there)[0]
    if (first['versions'], more['versions'], again['versions']) != (3, 1, 0):
        why = why or f'{first}, {more}, {again}'
    # Two blocks, and those of the tree that lead to them
    if more['moved'] > 2 * BLOCK + 8 * BLOCK or again['moved']:
        why = why or f'{more}, {again}'
    if env.versions(env.manifest(there, 'win'))[1]['access'] != 'retired':
        why = why or 'it is not retired there'
    return why or str(env.strangers(there) or '')


def from_server(folder):
    """From a server; as test only; one of two vDisks"""
    here, there = three(folder), target(folder)
    must('version', 'promote', 'win', 3, store=here)
    with Server(here, folder) as server:
        replicate(server.url, there, '--as-test')
        access = {v['access'] for v in env.manifest(there, 'win')['versions']}
        replicate(server.url, there, '--vdisk', 'win')
        why = same(here, there)
        bad = deskcast('store', 'replicate', '--from', server.url, '--to',
                       there, '--vdisk', 'none')
    return why or ('' if access == {'test'} else str(access)) or \
        refused(bad, 'none')


def trace_contents(store):
    folder = store / 'vdisks/win'
    return {v['trace']: (folder / v['trace']).read_bytes()
            for v in env.manifest(store, 'win')['versions'] if 'trace' in v}


def traces(folder):
    """Boot traces follow; a damaged one does not, and that is told"""
    here, there = three(folder), target(folder)
    for granules in ((1, 2), (9,)):
        for number, v in env.versions(env.manifest(here, 'win')).items():
            path = env.boot_trace(folder / 'trace', v, *granules, number)
            must('version', 'trace', 'win', number, path, store=here)
        with Server(here, folder) as server:
            done = replicate(server.url, there)[0]
            again = replicate(here, there)[0]
        why = first_of(
            '' if (done['traces'], again['traces']) == (3, 0)
            else f'{done}, {again}',
            '' if trace_contents(here) == trace_contents(there)
            else f'{trace_contents(there)}',
            env.what_is_wrong(there), env.strangers(there))
        if why:
            return why
    third, names = target(folder, 'third'), sorted(trace_contents(here))
    flip(here / 'vdisks/win' / names[2], 70)
    with Server(here, folder) as server:
        done = deskcast('store', 'replicate', '--from', server.url, '--to',
                        third)
    return first_of(
        '' if done.status == 0 and 'no boot trace of this version' in done.err
        else done,
        '' if sorted(trace_contents(third)) == names[:2]
        else f'{trace_contents(third)}',
        env.what_is_wrong(third), env.strangers(third))


def five_percent(folder):
    """5 % of the blocks changed: at most 6 % of the bytes cross the link"""
    here, there = new_store(folder), target(folder)
    size = 32 << 20
    rnd = random.Random(8)
    (folder / 'disk.raw').write_bytes(rnd.randbytes(size))
    must('vdisk', 'import', folder / 'disk.raw', 'win', store=here)
    replicate(here, there)
    must('version', 'new', 'win', store=here)
    blocks = rnd.sample(range(size // BLOCK), size // BLOCK // 20)
    m = env.manifest(here, 'win')
    node = env.chain(here, 'win', m, env.versions(m)[2])
    subprocess.run([env.BUILD / 'qemu/qemu-io', 'json:' + json.dumps(node)],
                   input=''.join(f'write -P {rnd.randrange(1, 255)} '
                                 f'{b * BLOCK} {BLOCK}\n' for b in blocks),
                   text=True, check=True, stdout=subprocess.DEVNULL)
    must('version', 'seal', 'win', store=here)
    with Server(here, folder) as server, Link(server.port) as link:
        result = replicate(link.url, there)[0]
        crossed = link.bytes
    share = crossed / size
    if not 0.05 < share <= 0.06:
        return f'{share:.4f} of the bytes crossed: {result}'
    return same(here, there)


def cut(folder):
    """The link is cut at many places; each try goes on where it was"""
    here, there = three(folder), target(folder)
    with Server(here, folder) as server:
        with Link(server.port) as link:
            replicate(link.url, target(folder, 'whole'))
            whole = link.bytes
        crossed, tries = 0, 0
        while True:
            # Always more than the trees and the manifest take
            with Link(server.port, cut=500000) as link:
                done = deskcast('store', 'replicate', '--from', link.url,
                                '--to', there)
                crossed, tries = crossed + link.bytes, tries + 1
            for v in (env.manifest(there, 'win')['versions']
                      if (there / 'vdisks/win').exists() else []):
                if env.content(there, 'win', v['version']) != \
                        env.content(here, 'win', v['version']):
                    return f'version {v["version"]} is there, and wrong'
            if done.status == 0:
                break
            if tries > 40:
                return f'it does not get on: {done}'
    if tries < 3 or crossed > 2.2 * whole:
        return f'{tries} tries, {crossed} bytes crossed instead of {whole}'
    return same(here, there) or str(env.strangers(there) or '')


def is_held(said):
    """By a process that the one that was killed had just begun to start"""
    return 'somebody else is bringing' in said.read_text()


def killed(folder):
    """Killed at random moments; each try goes on where it was"""
    here, there = three(folder), target(folder)
    rnd = random.Random(4)
    throttle = {'driver': 'throttle', 'throttle-group': 'slow'}
    with Server(here, folder) as server:
        server.process.stop()
        server.argv[1:1] = ['--object', 'throttle-group,id=slow,'
                            'limits.bps-read=3000000']
        for i, arg in enumerate(server.argv):
            if arg == '--blockdev':
                node = json.loads(server.argv[i + 1])
                name = node.pop('node-name')
                server.argv[i + 1] = json.dumps(
                    {**throttle, 'node-name': name, 'file': node,
                     'read-only': True})
        with server:
            kills = 0
            while True:
                with open(folder / 'said', 'wb') as said:
                    child = subprocess.Popen(
                        [env.DESKCAST, 'store', 'replicate', '--from',
                         server.url, '--to', there], env=env.ENV,
                        stdout=subprocess.DEVNULL, stderr=said)
                try:
                    # Longer, in the end, than it takes on a slow machine
                    child.wait((0.3 + rnd.random()) * (1 + kills / 20))
                    if not is_held(folder / 'said'):
                        break
                    kills += 1
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                    kills += 1
                if kills > 60:
                    return 'it does not get on'
            if child.returncode:
                return (folder / 'said').read_text()[-500:]
    return same(here, there) or str(env.strangers(there) or '') or \
        ('' if kills else 'it was never killed')


def staged_damage(folder):
    """What was staged is damaged between two tries: it is brought anew"""
    here, there = three(folder), target(folder)
    with Server(here, folder) as server:
        with Link(server.port, cut=1200000) as link:
            done = deskcast('store', 'replicate', '--from', link.url, '--to',
                            there)
        why = refused(done)
        for path in (there / 'staging').iterdir():
            data = bytearray(path.read_bytes())
            for at in range(4096, len(data), 50000):
                data[at] ^= 4
            path.write_bytes(data)
        replicate(server.url, there)
    return why or same(here, there)


def lying_server(folder):
    """A server whose data or tree is not what its manifest says"""
    here = three(folder)
    vdisk = here / 'vdisks/win'
    data = env.content(here, 'win', 1)
    leaves = (vdisk / '1.tree').stat().st_size // BLOCK - \
        -(-len(data) // (128 * BLOCK))
    # Zeros do not come from the server at all
    at = next(i for i in range(0, len(data), BLOCK) if any(data[i:i + BLOCK]))
    why = ''
    for name, offset in (('1.raw', at + 9), ('1.tree', 90), ('1.tree', BLOCK),
                         ('1.tree', (leaves + at // BLOCK // 128) * BLOCK)):
        there = target(folder, f'there-{name}-{offset}')
        flip(vdisk / name, offset)
        with Server(here, folder) as server:
            done = deskcast('store', 'replicate', '--from', server.url, '--to',
                            there)
        flip(vdisk / name, offset)
        why = why or refused(done, 'that came') or \
            str(list((there / 'vdisks').iterdir()) or '')
        replicate(here, there)
        why = why or same(here, there)
    return why


def damaged_base(folder):
    """The version here that it would build on is damaged"""
    here, there = three(folder), target(folder)
    replicate(here, there)
    must('version', 'new', 'win', store=here)
    write(here, 'win', 4, 0x77, 90 * 65536, BLOCK)
    must('version', 'seal', 'win', store=here)
    flip(there / 'vdisks/win/1.raw', 140 * 65536 + 9)
    before = env.manifest(there, 'win')
    done = deskcast('store', 'replicate', '--from', here, '--to', there)
    why = refused(done, 'does not read back', 'verify')
    if [v['version'] for v in env.manifest(there, 'win')['versions']] != \
            [v['version'] for v in before['versions']]:
        why = why or 'it is named all the same'
    deskcast('vdisk', 'verify', 'win', store=there)
    replicate(here, there)
    v = env.versions(env.manifest(there, 'win'))[4]
    if v['parent'] or env.content(there, 'win', 4) != \
            env.content(here, 'win', 4):
        why = why or f'{v}'
    return why


def contradicting(folder):
    """Another vDisk of that name, another version of that number"""
    here, there = three(folder), target(folder)
    (folder / 'other').mkdir()
    other = three(folder / 'other')
    before = env.manifest(other, 'win')
    why = refused(deskcast('store', 'replicate', '--from', here, '--to',
                           other), 'another vDisk')
    if env.manifest(other, 'win') != before:
        why = why or 'it was changed'
    replicate(here, there)
    for store, pattern in ((here, 1), (there, 2)):
        must('version', 'new', 'win', store=store)
        write(store, 'win', 4, pattern)
        must('version', 'seal', 'win', store=store)
    before = env.manifest(there, 'win')
    why = why or refused(deskcast('store', 'replicate', '--from', here, '--to',
                                  there), 'version 4', 'another one here')
    return why or ('' if env.manifest(there, 'win') == before
                   else 'it was changed')


def gone(folder):
    """A server that is not there, is no NBD server, or goes silent"""
    here, there = three(folder), target(folder)
    why = refused(deskcast('store', 'replicate', '--from',
                           f'nbd://127.0.0.1:{free_port()}', '--to', there),
                  'Connection refused')
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]

        def greet():
            c, _ = s.accept()
            c.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n' * 10)
            c.close()
        threading.Thread(target=greet, daemon=True).start()
        why = why or refused(deskcast('store', 'replicate', '--from',
                                      f'nbd://127.0.0.1:{port}', '--to',
                                      there))
    for bad in ('nbd:', 'nbd://', 'nbd://h:1/x', 'http://h/', 'nbd+unix:///x',
                'nbd://127.0.0.1:99999'):
        why = why or refused(deskcast('store', 'replicate', '--from', bad,
                                      '--to', there))
    return why or str(list((there / 'vdisks').iterdir()) or '')


class Lister:
    """A server that takes a client, and answers "what do you export?" with
    @names and then nothing more, or that this was all."""

    def __init__(self, names, ends):
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.url = f'nbd://127.0.0.1:{self.socket.getsockname()[1]}'
        self.names, self.ends = names, ends
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        c, _ = self.socket.accept()
        c.sendall(b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
        c.recv(4, socket.MSG_WAITALL)
        while len(option := c.recv(16, socket.MSG_WAITALL)) == 16:
            _, number, length = struct.unpack('>QII', option)
            c.recv(length, socket.MSG_WAITALL)
            if number != 3:
                self.answer(c, number, 0x80000001, b'')
                continue
            for name in self.names:
                self.answer(c, number, 2, struct.pack('>I', len(name)) + name)
            if self.ends:
                self.answer(c, number, 1, b'')

    @staticmethod
    def answer(c, option, kind, data):
        c.sendall(struct.pack('>QIII', 0x3e889045565a9, option, kind,
                              len(data)) + data)


def hostile_names(folder):
    """A server with names that are none: nothing comes, and no name is shown"""
    there = target(folder)
    lister = Lister([b'../../etc@manifest', b'\x1b[31mred@manifest',
                     b'\xff\xfe@manifest', b'@manifest', b'.new-x@manifest'],
                    True)
    done = deskcast('store', 'replicate', '--from', lister.url, '--to', there,
                    '--json')
    return ('' if done.status == 0 and done.json() == {'vdisks': []}
            else str(done)) or str(list((there / 'vdisks').iterdir()) or '')


def endless_list(folder):
    """A server that never ends its list is given up after half a minute"""
    there = target(folder)
    begin = time.monotonic()
    done = deskcast('store', 'replicate', '--from',
                    Lister([b'win@manifest'], False).url, '--to', there,
                    timeout=60)
    took = time.monotonic() - begin
    return refused(done) or ('' if 25 < took < 40 else f'{took:.1f} s')


def silent(folder):
    """A server that goes silent is given up after half a minute"""
    here, there = three(folder), target(folder)
    with Server(here, folder) as server:
        server.process.signal(signal.SIGSTOP)
        begin = time.monotonic()
        done = deskcast('store', 'replicate', '--from', server.url, '--to',
                        there)
        took = time.monotonic() - begin
        server.process.signal(signal.SIGCONT)
    return refused(done) or ('' if 25 < took < 40 else f'{took:.1f} s')


def certificates(folder):
    """An authority, a server, a client, and one that the authority did not
    sign"""
    for name, signed in (('server', True), ('client', True),
                         ('stranger', False)):
        (folder / name).mkdir()
        run(need('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
            f'/CN={"authority" if signed else "nobody"}', '-keyout',
            folder / f'{signed}.key', '-out', folder / f'{signed}.pem') \
            if not (folder / f'{signed}.pem').exists() else None
        kind = 'server' if name == 'server' else 'client'
        run('openssl', 'req', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-subj', f'/CN={name}',
            '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout',
            folder / name / f'{kind}-key.pem', '-out', folder / 'request')
        run('openssl', 'x509', '-req', '-in', folder / 'request', '-CA',
            folder / f'{signed}.pem', '-CAkey', folder / f'{signed}.key',
            '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy',
            '-out', folder / name / f'{kind}-cert.pem')
        shutil.copy(folder / 'True.pem', folder / name / 'ca-cert.pem')


def tls(folder):
    """Over TLS; not as a client that the server does not know, not in clear"""
    here, there = three(folder), target(folder)
    certificates(folder)
    with Server(here, folder, tls=folder) as server:
        url = server.url.replace('nbd:', 'nbds:')
        why = first_of(*(
            refused(deskcast('store', 'replicate', '--from', address, '--to',
                             there, *argv))
            for address, argv in (
                (server.url, []), (url, []),
                (url, ['--tls-x509', folder / 'stranger']),
                (url.replace('127.0.0.1', 'localhost'),
                 ['--tls-x509', folder / 'client']))))
        if why or any((there / 'vdisks').iterdir()):
            return why or 'something was brought'
        replicate(url, there, '--tls-x509', folder / 'client')
    return same(here, there)


def two_at_once(folder):
    """Two that bring the same at once: one of them, or both one by one"""
    here, there = three(folder), target(folder)
    argv = [env.DESKCAST, 'store', 'replicate', '--from', here, '--to', there]
    both = [subprocess.Popen(argv, env=env.ENV, text=True,
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE) for _ in range(2)]
    said = [p.communicate()[1] for p in both]
    if all(p.returncode for p in both):
        replicate(here, there)
    return same(here, there) or str(env.strangers(there) or '') or \
        ('' if any(p.returncode == 0 for p in both) or
         all('meanwhile' in s or 'else' in s or 'changed' in s
             for s in said) else str(said))


def tests(tap, long):
    for test in (from_folder, from_server, traces, five_percent, cut, killed,
                 staged_damage, lying_server, damaged_base, contradicting,
                 gone, hostile_names, tls, two_at_once,
                 *([silent, endless_list] if long else [])):
        def run_(test=test):
            with env.Folder() as folder:
                return test(folder)
        tap.run(f'replicate: {" ".join(test.__doc__.split())}', run_)
