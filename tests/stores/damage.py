# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy that damages what an NBD server answers to reads.

It speaks the protocol just as far as needed to find the data: simple,
structured and extended replies. A hole that a server tells of is left alone.
"""

import collections
import random
import socket
import struct
import threading

from .link import Proxied
from .process import Missing

BLOCK = 4096
KINDS = ('flip', 'zero', 'swap', 'stale', 'short', 'error')

OPT_EXPORT_NAME, OPT_ABORT, OPT_STARTTLS, OPT_GO = 1, 2, 5, 7
REP_ACK, REP_ERROR = 1, 1 << 31
REQUEST, REQUEST_EXTENDED = 0x25609513, 0x21e41c71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668e33ef, 0x6e8a278c
CMD_READ, CMD_WRITE, CMD_DISC = 0, 1, 2
CHUNK_NONE, CHUNK_DATA, CHUNK_ERROR = 0, 1, 32769
FLAG_DONE = 1
EIO = 5


def receive(sock, length):
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        n = sock.recv_into(view[got:])
        if n == 0:
            raise EOFError
        got += n
    return bytes(data)


class Damage(Proxied):
    """For use in a with statement.

    share  of the answers that are damaged, 0 to 1; may change at any time
    kinds  of damage, of KINDS
    other  path of another image of the same size, for stale blocks
    seed   the same one damages the same answers of one connection

    count[kind] tells how often, damaged lists the last (kind, offset, length).
    """

    def __init__(self, store, share=0.0, kinds=KINDS, other=None, seed=0,
                 tcp=None):
        super().__init__(store, tcp)
        self.share = share
        self.kinds = [k for k in kinds if other or k != 'stale']
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.count = collections.Counter()
        self.damaged = collections.deque(maxlen=1000)
        self.images = {k: open(p, 'rb') for k, p in
                       (('swap', store.image), ('stale', other)) if p}

    def __enter__(self):
        self.listener = socket.socket(family_of(self.address))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(self.address)
        self.listener.listen()
        self.socks = []
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            shut(sock)
        for file in self.images.values():
            file.close()
        super().__exit__()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(family_of(self.store.address))
            for sock in (client, server):
                if sock.family == socket.AF_INET:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socks += [client, server]
            threading.Thread(target=self.connection, daemon=True,
                             args=(client, server)).start()

    def connection(self, client, server):
        try:
            server.connect(self.store.address)
            if negotiate(client, server):
                Answers(self, client, server).run()
        except (OSError, EOFError):
            pass
        finally:
            shut(client)
            shut(server)

    def choose(self, _length):
        """A kind of damage for the answer to a read that long, or None."""
        with self.lock:
            if self.random.random() >= self.share:
                return None
            return self.random.choice(self.kinds)

    def note(self, kind, offset, length):
        with self.lock:
            self.count[kind] += 1
            self.damaged.append((kind, offset, length))

    def spoil(self, kind, offset, data):
        """The data with damage of that kind, which it is told about."""
        with self.lock:
            at = self.random.randrange(len(data))
            bit = 1 << self.random.randrange(8)
            place = self.random.randrange(self.size() - BLOCK)
        block = at // BLOCK * BLOCK
        end = min(block + BLOCK, len(data))
        if kind == 'flip':
            return data[:at] + bytes([data[at] ^ bit]) + data[at + 1:]
        if kind == 'zero':
            new = bytes(end - block)
        else:
            where = offset + block if kind == 'stale' else \
                place // BLOCK * BLOCK
            with self.lock:
                self.images[kind].seek(where)
                new = self.images[kind].read(end - block)
        return data[:block] + new + data[end:]

    def size(self):
        return self.store.image.stat().st_size


def family_of(address):
    return socket.AF_UNIX if isinstance(address, str) else socket.AF_INET


def shut(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


def negotiate(client, server):
    """Carry it over option by option; True when the client has its export."""
    client.sendall(receive(server, 18))
    flags = receive(client, 4)
    server.sendall(flags)
    while True:
        head = receive(client, 16)
        option, length = struct.unpack('>8xII', head)
        server.sendall(head + receive(client, length))
        if option == OPT_STARTTLS:
            raise Missing('nothing can be damaged under TLS')
        if option == OPT_EXPORT_NAME:
            client.sendall(receive(server, 10 if flags[3] & 2 else 134))
            return True
        if final_reply(client, server) == REP_ACK and option == OPT_GO:
            return True
        if option == OPT_ABORT:
            return False


def final_reply(client, server):
    while True:
        head = receive(server, 20)
        kind, length = struct.unpack('>12xII', head)
        client.sendall(head + receive(server, length))
        if kind == REP_ACK or kind & REP_ERROR:
            return kind


class Answers:
    """A connection once it is negotiated: requests one way in a thread, answers
    the other way."""

    def __init__(self, damage, client, server):
        self.damage = damage
        self.client = client
        self.server = server
        self.reads = {}         # cookie: offset and length

    def run(self):
        threading.Thread(target=self.requests, daemon=True).start()
        while True:
            self.answer()

    def requests(self):
        try:
            while True:
                self.request()
        except (OSError, EOFError):
            shut(self.server)

    def request(self):
        head = receive(self.client, 28)
        if struct.unpack_from('>I', head)[0] == REQUEST_EXTENDED:
            head += receive(self.client, 4)
            _, kind, cookie, offset, length = struct.unpack('>4xHHQQQ', head)
        else:
            _, kind, cookie, offset, length = struct.unpack('>4xHHQQI', head)
        if kind == CMD_READ:
            self.reads[cookie] = offset, length
        body = receive(self.client, length) if kind == CMD_WRITE else b''
        self.server.sendall(head + body)

    def answer(self):
        head = receive(self.server, 16)
        magic = struct.unpack_from('>I', head)[0]
        if magic == SIMPLE:
            self.simple(head)
        elif magic == STRUCTURED:
            self.chunk(head + receive(self.server, 4), '>4xHHQI')
        elif magic == EXTENDED:
            self.chunk(head + receive(self.server, 16), '>4xHHQ8xQ')
        else:
            raise EOFError

    def simple(self, head):
        error, cookie = struct.unpack('>4xIQ', head)
        offset, length = self.reads.pop(cookie, (0, 0))
        if error or not length:
            self.client.sendall(head)
            return
        data = receive(self.server, length)
        kind = self.damage.choose(length)
        if kind == 'error':
            self.damage.note(kind, offset, length)
            self.client.sendall(struct.pack('>IIQ', SIMPLE, EIO, cookie))
        elif kind == 'short':
            # No length goes with such an answer: it ends with the connection
            self.damage.note(kind, offset, length)
            self.client.sendall(head + data[:length // 2])
            raise EOFError
        else:
            self.client.sendall(head + self.spoilt(kind, offset, data))

    def chunk(self, head, layout):
        flags, kind, cookie, length = struct.unpack(layout, head)
        body = receive(self.server, length)
        read = self.reads.get(cookie)
        if flags & FLAG_DONE:
            self.reads.pop(cookie, None)
        damage = read and kind == CHUNK_DATA and self.damage.choose(read[1])
        if damage == 'error':
            self.damage.note(damage, *read)
            body = struct.pack('>IH', EIO, 0)
            kind = CHUNK_ERROR
        elif damage == 'short':
            self.damage.note(damage, *read)
            body = body[:8 + max(1, (length - 8) // 2)]
        elif damage:
            offset = struct.unpack_from('>Q', body)[0]
            body = body[:8] + self.spoilt(damage, offset, body[8:])
        self.client.sendall(rewritten(head, kind, len(body)) + body)

    def spoilt(self, kind, offset, data):
        if not kind:
            return data
        new = self.damage.spoil(kind, offset, data)
        if new != data:
            self.damage.note(kind, offset, len(data))
        return new


def rewritten(head, kind, length):
    """The header of a chunk of another kind or length."""
    head = bytearray(head)
    struct.pack_into('>H', head, 6, kind)
    if len(head) == 20:
        struct.pack_into('>I', head, 16, length)
    else:
        struct.pack_into('>Q', head, 24, length)
    return bytes(head)


class WithStore(Damage):
    """Its store runs as long as it does."""

    def __enter__(self):
        self.store.__enter__()
        return super().__enter__()

    def __exit__(self, *args):
        super().__exit__(*args)
        self.store.__exit__(*args)
