#!/usr/bin/env python3
#
# For tests of NBD: qemu-io and a client that takes single steps, and servers
# that misbehave when told
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import socket
import struct
import subprocess
import threading
import time

import iotests

NBDMAGIC = 0x4e42444d41474943
OPTION_MAGIC = 0x49484156454f5054
REPLY_MAGIC = 0x3e889045565a9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668e33ef
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_DONE = 0, 1, 2, 1

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 1, 2, 3, 6, 7
OPT_STRUCTURED, OPT_LIST_META, OPT_SET_META = 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
REP_ERR_UNSUP = 0x80000001
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3

FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_FLUSH, FLAG_FUA = 1, 2, 4, 8
FLAG_MULTI_CONN = 256

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH = 0, 1, 2, 3
CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 6, 7

MIB = 1024 * 1024

# At most for what is expected to happen
SOON = 4.0


class Client:
    """qemu-io on an NBD node; commands are started and waited for apart"""

    def __init__(self, address, *args, wait=True, **options):
        if isinstance(address, str):
            server = ['server.type=unix', f'server.path={address}']
        else:
            server = ['server.type=inet', f'server.host={address[0]}',
                      f'server.port={address[1]}']
        opts = ','.join(['driver=nbd'] + server +
                        [f'{k.replace("_", "-")}={v}'
                         for k, v in options.items()])
        self.proc = subprocess.Popen(
            iotests.qemu_io_args_no_fmt + [*args, '--image-opts', opts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, bufsize=0)
        os.set_blocking(self.proc.stdout.fileno(), False)
        self.output = ''
        if wait:
            assert self.wait() is not None

    def start(self, command):
        self.output = ''
        self.proc.stdin.write(f'{command}\n'.encode())

    def wait(self, seconds=SOON):
        """The output once the command has ended, or None if it does not"""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.output += (self.proc.stdout.read() or b'').decode()
            if 'qemu-io> ' in self.output:
                return self.output
            if self.proc.poll() is not None:
                return self.output + (self.proc.stdout.read() or b'').decode()
            time.sleep(0.01)
        return None

    def run(self, command, seconds=SOON):
        self.start(command)
        return self.wait(seconds)

    def retry(self, command, text):
        """Does command, repeated for a while, get text for an answer?"""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            if text in (self.run(command) or ''):
                return True
            time.sleep(0.1)
        return False

    def close(self):
        """The exit status, which tells about errors of any command"""
        self.proc.stdin.close()
        try:
            return self.proc.wait(SOON)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise
        finally:
            self.proc.stdout.close()


def receive(sock, length):
    data = bytearray()
    while len(data) < length:
        chunk = sock.recv(length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


class Peer:
    """A client on a Unix socket that does what it is told, step by step"""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SOON)
        self.sock.connect(address)
        receive(self.sock, 18)
        # fixed newstyle, no zeroes
        self.sock.sendall(struct.pack('>I', 3))

    def send_option(self, opt, data=b''):
        self.sock.sendall(struct.pack('>QII', OPTION_MAGIC, opt, len(data)) +
                          data)

    def option(self, opt, data=b''):
        """The replies, each as its type and its data"""
        self.send_option(opt, data)
        replies = []
        while not replies or replies[-1][0] in (REP_SERVER, REP_INFO,
                                                REP_META):
            _, _, kind, length = struct.unpack('>QIII', receive(self.sock, 20))
            replies.append((kind, bytes(receive(self.sock, length))))
        return replies

    @staticmethod
    def string(text):
        return struct.pack('>I', len(text)) + text.encode()

    def choose(self, export, opt=OPT_GO):
        """INFO or GO. The flags of the export, or the error message"""
        replies = self.option(opt, self.string(export) +
                              struct.pack('>HH', 1, INFO_BLOCK_SIZE))
        if replies[-1][0] != REP_ACK:
            return replies[-1][1].decode()
        return [struct.unpack('>HQH', data)[2] for kind, data in replies
                if kind == REP_INFO and data[:2] == b'\0\0'][0]

    def contexts(self, export, *queries, opt=OPT_SET_META):
        """The metadata contexts that the server agrees to, and their ids"""
        replies = self.option(opt, self.string(export) +
                              struct.pack('>I', len(queries)) +
                              b''.join(map(self.string, queries)))
        return {data[4:].decode(): struct.unpack('>I', data[:4])[0]
                for kind, data in replies if kind == REP_META}

    def request(self, kind, offset=0, length=0, data=b''):
        self.sock.sendall(struct.pack('>IHHQQI', REQUEST_MAGIC, 0, kind, kind,
                                      offset, length or len(data)) + data)

    def answer(self, length=0):
        """Which type of request was answered, without structured replies"""
        magic, error, cookie = struct.unpack('>IIQ', receive(self.sock, 16))
        assert magic == SIMPLE_REPLY_MAGIC and error == 0
        receive(self.sock, length)
        return cookie

    def alive(self):
        try:
            self.request(CMD_READ, 0, 512)
            return self.answer(512) == CMD_READ
        except (OSError, EOFError):
            return False

    def close(self):
        self.sock.close()


class NbdMock:
    """
    A server on a Unix socket (address is a path) or on TCP (address is a host
    and a port, 0 for any), in a thread for each connection.

    These may change at any time; size, flags and block_sizes are told to those
    who connect from then on:

    mode         'serve'
                 'hang'     negotiate, and answer no request
                 'garbage'  negotiate, and answer requests with nonsense
                 'cookie'   the same, but it looks like an answer
                 'hold'     answer writes when told: see release()
                 'early'    answer a write before its data comes, and then take
                            no more; answer no other request
                 'mute'     accept, and say nothing
                 'noise'    accept, and talk nonsense
    size         of the export, in bytes
    flags        of the export
    block_sizes  minimum, preferred and maximum, or None to tell none
    delay        seconds until a request is answered
    chunks       None, or for structured replies to reads: a list of (type,
                 offset in the answer, bytes), after which comes the end

    accepted, negotiated count connections, and requests is a list of the
    types of requests.
    """

    def __init__(self, address, size=MIB, flags=FLAG_FLUSH, mode='serve'):
        self.address = address
        self.size = size
        self.flags = flags
        self.mode = mode
        self.block_sizes = None
        self.delay = 0
        self.chunks = None
        self.accepted = 0
        self.negotiated = 0
        self.requests = []
        self.held = []
        self.data = bytearray(size)
        self.listener = None
        self.sockets = []
        self.start()

    def start(self):
        if isinstance(self.address, str):
            self.listener = socket.socket(socket.AF_UNIX)
        else:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(self.address)
        self.address = self.listener.getsockname()
        self.listener.listen()
        threading.Thread(target=self._accept, args=(self.listener,),
                         daemon=True).start()

    def stop(self):
        """Die: nobody listens, and all connections are closed"""
        if self.listener:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
            if isinstance(self.address, str):
                os.remove(self.address)
        self.disconnect()

    def disconnect(self):
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.sockets = []

    def release(self):
        """Send the oldest answer that is held"""
        sock, answer = self.held.pop(0)
        sock.sendall(answer)

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.sockets.append(sock)
            threading.Thread(target=self._connection, args=(sock,),
                             daemon=True).start()

    def _connection(self, sock):
        try:
            if self.mode == 'mute':
                while sock.recv(4096):
                    pass
            elif self.mode == 'noise':
                sock.sendall(b'220 mail.example.org ESMTP\r\n' * 100)
            elif self._negotiate(sock):
                self.negotiated += 1
                while self._request(sock):
                    pass
        except (OSError, EOFError):
            pass
        sock.close()

    def _negotiate(self, sock):
        """True if the client has chosen the export"""
        # fixed newstyle, no zeroes
        sock.sendall(struct.pack('>QQH', NBDMAGIC, OPTION_MAGIC, 3))
        receive(sock, 4)
        flags = self.flags | FLAG_HAS_FLAGS

        def reply(kind, data=b''):
            sock.sendall(struct.pack('>QIII', REPLY_MAGIC, opt, kind,
                                     len(data)) + data)

        while True:
            _, opt, length = struct.unpack('>QII', receive(sock, 16))
            receive(sock, length)
            if opt == OPT_EXPORT_NAME:
                sock.sendall(struct.pack('>QH', self.size, flags))
                return True
            if opt == OPT_GO:
                reply(REP_INFO, struct.pack('>HQH', INFO_EXPORT, self.size,
                                            flags))
                if self.block_sizes:
                    reply(REP_INFO, struct.pack('>HIII', INFO_BLOCK_SIZE,
                                                *self.block_sizes))
                reply(REP_ACK)
                return True
            if opt == OPT_ABORT:
                reply(REP_ACK)
                return False
            if opt == OPT_STRUCTURED and self.chunks is not None:
                reply(REP_ACK)
            else:
                reply(REP_ERR_UNSUP)

    def _chunks(self, sock, cookie, offset):
        """The answer to a read, as told"""
        def send(flags, kind, data=b''):
            sock.sendall(struct.pack('>IHHQI', STRUCTURED_REPLY_MAGIC, flags,
                                     kind, cookie, len(data)) + data)

        for kind, start, length in self.chunks:
            at = offset + start
            data = struct.pack('>I', length) if kind == CHUNK_HOLE else \
                self.data[at:at + length]
            send(0, kind, struct.pack('>Q', at) + data)
        send(CHUNK_DONE, CHUNK_NONE)

    def _request(self, sock):
        """False if it was the last"""
        _, _, kind, cookie, offset, length = struct.unpack(
            '>IHHQQI', receive(sock, 28))
        if self.mode == 'early' and kind == CMD_WRITE:
            sock.sendall(struct.pack('>IIQ', SIMPLE_REPLY_MAGIC, 0, cookie))
            self.requests.append(kind)
            while self.mode == 'early':
                time.sleep(0.01)
            return False
        data = receive(sock, length) if kind == CMD_WRITE else b''
        mode = self.mode
        self.requests.append(kind)
        if kind == CMD_DISC:
            return False
        if mode in ('hang', 'early'):
            return True
        if mode == 'garbage':
            sock.sendall(b'\xa5' * 64)
            return True
        if mode == 'cookie':
            cookie += 1 << 40

        time.sleep(self.delay)
        if kind == CMD_WRITE:
            self.data[offset:offset + length] = data
        if kind == CMD_READ and self.chunks is not None:
            self._chunks(sock, cookie, offset)
            return True
        answer = struct.pack('>IIQ', SIMPLE_REPLY_MAGIC, 0, cookie)
        if mode == 'hold' and kind == CMD_WRITE:
            self.held.append((sock, answer))
            return True
        sock.sendall(answer)
        if kind == CMD_READ:
            sock.sendall(self.data[offset:offset + length])
        return True


class BlackHole:
    """
    A socket that answers nobody: who connects is left waiting, as by a host
    that is switched off or behind a firewall
    """

    def __init__(self, address=('127.0.0.1', 0)):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen(0)
        self.address = self.listener.getsockname()
        # Fill the backlog; Linux drops what comes after that.
        self.fill = []
        while True:
            sock = socket.socket(family)
            sock.settimeout(0.2)
            self.fill.append(sock)
            try:
                sock.connect(self.address)
            except (socket.timeout, BlockingIOError):
                return

    def stop(self):
        for sock in self.fill + [self.listener]:
            sock.close()
        if isinstance(self.address, str):
            os.remove(self.address)
