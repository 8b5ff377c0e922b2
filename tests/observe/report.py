# SPDX-License-Identifier: GPL-2.0-or-later
"""deskcast report: what it records, and the page that it makes of it."""

import html.parser
import json
import os
import re
import signal
import tempfile

import lab
from crowd import Crowd
from lab import check, until
from stores.process import Process
from top import Busy

MIB = 1 << 20
BEGIN = 1_790_000_000
STEP = 15
# Tags that have an end, of HTML and SVG
EMPTY = {"meta", "line", "rect", "circle", "path", "br"}


def desktop(name, i, **more):
    """A streamed desktop at the i-th look"""
    store = {"store": f"nbd://{more.pop('store', 'store1')}", "tree": False,
             "state": "up", "store_latency_seconds": 0.001,
             "store_reads_total": i, "store_read_bytes_total": i * 15 * MIB,
             "store_errors_total": 0}
    return {"desktop": name, "vdisk": "win11", "running": True, "up": True,
            "version": 12, "streamed": True, "outage_seconds": 0,
            "resets_total": 1, "guest_agent_connected": True,
            "host_cache_hit_bytes_total": i * 3 * MIB,
            "host_cache_miss_bytes_total": i * MIB, "stores": [store], **more}


def history(looks=200):
    """calm; away: no store from look 50 to 70; mute: silent at 100 and 101;
    behind: lags up to 64 MiB; boots: is reset at 20, and up at 22"""
    for i in range(looks):
        outage = {"outage_seconds": (i - 49) * STEP} if 50 <= i < 70 else {}
        mute = desktop("mute", i)
        if i in (100, 101):
            mute = {"desktop": "mute", "vdisk": "win11", "running": True,
                    "up": False, "trouble": "it hangs"}
        yield {"time": BEGIN + i * STEP, "libvirt_up": True, "desktops": [
            desktop("away", i, store="store2", **outage),
            desktop("behind", i, buffer_lag_bytes=min(i, 64) * MIB,
                    buffer_size_bytes=128 * MIB),
            desktop("boots", i, resets_total=1 + (i >= 20),
                    guest_agent_connected=not 20 <= i < 22),
            desktop("<b>calm&\"", i), mute]}


class Page(html.parser.HTMLParser):
    """Is what it should be: every tag is closed, nothing comes from elsewhere"""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.wrong, self.text = [], {}, [], []
        self.feed(text)
        self.wrong += [f"{t} is not closed" for t in self.open]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs, True)

    def handle_starttag(self, tag, attrs, whole=False):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag in ("script", "link", "img", "iframe", "object", "image", "use"):
            self.wrong.append(f"there is a {tag}")
        self.wrong += [f"{tag} {k}" for k, v in attrs
                       if k in ("src", "href", "style") or k.startswith("on")
                       or "url(" in (v or "") or "nan" in (v or "").lower()]
        if not whole and tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data):
        self.text.append(data)


def page_of(lines, *args, status=0):
    """The page of what was recorded so, and what was said"""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "samples")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(line if isinstance(line, str) else
                         json.dumps(line) + "\n" for line in lines)
        done = lab.deskcast("report", path, *args, TZ="UTC",
                            LC_ALL="C.UTF-8").expect(status)
        return done.out, done.err


def row(text, name):
    """Cells of a desktop or store in the tables"""
    found = re.search(rf"<tr><td>{re.escape(name)}</td>(.*?)</tr>", text)
    check(found, name, "is in no table")
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1])


def numbers():
    """outages, silence, lag, hit rate, bytes and boots are what was recorded"""
    text, said = page_of(history())
    check(not said, said)
    # Since when there is no store is known: 15 s before the first look at it
    check(row(text, "away")[1] == "1, 5 min 0 s", row(text, "away"))
    check(row(text, "mute")[2] == "1, 30.0 s", row(text, "mute"))
    check(row(text, "behind")[3] == "64 MiB", row(text, "behind"))
    check(row(text, "boots")[6] == "1: 30.0 s, 30.0 s", row(text, "boots"))
    calm = row(text, "&lt;b&gt;calm&amp;&quot;")
    check(calm[1:] == ["-", "-", "-", "75%", "2.9 GiB", "-"], calm)
    # 1 MiB/s of one, and of four but for two looks
    check(row(text, "nbd://store2")[1:] == ["2.9 GiB", "1 MiB/s"],
          row(text, "nbd://store2"))
    check(row(text, "nbd://store1")[2] == "4 MiB/s", row(text, "nbd://store1"))


def whole():
    """the page is whole: all it needs, each tag closed, nothing from elsewhere"""
    text, _ = page_of(history(), "--title", "Büro <1>")
    page = Page(text)
    check(not page.wrong, page.wrong)
    check(page.tags["svg"] == 5, page.tags)
    check("Büro <1>" in page.text, page.text[:5])
    check("<b>" not in text and "http:" not in text and "https:" not in text)
    check(page.tags["circle"] == 1 and page.tags["rect"] == 2, page.tags)
    check("default-src 'none'" in text and "prefers-color-scheme" in text)
    # Charts stay small however much was recorded
    long, _ = page_of(history(5000))
    check(not Page(long).wrong and len(long) < 200_000, len(long))


def gaps():
    """a time without samples is no outage, no line and no rate"""
    first = list(history(20))
    late = [{**s, "time": s["time"] + 86400} for s in history(20)]
    text, _ = page_of(first + late)
    check(not Page(text).wrong)
    lines = re.findall(r'<path class="line[^"]*" d="([^"]*)"', text)
    check(lines and all(d.count("M") == 2 for d in lines), lines)
    check(row(text, "away")[5] == "570 MiB", row(text, "away"))
    check("1 MiB/s" in row(text, "nbd://store2"), row(text, "nbd://store2"))


def nonsense():
    """lines that are none are counted and left out; without any there is no page"""
    good = [json.dumps(s) + "\n" for s in history(5)]
    bad = ["{ half\n", "[]\n", '{"time":"x"}\n', '{"time":1e300}\n', "\n",
           '{"time":-1}\n', "\0\xff\n", good[1][:200] + "\n"]
    text, said = page_of(good[:3] + bad + good[3:])
    check("7 lines are no samples" in said, said)
    check("looked at 5 times" in text)
    # Of types that they should not have, in members that are read
    page_of(['{"time":1,"desktops":[1,{"desktop":5,"up":true,"stores":[3,{}],'
             '"outage_seconds":"x"}]}\n'])
    lab.deskcast("report", "/nonexistent").expect(1)
    page_of(bad, status=1)
    lab.deskcast("report").expect(2)
    lab.deskcast("report", "--record", "/x", "y").expect(2)
    lab.deskcast("report", "--record", "/x", "--interval", "0").expect(2)


def records():
    """--record appends a sample each interval, from which a page can be made"""
    with Crowd(3, 0, Busy()) as crowd:
        path = os.path.join(crowd.folder, "samples")
        log = os.path.join(crowd.folder, "log")
        for looks in (3, 6):        # the second time it appends
            process = Process([lab.DESKCAST, "report", "--record", path,
                               "--interval", "1", "--connect", crowd.uri], log)
            until(f"{looks} samples", lambda n=looks: os.path.exists(path) and
                  len(open(path, encoding="utf-8").readlines()) >= n)
            process.signal(signal.SIGTERM)
            check(process.popen.wait(30) == 0, process.said())
        with open(path, encoding="utf-8") as f:
            samples = [json.loads(line) for line in f]
        times = [s["time"] for s in samples]
        check(times == sorted(times) and len(samples) >= 6, times)
        out = os.path.join(crowd.folder, "page.html")
        lab.deskcast("report", path, "-o", out).expect(0)
        with open(out, encoding="utf-8") as f:
            text = f.read()
        check(not Page(text).wrong)
        check(row(text, "crowd000")[4] == "75%", row(text, "crowd000"))
        check("min" in row(text, "crowd002")[1], row(text, "crowd002"))


def main():
    return lab.run_tests([numbers, whole, gaps, nonsense, records])
