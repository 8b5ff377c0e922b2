# SPDX-License-Identifier: GPL-2.0-or-later
"""Many desktops at once: on libvirt's own test driver, whose domains are a file,
with monitors that are the test's own. Some are mute."""

import json
import os
import shutil
import socket
import tempfile
import threading

import lab

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0},
                                "package": ""}, "capabilities": []}}


def disk(number):
    """What a disk of mcs says"""
    return {"node-name": "disk0", "driver": "mcs", "lifetime": "pooled",
            "virtual-size": 1 << 30, "layer-bytes": number,
            "image": {"filename": "/store/12.raw", "format": "raw"},
            "resets": number, "admits-clients": True}


class Crowd:
    """For use in a with statement. uri: libvirt's; mute: names of those that
    do not answer; asked: names in the order in which they were asked"""

    def __init__(self, count, mute, answer=disk):
        self.folder = tempfile.mkdtemp(prefix="dk-crowd-")
        self.names = [f"crowd{i:03}" for i in range(count)]
        self.mute = set(self.names[::max(count // max(mute, 1), 1)][:mute])
        self.answer = answer
        self.asked = []
        self.sockets = []
        self.uri = f"test://{self.folder}/host.xml"

    def element(self, name):
        return (f'<deskcast:desktop xmlns:deskcast="{lab.NAMESPACE}" '
                'format="1" catalog="office" vdisk="win11" model="mcs" '
                'lifetime="pooled" run="in-process">'
                '<deskcast:disk path="/vdi/disk" node="disk0"/>'
                f'<deskcast:monitor path="{self.folder}/{name}"/>'
                '<deskcast:wanted number="12" size="1048576" '
                'image="/store/12.raw" format="raw"/></deskcast:desktop>')

    def domain(self, name):
        return (f"<domain type='test'><name>{name}</name><memory>1024</memory>"
                f"<metadata>{self.element(name)}</metadata>"
                "<os><type>hvm</type></os></domain>")

    def __enter__(self):
        with open(f"{self.folder}/host.xml", "w", encoding="utf-8") as f:
            f.write("<node>" + "".join(map(self.domain, self.names)) +
                    "</node>")
        for name in self.names:
            s = socket.socket(socket.AF_UNIX)
            s.bind(os.path.join(self.folder, name))
            s.listen(8)
            self.sockets.append(s)
            threading.Thread(target=self.serve, args=(name, s),
                             daemon=True).start()
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            s.shutdown(socket.SHUT_RDWR)
            s.close()
        shutil.rmtree(self.folder)

    def serve(self, name, server):
        """One client after the other, as a monitor does"""
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            self.asked.append(name)
            with client, client.makefile("rw") as lines:
                try:
                    self.talk(name, lines)
                except OSError:
                    pass

    def talk(self, name, lines):
        if name in self.mute:
            lines.read()
            return
        print(json.dumps(GREETING), file=lines, flush=True)
        for line in lines:
            request = json.loads(line)
            said = {} if request["execute"] == "qmp_capabilities" else \
                [self.answer(self.names.index(name))]
            print(json.dumps({"return": said, "id": request["id"]}),
                  file=lines, flush=True)
