# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with desktops of every kind, whose disks are real.

A domain on the test's own libvirtd stands for each. The disk of an mcs desktop
is in its QEMU; those of streamed ones are in storage daemons, as behind
vhost-user, with two stores that can be killed. One does not answer at all.
"""

import contextlib
import os
import pathlib

import lab
from stores.nbd import StorageDaemon, VolatileStorageDaemon, server_options
from stores.node import Node
from stores.process import run
from stores.reader import Connection

MIB = 1 << 20
SIZE = 4 * MIB


class Streamed(Node):
    """A pooled desktop's disk of two stores, with a monitor at a path"""

    def __init__(self, monitor, options):
        super().__init__(options)
        self.monitor += ("--chardev", f"socket,id=ours,path={monitor},"
                         "server=on,wait=off", "--monitor", "chardev=ours")

    def add(self):
        self.qmp.command("blockdev-add", **self.options)
        if self.options.get("mode") != "private":
            self.qmp.command("vdisk-reset", **{"node-name": "disk"})
        self.qmp.command("block-export-add", type="nbd", id="e", writable=True,
                         **{"node-name": "disk"})

    @contextlib.contextmanager
    def client(self):
        c = Connection(self.path, timeout=60)
        try:
            yield c
        finally:
            c.close()


class Office(lab.Lab):
    """names: mcs1, pvs1 and priv1 run and answer; off1 is off, and so is mute1,
    which does not answer when it runs."""

    def __init__(self):
        super().__init__()
        self.make_store("win11", {12: "production", 13: "production"})
        self.kvm1 = self.host("kvm1")
        self.uri = self.kvm1.uri
        self.things = contextlib.ExitStack()
        path = pathlib.Path(self.folder)
        self.image = path / "pvs.raw"
        self.image.write_bytes(os.urandom(SIZE))
        self.private = path / "private.raw"
        self.private.write_bytes(bytes(SIZE + 4096))

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *args):
        self.things.close()
        super().__exit__(*args)

    def monitor(self, name):
        return os.path.join(self.folder, name + ".qmp")

    def element(self, name, model, lifetime="pooled", version=12):
        disk = {"mcs": self.disk(name), "pvs": f"{self.folder}/{name}.pvs"}
        journal = (f'<deskcast:journal path="{self.folder}/{name}.buffer"/>'
                   if lifetime == "private" else "")
        wanted = (f'image="{self.image_path(version)}" format="raw" size="{MIB}"'
                  if model == "mcs" else f'size="{SIZE}"')
        sources = ('<deskcast:source uri="nbd+unix:///?socket=/run/none"/>'
                   if model == "pvs" else "")
        return (f'<deskcast:desktop xmlns:deskcast="{lab.NAMESPACE}" '
                f'format="1" catalog="office" vdisk="win11" model="{model}" '
                f'lifetime="{lifetime}" '
                f'run="{"in-process" if model == "mcs" else "vhost-user"}">'
                f'<deskcast:disk path="{disk[model]}" '
                f'node="{"disk0" if model == "mcs" else "disk"}"/>'
                f'{journal}'
                f'<deskcast:monitor path="{self.monitor(name)}"/>{sources}'
                f'<deskcast:wanted number="{version}" {wanted}/>'
                f'</deskcast:desktop>')

    def image_path(self, version):
        return lab.Lab.image(self, "win11", version)

    def define(self, name, *element, disk=None, monitor=False, **more):
        xml = lab.domain(name, self.element(name, *element, **more), disk)
        if monitor:
            args = ["-chardev", f"socket,id=ours,path={self.monitor(name)},"
                    "server=on,wait=off", "-mon", "chardev=ours,mode=control"]
            xml = xml.replace("</qemu:commandline>", "".join(
                f"<qemu:arg value='{a}'/>" for a in args) +
                "</qemu:commandline>")
        if name == "pvs1":
            xml = xml.replace("</devices>", "<channel type='unix'><source "
                              f"mode='bind' path='{self.folder}/pvs1.ga'/>"
                              "<target type='virtio' "
                              "name='org.qemu.guest_agent.0'/></channel>"
                              "</devices>")
        self.kvm1.define(name, xml)

    def begin(self):
        self.make_disk("mcs1", self.image_path(12))
        self.define("mcs1", "mcs", disk=self.disk("mcs1"), monitor=True,
                    version=13)
        self.define("pvs1", "pvs")
        self.define("priv1", "pvs", "private")
        self.define("mute1", "mcs")
        self.define("off1", "mcs")
        self.kvm1.define("master", lab.domain("master",
                                              self.catalog_element()))
        self.kvm1.start()
        self.start_disks()
        for name in ("mcs1", "pvs1", "priv1", "master"):
            self.kvm1.virsh("start", name)

    def start_disks(self):
        enter = self.things.enter_context
        enter(lab.mute_socket(self.monitor("mute1")))
        self.stores = [enter(StorageDaemon(self.image)) for _ in range(2)]
        self.store = enter(VolatileStorageDaemon(self.private, exclusive=True))
        self.pvs1 = enter(Streamed(self.monitor("pvs1"), self.streamed()))
        self.priv1 = enter(Streamed(self.monitor("priv1"), self.writing()))

    def streamed(self):
        layer = f"{self.folder}/pvs1.pvs"
        run(lab.QEMU_IMG, "create", "-q", "-f", "pvs", "-o",
            "role=cache,vdisk=win11,version=12", layer, SIZE)
        return {"driver": "pvs", "read-only": False,
                "stores": [s.options() for s in self.stores],
                "file": {"driver": "file", "filename": layer},
                "request-timeout": 500, "probe-interval": 50}

    def writing(self):
        files = {role: f"{self.folder}/priv1.{end}" for role, end in
                 (("copy", "pvs"), ("journal", "buffer"))}
        for role, path in files.items():
            run(lab.QEMU_IMG, "create", "-q", "-f", "pvs", "-o",
                f"role={role},vdisk=win11,version=12", path,
                SIZE if role == "copy" else 16 * MIB)
        return {"driver": "pvs", "mode": "private", "read-only": False,
                "file": {"driver": "file", "filename": files["copy"]},
                "journal": {"driver": "file", "filename": files["journal"]},
                "stores": [{"driver": "nbd", "export": "disk",
                            "server": server_options(self.store.address)}],
                "request-timeout": 500, "probe-interval": 50}
