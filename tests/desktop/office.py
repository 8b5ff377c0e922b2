# SPDX-License-Identifier: GPL-2.0-or-later
"""A store with a vDisk, and a master VM with a catalog of it."""

import json
import pathlib
import uuid

import host as hosts

MASTER = """<domain type='{type}'>
  <name>{name}</name>
  <metadata><x:other xmlns:x='urn:example'>kept</x:other></metadata>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <os{firmware_attribute}><type arch='x86_64' machine='q35'>hvm</type>{firmware}<boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>
    <serial type='file'><source path='{folder}/{name}.console'/></serial>
    <console type='file'><source path='{folder}/{name}.console'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='virtio'/>{devices}
  </devices>
</domain>
"""
TIME = "2026-01-01T00:00:00Z"


class Store:
    """A store made by hand, as docs/interop/store.rst has it."""

    def __init__(self, folder, vdisk):
        self.folder = pathlib.Path(folder)
        self.vdisk = self.folder / "vdisks" / vdisk
        self.vdisk.mkdir(parents=True)
        for above in (self.folder, self.vdisk.parent, self.vdisk):
            above.chmod(0o755)
        (self.folder / "store.json").write_text(json.dumps(
            {"deskcast-store": 1, "uuid": str(uuid.uuid4()), "images": {"type": "file"}}))
        self.manifest = {"deskcast-manifest": 1, "vdisk": vdisk, "uuid": str(uuid.uuid4()),
                         "salt": "00", "revision": 0, "next": 1, "unused": [], "versions": []}

    def add(self, image, size, form, access="production", label=False,
            root="11" * 32):
        """The image has the name of its version already."""
        number = self.manifest["next"]
        self.manifest["next"] += 1
        self.manifest["revision"] += 1
        version = {"version": number, "access": access, "size": size, "label": label,
                   "parent": number - 1 if form == "qcow2" else 0, "image": image,
                   "format": form, "created": TIME}
        if access != "maintenance":
            # mcs does not look at the root
            version |= {"tree": f"{number}.tree", "root": root, "sealed": TIME}
        self.manifest["versions"].append(version)
        (self.vdisk / "manifest.json").write_text(json.dumps(self.manifest))
        return number


def master_xml(name, accel, disk, folder, emulator="/usr/bin/qemu-system-x86_64", **more):
    fields = {"firmware": "", "firmware_attribute": "", "devices": "", **more}
    cpu = "<cpu mode='host-passthrough'/>" if accel == "kvm" else "<cpu mode='maximum'/>"
    return MASTER.format(type="kvm" if accel == "kvm" else "qemu", name=name, cpu=cpu,
                         disk=disk, folder=folder, emulator=emulator, **fields)


def catalog_xml(name, vdisk, store, folder, model="mcs", lifetime="pooled", run="in-process",
                content=""):
    return (f"<catalog format='1' name='{name}' vdisk='{vdisk}' model='{model}' "
            f"lifetime='{lifetime}' run='{run}'><store path='{store}'/>"
            f"<folder path='{folder}'/>{content}</catalog>")


def make_catalog(host, master, catalog):
    """A master VM with a catalog; both as XML."""
    host.define(master)
    name = master.split("<name>")[1].split("<")[0]
    host.set_metadata(name, catalog)
    return name


def validate(text, schema, folder):
    """What is wrong with the XML, or nothing."""
    file = pathlib.Path(folder) / "validate.xml"
    file.write_text(text)
    if schema == "domain":
        done = hosts.run("virt-xml-validate", file, "domain", check=False)
    else:
        done = hosts.run("xmllint", "--noout", "--relaxng", schema, file, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
