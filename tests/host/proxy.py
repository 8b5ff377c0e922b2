# SPDX-License-Identifier: GPL-2.0-or-later
"""A way to a libvirtd that can break, or fall silent, in the middle."""

import contextlib
import select
import socket
import threading


class Proxy:
    """Listens on @path and passes on to @target. After @limit bytes from the
    client it breaks all connections, or (mute) passes nothing on any more."""

    def __init__(self, path, target, limit, mute=False):
        self.path, self.target = path, target
        self.limit, self.mute = limit, mute
        self.passed = 0
        self.fired = False
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.server.accept()
            if self.fired and not self.mute:
                client.close()
                continue
            threading.Thread(target=self.serve, args=(client,),
                             daemon=True).start()

    def serve(self, client):
        host = socket.socket(socket.AF_UNIX)
        host.connect(self.target)
        peer = {client: host, host: client}
        with contextlib.suppress(OSError):      # one of them hung up
            self.pump(client, host, peer)
        client.close()
        host.close()

    def pump(self, client, host, peer):
        while True:
            readable, _, _ = select.select([client, host], [], [], 0.05)
            if self.fired and not self.mute:
                return
            for s in readable:
                data = s.recv(65536)
                if not data:
                    return
                self.passed += len(data) if s is client else 0
                if self.passed > self.limit:
                    self.fired = True
                if not self.fired:
                    peer[s].sendall(data)
