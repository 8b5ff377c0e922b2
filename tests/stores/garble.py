# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy that garbles what an NBD server says: its greeting, its replies to
options, and headers and chunks of its answers.

damage.py changes what is read, and leaves the protocol as it is; here each message
as a whole may be changed, longer or shorter than it says, left out, said twice,
too late, or joined by another one that nobody asked for.
"""

import collections
import random
import struct
import threading

from .damage import EXTENDED, SIMPLE, STRUCTURED, Damage, receive, shut

REPLY = 0x3e889
GREETING_BYTES = 18
OPTION_REPLY = struct.Struct('>QIII')

# Where fields are: their offset and their bytes
FIELDS = {
    'greeting': ((0, 8), (8, 8), (16, 2)),
    'option': ((0, 8), (8, 4), (12, 4), (16, 4)),
    'simple': ((0, 4), (4, 4), (8, 8)),
    'structured': ((0, 4), (4, 2), (6, 2), (8, 8), (16, 4)),
    'extended': ((0, 4), (4, 2), (6, 2), (8, 8), (16, 8), (24, 8)),
}
HEAD = {'greeting': 18, 'option': 20, 'simple': 16, 'structured': 20,
        'extended': 32}
# What is near a limit of somebody's
VALUES = (0, 1, 2, 3, 7, 0xff, 511, 512, 4095, 4096, 0x7fff, 0x8000, 0xffff,
          (1 << 25) + 1, 0x7fffffff, 1 << 31, (1 << 32) - 1, (1 << 63) - 1,
          1 << 63, (1 << 64) - 1)
# Replies to options, and chunks: those there are, and some there are not
OPTION_TYPES = (1, 2, 3, 4, 5, 0x80000001, 0x80000003, 0x80000006, 0x8000ffff)
CHUNK_TYPES = (0, 1, 2, 5, 6, 7, 0x8001, 0x8002, 0x9000)
MOST_BODY = 32 << 20


class Garble(Damage):
    """For use in a with statement.

    share  of the messages that are garbled, 0 to 1; may change at any time
    seed   of what is done with which message

    count[phase, kind] tells how often; phase is one of FIELDS, kind one of the
    methods below.
    """

    def __init__(self, store, share=0.1, seed=0, tcp=None):
        super().__init__(store, share, seed=seed, tcp=tcp)
        self.connections = 0

    def __exit__(self, *rest):
        self.share = 0
        super().__exit__(*rest)

    def total(self):
        with self.lock:
            return sum(self.count.values())

    def phases(self):
        found = collections.Counter()
        with self.lock:
            for (phase, _), times in self.count.items():
                found[phase] += times
        return found

    def connection(self, client, server):
        with self.lock:
            self.connections += 1
            rng = random.Random(self.random.random())
        try:
            server.connect(self.store.address)
            threading.Thread(target=pump, args=(client, server),
                             daemon=True).start()
            Voice(self, client, server, rng).run()
        except (OSError, EOFError, ValueError):
            pass
        finally:
            shut(client)
            shut(server)


def pump(client, server):
    """What a client says goes on as it is."""
    try:
        while data := client.recv(1 << 16):
            server.sendall(data)
    except OSError:
        pass
    shut(server)


class Voice:
    """What a server says on one connection."""

    def __init__(self, garble, client, server, rng):
        self.garble = garble
        self.client = client
        self.server = server
        self.rng = rng
        self.kept = b''         # is said behind the next message
        self.ending = False
        self.kinds = (self.field, self.near, self.body, self.longer,
                      self.shorter, self.twice, self.nothing, self.late,
                      self.foreign, self.half, self.bits)

    def run(self):
        self.say('greeting', receive(self.server, GREETING_BYTES))
        while True:
            phase, message = self.message()
            self.say(phase, message)

    def message(self):
        """The next one, whole."""
        start = receive(self.server, 4)
        magic, = struct.unpack('>I', start)
        if magic == REPLY:
            return self.sized('option', start, '>I')
        if magic == STRUCTURED:
            return self.sized('structured', start, '>I')
        if magic == EXTENDED:
            return self.sized('extended', start, '>Q')
        if magic == SIMPLE:
            return 'simple', start + receive(self.server, 12)
        # Data, of which nothing tells the length: all that comes is passed on
        self.client.sendall(start)
        while True:
            data = self.server.recv(1 << 16)
            if not data:
                raise EOFError
            self.client.sendall(data)

    def sized(self, phase, start, layout):
        head = start + receive(self.server, HEAD[phase] - 4)
        length, = struct.unpack_from(layout, head,
                                     HEAD[phase] - struct.calcsize(layout))
        if length > MOST_BODY:
            raise EOFError
        return phase, head + receive(self.server, length)

    def say(self, phase, message):
        kept, self.kept = self.kept, b''
        if self.rng.random() < self.garble.share:
            kind = self.rng.choice(self.kinds)
            with self.garble.lock:
                self.garble.count[phase, kind.__name__] += 1
            message = kind(phase, message)
        self.client.sendall(message + kept)
        if self.ending:
            raise EOFError

    # What may happen to a message

    def field(self, phase, message):
        """Another value in a field of its header"""
        return self.put(message, *self.rng.choice(FIELDS[phase]),
                        self.rng.choice(VALUES + (self.rng.getrandbits(64),)))

    def near(self, phase, message):
        """A little more or less in a field of its header"""
        return self.shift(message, *self.rng.choice(FIELDS[phase]))

    def body(self, phase, message):
        """Another value in what follows its header"""
        size = self.rng.choice((1, 2, 4, 8))
        room = min(len(message) - HEAD[phase], 64) - size
        if room < 0:
            return self.field(phase, message)
        at = HEAD[phase] + self.rng.randrange(room + 1)
        if self.rng.random() < 0.5:
            return self.shift(message, at, size)
        return self.put(message, at, size, self.rng.choice(VALUES))

    def longer(self, phase, message):
        """Longer, as it says itself"""
        return self.resized(phase, message +
                            self.rng.randbytes(self.rng.randrange(1, 2000)))

    def shorter(self, phase, message):
        """Shorter, as it says itself"""
        end = HEAD[phase] + self.rng.randrange(
            max(1, len(message) - HEAD[phase]))
        return self.resized(phase, message[:end])

    def twice(self, _phase, message):
        return message + message

    def nothing(self, _phase, _message):
        return b''

    def late(self, _phase, message):
        """Behind the next one"""
        self.kept = message
        return b''

    def foreign(self, phase, message):
        """Another one before it, which nobody asked for"""
        data = self.rng.randbytes(self.rng.choice((0, 1, 2, 4, 6, 8, 12, 14,
                                                   16, 20, 100, 1001)))
        if phase == 'greeting':
            return data + message
        if phase == 'option':
            option, = struct.unpack_from('>I', message, 8)
            other = OPTION_REPLY.pack(0x3e889045565a9, option,
                                      self.rng.choice(OPTION_TYPES), len(data))
        else:
            cookie, = struct.unpack_from('>Q', message, 8)
            kind = (self.rng.choice((0, 0, 1)), self.rng.choice(CHUNK_TYPES))
            other = struct.pack('>IHHQI', STRUCTURED, *kind, cookie, len(data))
            if phase == 'extended':
                other = struct.pack('>IHHQQQ', EXTENDED, *kind, cookie, 0,
                                    len(data))
        return other + data + message

    def half(self, _phase, message):
        """The connection ends in it"""
        self.ending = True
        return message[:self.rng.randrange(len(message))]

    def bits(self, phase, message):
        end = min(len(message), HEAD[phase] + 32)
        changed = bytearray(message)
        for _ in range(self.rng.randrange(1, 9)):
            changed[self.rng.randrange(end)] ^= 1 << self.rng.randrange(8)
        return bytes(changed)

    # Their means

    @staticmethod
    def put(message, at, size, value):
        changed = bytearray(message)
        changed[at:at + size] = (value % (1 << 8 * size)).to_bytes(size, 'big')
        return bytes(changed)

    def shift(self, message, at, size):
        value = int.from_bytes(message[at:at + size], 'big')
        return self.put(message, at, size,
                        value + self.rng.choice((-4096, -8, -1, 1, 8, 4096)))

    @staticmethod
    def resized(phase, message):
        if phase in ('greeting', 'simple'):
            return message
        at, size = FIELDS[phase][-1]
        return Voice.put(message, at, size, len(message) - HEAD[phase])
