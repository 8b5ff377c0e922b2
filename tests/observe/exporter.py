# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast exporter: what it says of real disks, to whom, and how soon."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import lab
from crowd import Crowd
from desktops import MIB, SIZE, Office
from lab import check, until
from scrape import Exporter, Metrics, get, once, promtool, request

UNIT = pathlib.Path(lab.TOP, "packaging/systemd/deskcast-exporter.service")
# Of a desktop that does not answer, s
PATIENCE = 4


def real_disks(o):
    def test():
        """metrics of an mcs, a streamed and a private disk"""
        m = once(o)
        check(m.get("libvirt_up") == 1)
        for name in ("mcs1", "pvs1", "priv1"):
            check(m.get("desktop_up", desktop=name, vdisk="win11") == 1, name)
            check(0 < m.get("desktop_answer_seconds", desktop=name) < 60)
        check(m.get("vdisk_version", desktop="mcs1") == 12)
        check(m.get("vdisk_wanted_version", desktop="mcs1") == 13)
        check(m.get("vdisk_size_bytes", desktop="mcs1", version="12") == MIB)
        check(m.get("resets_total", desktop="mcs1") >= 1)
        check(m.get("vdisk_size_bytes", desktop="pvs1", version="12") == SIZE)
        check(m.get("outage_seconds", desktop="pvs1") == 0)
        check(m.get("guest_agent_connected", desktop="pvs1") == 0)
        check(not m.all("guest_agent_connected", desktop="mcs1"))
        stores = m.all("store_state", desktop="pvs1", state="up")
        check(len(stores) == 2 and all(v == 1 for _, v in stores), stores)
        check(m.get("buffer_size_bytes", desktop="priv1") > 8 * MIB)
        check(not m.all("buffer_size_bytes", desktop="pvs1"))
        check(m.get("desktop_info", desktop="priv1", lifetime="private",
                    model="pvs", run="vhost-user", catalog="office") == 1)
    return test


def who_is_there(o):
    def test():
        """one that hangs is down, one that is off is not, a master VM is none"""
        o.kvm1.virsh("start", "mute1")
        m = once(o)
        o.kvm1.virsh("destroy", "mute1")
        check(m.get("desktop_running", desktop="mute1") == 1)
        check(m.get("desktop_up", desktop="mute1") == 0)
        check(m.get("desktop_up", desktop="mcs1") == 1)
        check(m.get("desktop_running", desktop="off1") == 0)
        check(not m.all("desktop_up", desktop="off1"))
        check(not m.all("desktop_running", desktop="master"))
    return test


def counters(o):
    def test():
        """what is read, written and lost shows"""
        before = once(o)
        with o.pvs1.client() as c:
            c.read(0, MIB)
        with o.priv1.client() as c:
            c.write(0, b"x" * 65536)
            c.flush()
        until("a shipment", lambda: once(o).get(
            "buffer_shipped_bytes_total", desktop="priv1") >= 65536)
        after = once(o)

        def read(m):
            return sum(v for _, v in m.all("store_read_bytes_total",
                                           desktop="pvs1"))
        check(read(after) - read(before) >= MIB, read(before), read(after))
        for store in o.stores:
            store.kill()
        o.store.kill()
        with o.priv1.client() as c:
            c.write(0, b"y" * 65536)
            c.flush()
        until("an outage", lambda: once(o).get("outage_seconds",
                                               desktop="pvs1") > 0)
        m = once(o)
        check(not any(v for _, v in m.all("store_state", desktop="pvs1",
                                          state="up")), "a store is up")
        check(m.get("buffer_lag_bytes", desktop="priv1") >= 65536)
        for store in (*o.stores, o.store):
            store.start()
        until("its end", lambda: once(o).get("outage_seconds",
                                             desktop="pvs1") == 0)
        until("no lag", lambda: once(o).get("buffer_lag_bytes",
                                            desktop="priv1") == 0)
    return test


def relay(o):
    def test():
        """what the relay tells of itself is told on; without one there is nothing"""
        path = os.path.join(o.folder, "relay.json")
        check(not [n for n in once(o).names if "relay" in n])
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"size": 100, "used": 50, "versions": [
                {"export": "win11@12", "size": MIB, "served": True,
                 "hydrated": False}], "stores": [
                     {"uri": "nbds://store1", "reachable": False}]}, f)
        m = once(o)
        check(m.get("relay_cache_used_bytes") == 50)
        check(m.get("relay_version_hydrated", export="win11@12") == 0)
        check(m.get("relay_store_reachable", store="nbds://store1") == 0)
        with open(path, "w", encoding="utf-8") as f:
            f.write("{ half")
        check(not [n for n in once(o).names if "relay" in n])
        os.unlink(path)
    return test


def linted(o):
    def test():
        """promtool takes all that is served, and would not take a mistake"""
        with Exporter(o) as e:
            text = e.metrics().text
        said, status = promtool("check", "metrics", text=text)
        check(status == 0 and not said, said)
        check(promtool("check", "metrics",
                       text=text.replace("_bytes_total", "_bytes"))[1] != 0)
    return test


def soon():
    """one that hangs delays nobody: 200 are asked, 40 of which are mute"""
    with Crowd(200, 40) as crowd, \
            Exporter(crowd, "--timeout", str(PATIENCE)) as e:
        e.metrics()
        crowd.asked.clear()
        m = e.metrics()
        up = [v for _, v in m.all("desktop_up")]
        print(f"# {len(up)} desktops in {m.get('scrape_seconds'):.2f} s")
        check(len(up) == 200 and sum(up) == 160, len(up), sum(up))
        check(m.get("layer_bytes", desktop="crowd007") == 7)
        # One after the other they would take 160 s
        check(m.get("scrape_seconds") < 3 * PATIENCE + 1)
        order = [name in crowd.mute for name in crowd.asked]
        # Some are asked at once
        check(order.index(True) > 160 - 32, "who is mute was not asked last:",
              order.index(True))


def http(o):
    def test():
        """HTTP: GET and HEAD of /metrics, and nothing else; many at once"""
        with Exporter(o) as e:
            status, headers, body = get(e.address, method="HEAD")
            check(status == 200 and not body and
                  int(headers["content-length"]) > 1000, headers)
            check(get(e.address, "/nonsense")[0] == 404)
            check(get(e.address, "/metrics/../etc/passwd")[0] == 404)
            check(get(e.address, method="DELETE")[0] == 405)
            check(request(e.address, "POST /metrics HTTP/1.1\r\nHost: x\r\n"
                          "Connection: close\r\nContent-Length: 4\r\n\r\nabcd"
                          )[0] == 405)
            with socket.create_connection(e.address) as s:
                s.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            with socket.create_connection(e.address):
                got = []
                threads = [threading.Thread(
                    target=lambda: got.append(get(e.address)))
                           for _ in range(12)]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                check([g[0] for g in got] == [200] * 12, got)
            check(e.process.running())
    return test


def unix(o):
    def test():
        """on a Unix socket, with the rights that the unit leaves"""
        unit = UNIT.read_text(encoding="utf-8")
        caps = re.search(r"CapabilityBoundingSet=(.*)", unit)[1].lower()
        kept = ",".join("+" + c.removeprefix("cap_") for c in caps.split())
        before = [] if os.geteuid() else [
            "setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all",
            "--no-new-privs", "--"]
        with Exporter(o, "--group", "nogroup", unix=True, before=before) as e:
            check(os.stat(e.path).st_mode & 0o777 == 0o660)
            check(e.metrics().get("desktop_up", desktop="mcs1") == 1)
        check(not os.path.exists(e.path), "the socket is left")
    return test


def refused(o):
    def test():
        """no other address than the loopback one, unless it is told so"""
        for address in ("0.0.0.0:0", ":0", "[::]:0"):
            lab.deskcast("exporter", "--listen", address, "--connect",
                         o.kvm1.uri).expect(1, "--clear-text")
        lab.deskcast("exporter", "--listen", "nonsense:x:y").expect(1)
        lab.deskcast("exporter", "--timeout", "-1").expect(1, "--timeout")
        lab.deskcast("exporter", "--once", "--listen", "127.0.0.1:0").expect(2)
        lab.deskcast("exporter", "more").expect(2)
    return test


def threads(pid):
    """Names of its threads"""
    return [p.read_text(encoding="utf-8").strip()
            for p in pathlib.Path(f"/proc/{pid}/task").glob("*/comm")]


def without_libvirt(o):
    def test():
        """while libvirt hangs, or is gone, the desktops of before are asked"""
        with Exporter(o, "--timeout", "1") as e:
            check(e.metrics().get("libvirt_up") == 1)
            os.kill(o.kvm1.process.pid, signal.SIGSTOP)
            try:
                m = e.metrics()
                check(m.get("libvirt_up") == 0)
                check(m.get("desktop_up", desktop="pvs1") == 1)
                e.metrics()
                check(threads(e.process.pid).count("lister") == 1,
                      "each time one more waits for libvirt")
            finally:
                os.kill(o.kvm1.process.pid, signal.SIGCONT)
            until("libvirt again", lambda: e.metrics().get("libvirt_up") == 1)
            check("libvirt: works again" in e.said(), e.said())
        gone = lab.deskcast("exporter", "--once", "--connect",
                            "qemu+unix:///session?socket=/nonexistent")
        check(Metrics(gone.expect(0).out).get("libvirt_up") == 0)
    return test


def manual():
    """the manual has every metric, and no other"""
    listed = {line.split()[0] for line in
              lab.deskcast("exporter", "--list").expect(0).out.splitlines()}
    text = pathlib.Path(lab.TOP, "docs/man/deskcast-exporter.rst").read_text(
        encoding="utf-8")
    told = set(re.findall(r"^\*(deskcast_[a-z_]+)\* ", text, re.M))
    check(len(listed) > 40 and told == listed, told ^ listed)


def unit():
    """systemd takes the unit, finds it hardened, and would find a mistake"""
    text = UNIT.read_text(encoding="utf-8").replace("/usr/bin/deskcast",
                                                    lab.DESKCAST)
    with lab.Lab() as o:
        path = pathlib.Path(o.folder, UNIT.name)
        path.write_text(text, encoding="utf-8")
        done = analyze("verify", "--man=no", path)
        check(done.returncode == 0 and not done.stderr, done.stderr)
        done = analyze("security", "--offline=true", "--threshold=25", path)
        check(done.returncode == 0, done.stdout)
        path.write_text(text.replace("Restart=always", "Restart=maybe"),
                        encoding="utf-8")
        check(analyze("verify", "--man=no", path).stderr, "it takes anything")
    known = lab.deskcast("exporter", "--help").out
    for option in re.findall(r" (--[a-z][a-z-]+)", text):
        check(option in known, option)


def analyze(*args):
    return subprocess.run(
        ["systemd-analyze", *args], stdin=subprocess.DEVNULL, text=True,
        capture_output=True, check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"})


def main():
    with Office() as o:
        tests = [t(o) for t in (real_disks, who_is_there, counters, relay,
                                linted, http, unix, refused, without_libvirt)]
        return lab.run_tests(tests + [soon, manual, unit])
