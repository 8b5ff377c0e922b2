# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions to the hosts' own stores, from a server that asks who comes."""

import json
import os
import shutil
import subprocess
import sys

import lab
from lab import check, deskcast, until
from updates import Site

sys.path.insert(0, os.path.join(lab.TOP, "tests"))
from serve import tls                               # noqa: E402
from stores.process import free_port                # noqa: E402
from stores.terminal import errors_on_terminal      # noqa: E402

NAME = "O=Example,CN=host1"
# As the host has them: in a mount namespace, with its own /etc/deskcast
INSIDE = """mkdir -p /etc/deskcast && mount -t tmpfs etc /etc/deskcast &&
cp -r "$1" /etc/deskcast/tls && shift && exec "$@" """


class Served(Site):
    """Two hosts with stores of their own, and a server that lets one name in"""

    def create(self):
        self.begin()
        self.run("catalog", "create", "office", "--master", "master", "--vdisk",
                 "deb", "--model", "mcs", "--store", self.store, "--folder",
                 self.path("desktops")).expect(0)
        self.far = self.far_end()
        self.stores = [self.path("own-store"), self.path("far-store")]
        with open(self.hosts_file, "w", encoding="utf-8") as f:
            f.write(f"[kvm1]\nuri={self.kvm1.uri}\nstore={self.stores[0]}\n"
                    "[far]\nuri=qemu+ssh://user@nosuch/system\n"
                    f"store={self.stores[1]}\n")
        self.server = None

    def serve(self, *options, shown=()):
        """Until all is served to whom that is shown"""
        self.stop_server()
        port = free_port()
        self.url = f"nbds://localhost:{port}"
        with open(self.path("serve.log"), "ab") as log:
            self.server = subprocess.Popen(
                [lab.DESKCAST, "store", "serve", "--store", self.store,
                 "--listen", f"localhost:{port}", *map(str, options)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "DESKCAST_QSD": lab.QSD})
        until("the server", lambda: deskcast(
            "store", "status", "--store", self.store, "--server", self.url,
            *map(str, shown)).status == 0)

    def stop_server(self):
        if self.server:
            self.server.terminate()
            self.server.wait()

    def __exit__(self, *args):
        self.stop_server()
        super().__exit__(*args)

    def empty_stores(self):
        for store in self.stores:
            shutil.rmtree(store, ignore_errors=True)
            deskcast("store", "create", store).expect(0)

    def words(self, *options):
        return ["stage", "office", "--from", self.url, *map(str, options)]

    def stage(self, *options):
        return self.run(*self.words(*options), **self.far)

    def both_have_it(self):
        for store in self.stores:
            target = self.path("staged.raw")
            deskcast("vdisk", "export", "deb", "1", target, "--store",
                     store).expect(0)
            with open(target, "rb") as f:
                check(f.read() == self.content, store, "has other content")
            os.unlink(target)

    def none_has_it(self):
        for store in self.stores:
            check(not os.listdir(os.path.join(store, "vdisks")), store)


def certificates(o):
    ca = tls.Authority()
    right = ca.folder("client", "/O=Example/CN=host1")
    wrong = ca.folder("client", "/O=Example/CN=host2")

    def by_option():
        """stage: with a certificate from a server that asks for one, here and by ssh"""
        o.create()
        o.serve("--tls-x509", ca.folder("server", "/CN=localhost",
                                        "DNS:localhost"), "--authorise", NAME,
                shown=("--tls-x509", right))
        o.empty_stores()
        for options in ((), ("--tls-x509", wrong)):
            said = o.stage(*options, "--json").expect(1).json()
            check([h["failed"] for h in said["hosts"]] == [True] * 2, said)
        o.none_has_it()
        o.stage("--tls-x509", right).expect(0)
        o.both_have_it()

    def by_default():
        """stage: with the certificate of /etc/deskcast/tls, if nothing is said"""
        for folder, status in ((wrong, 1), (right, 0)):
            o.empty_stores()
            done = subprocess.run(
                ["unshare", "-m", "sh", "-c", INSIDE, "sh", str(folder),
                 lab.DESKCAST, *o.words("--hosts", o.hosts_file)],
                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=120, check=False,
                env={**os.environ, **o.far, "DESKCAST_QSD": lab.QSD,
                     "DESKCAST_QEMU_IMG": lab.QEMU_IMG})
            check(done.returncode == status, done.stdout, done.stderr)
            (o.none_has_it if status else o.both_have_it)()

    def by_key():
        """stage: with a key"""
        keys = tls.keys({"host1": os.urandom(32).hex()})
        shown = ("--tls-psk", keys / "keys.psk", "--tls-user", "host1")
        o.serve("--tls-psk", keys, shown=shown)
        o.empty_stores()
        o.stage(*shown).expect(0)
        o.both_have_it()

    return [by_option, by_default, by_key]


def progress(o):
    def lines():
        """stage: each host's progress is told; by whole lines, or in one of a terminal"""
        words = ("stage", "office", "--from", o.store)
        o.empty_stores()
        said = o.run(*words, **o.far).expect(0).err
        for host in ("kvm1", "far"):
            check(f"{host}: bringing deb version 1: 100%" in said, said)
        check("hosts: 100% (2 of 2)\n" in said, said)
        check("\r" not in said and "\033" not in said, repr(said))
        o.empty_stores()
        env = {**os.environ, **o.far, "DESKCAST_QEMU_IMG": lab.QEMU_IMG}
        status, said = errors_on_terminal(
            [lab.DESKCAST, *words, "--hosts", o.hosts_file], env)
        check(status == 0, said)
        check("\rhosts [" in said.replace("\033[?7l", ""), repr(said))
        check("% (2 of 2)" in said and said.count("\n") == 1 and
              said.endswith("\n"), repr(said))
        o.both_have_it()
        o.empty_stores()
        result = o.run(*words, "--json", **o.far).expect(0)
        check(result.err == "", result.err)
        hosts = json.loads(result.out)["hosts"]
        check([h["note"] for h in hosts] == ["has all versions"] * 2, hosts)

    return [lines]


def main():
    with Served() as o:
        return lab.run_tests(certificates(o) + progress(o))
