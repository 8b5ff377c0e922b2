# SPDX-License-Identifier: GPL-2.0-or-later
"""What the manual shows letter by letter, command by command: a test types it, or a reason
stands here why none does.

Whoever types a block notes it. At the end each command that nobody noted has to be one of
UNTYPED, and each block that has no commands one of OTHER; what can be said of their words without
running them is checked all the same. What stands here and is nowhere shown is wrong, too.
"""

import fnmatch
import re
import subprocess
import tempfile
import xml.etree.ElementTree as xml

import commands
import manual

TOP = manual.TOP
typed = {}              # {(page, line of a block): {command: test}}
by = ""                 # the test that runs


def page_of(path):
    return str(path.relative_to(manual.DOCS))


def note(path, number, command):
    """A command of the block that begins at this line was typed"""
    typed.setdefault((page_of(path), number), {})[command] = by


def note_block(path, number, text):
    """All of its commands"""
    for chunk in chunks(text):
        note(path, number, chunk)


def chunks(text):
    """Lines that belong together: continued ones, and documents. Where there are prompts, what
    is behind them; else all that are no comment"""
    lines = iter(text.replace("\\\n", " ").splitlines())
    prompted = re.search(r"^\$ ", text, re.M)
    for line in lines:
        if prompted and not line.startswith("$ "):
            continue
        line = line.removeprefix("$ ")
        mark = re.search(r"<<(\w+)", line)
        while mark and not line.endswith(f"\n{mark[1]}"):
            line += "\n" + next(lines)
        line = line if mark else re.sub(r"\s+# .*", "", line)
        while not mark and line.count("'") % 2:
            line += "\n" + next(lines)
        if line.strip() and not line.startswith("#"):
            yield line


def missing(names, known, what):
    return [f"there is no {what} {n}" for n in names if n not in known]


def text_of(*paths):
    return "\n".join((TOP / p).read_text(encoding="utf-8") for p in paths)


def nothing(*_):
    """There is no word to check"""
    return []


def units(line):
    """Of systemctl and journalctl -u"""
    ours = {p.name for p in (TOP / "packaging/systemd").iterdir()}
    ours |= {n.removesuffix(".service") for n in ours} | {"libvirtd"}
    names = [w for w in line.split()[2:] if not w.startswith("-")]
    verbs = missing(line.split()[1:2], ("restart", "reload", "status"), "verb")
    return verbs + missing(names, ours, "unit") + ([] if names else ["it names no unit"])


def virsh(line):
    """A command of virsh, by what it says of itself"""
    words = line.split()
    said = subprocess.run(["virsh", "help", words[1]], text=True, check=False,
                          capture_output=True).stdout
    return missing([w for w in words if w.startswith("--")], said.split(), "option") + \
        ([] if said else [f"virsh has no {words[1]}"])


def packages(line):
    """Our own ones, or Debian's that the build or a test asks for"""
    ours = re.findall(r"^Package: (\S+)", text_of("packaging/debian/control"), re.M)
    theirs = text_of("scripts/packages.txt", "scripts/fetch-server").split()
    names = [w for w in line.split()[2:] if not w.startswith("-")]
    return [w for n in names for w in (
        missing([n[2:].partition("_")[0]], ours, "package of ours")
        if n.startswith("./") else missing([n], theirs, "package that a test asks for"))]


def selinux(line):
    """Types are the module's, folders have labels in it or are a person's own"""
    module = text_of("packaging/selinux/deskcast.te")
    labels = text_of("packaging/selinux/deskcast.fc")
    types = re.findall(r"\bdeskcast_\w+_t\b", line)
    folders = re.findall(r"(?<=\s)/(?:etc|usr/lib|srv|var|run)/\S+", line)
    return missing(types, re.findall(r"\w+", module), "type") + \
        [f"no label is for {f}" for f in folders if f not in labels]


def module_made(line):
    """Its files are installed where it says, and compiled by tests/package"""
    test = text_of("tests/package/selinux")
    files = text_of("packaging/meson.build")
    return ([] if "selinux/deskcast.te" in files and "'deskcast' / 'selinux'" in files
            else ["not installed"]) + \
        ([] if "devel/include" in test and "compile deskcast" in test else ["not compiled"])


def scripts(line):
    """Programs of the repository, tiers, and a series of patches"""
    setting, program, *words = line.split()
    tiers = [t.split()[0] for t in text_of("scripts/tiers").splitlines() if t[:1].isalpha()]
    return [f"{p} is not there" for p in (program, f"patches/{setting.partition('=')[2]}")
            if not (TOP / p).exists()] + \
        (missing(words, tiers, "tier") if program == "scripts/check" else [])


def elsewhere(test, text):
    """A test of another tier does the same: it has this in it"""
    def check(_):
        return [] if text in text_of(test) else [f"{test} has no '{text}'"]
    return check


def parsed(line):
    """By AppArmor's parser tests/desktop has the files read; it is a program of the host"""
    return missing(line.split()[2:], ["/etc/apparmor.d/usr.sbin.libvirtd"], "profile")


# (command, why no test types it, what is checked all the same)
UNTYPED = [
    (r"\.\.\.", "a person does it", nothing),
    (r"systemctl (?!.*enable)", "needs systemd as the first process", units),
    (r"virsh console ", "a person sits before it", virsh),
    (r"apparmor_parser ", "gives rules to the machine's kernel", parsed),
    (r"apt-get install ", "installs on the machine; tests/package does, with --long", packages),
    (r"(semodule|restorecon|semanage) ", "needs a kernel with SELinux", selinux),
    (r"(cp|make) .*/selinux/", "tests/package/selinux does, with Debian's policy", module_made),
    (r"QEMU_SERIES=", "tests/series does, with --long", scripts),
    (r"deskcast selftest --folder", "tests/cli/selftest does",
     elsewhere("tests/cli/selftest", 'selftest --folder "$dir" --json')),
    (r"deskcast store create .*--rbd-pool", "needs Ceph; tests/store --long has one",
     elsewhere("tests/store/test_rbd.py", "'--rbd-pool'")),
]


def drawing(_, block):
    return [] if re.search(r"-->|\+---|STORE/", block) else ["this is no drawing"]


def metadata(_, block):
    xml.fromstring(block)
    return []


def hosts(_, block):
    """The list of hosts is one that deskcast takes, but for the host's address"""
    text = block.replace("qemu+ssh://kvm1/system", "test:///default") + "\n"
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        done = subprocess.run([commands.DESKCAST, "host", "list", "--hosts", file.name],
                              text=True, check=False, capture_output=True)
    return [] if re.search("kvm1 +open", done.stdout) else [done.stdout + done.stderr]


def scraped(_, block):
    """The address is where the exporter listens"""
    address = re.search(r"'([\d.:]+)'", block)[1]
    return [] if f"*{address}* by default" in text_of("docs/man/deskcast-exporter.rst") \
        else [f"{address} is not where the exporter listens"]


# (page, how the block begins, what it is, what is checked)
OTHER = [
    ("interop/*", r"0 +\d+ ", "a drawing", drawing),
    ("interop/store.rst", r"STORE/store.json", "files and what they are", drawing),
    ("man/deskcast-version.rst", r"promote$", "a drawing", nothing),
    ("interop/domain-metadata.rst", r"<deskcast:desktop", "metadata", metadata),
    ("man/deskcast-host.rst", r"\[kvm1\]", "a file", hosts),
    ("operations/monitoring.rst", r"scrape_configs:", "a file of Prometheus", scraped),
]


def judge_block(page, block, used):
    """What is wrong with one that has no commands; None if it has some"""
    for entry in OTHER:
        if fnmatch.fnmatch(page, entry[0]) and re.match(entry[1], block):
            used.add(entry)
            return entry[3](page, block)
    return None


def judge_command(command, used):
    """What is wrong with one that nobody typed"""
    for entry in UNTYPED:
        if re.match(entry[0], command):
            used.add(entry)
            return entry[2](command)
    return ["no test types it, and tests/docs/shown.py has no reason why"]


def each_block():
    for path in manual.sources():
        for number, block in commands.blocks(path):
            yield path, number, block


def accounted(_):
    """each command of each block is typed by a test, or has its reason why it cannot be"""
    wrong, used, seen = [], set(), 0
    for path, number, block in each_block():
        page = page_of(path)
        done = typed.get((page, number), {})
        said = None if done else judge_block(page, block, used)
        for what in said or []:
            wrong.append(f"{page}:{number}: {what}")
        for chunk in chunks(block) if said is None else []:
            seen += chunk in done
            if chunk not in done:
                wrong += [f"{page}:{number}: {chunk}: {w}" for w in judge_command(chunk, used)]
    return wrong + [f"nothing is '{e[0]} {e[1]}' any more" for e in (*UNTYPED, *OTHER)
                    if e not in used] + ([] if seen > 150 else [f"only {seen} were typed"])


def report():
    """Each command with who typed it, or why nobody did"""
    for path, number, block in each_block():
        page = page_of(path)
        done = typed.get((page, number), {})
        what = next((e[2] for e in OTHER if fnmatch.fnmatch(page, e[0]) and re.match(e[1], block)
                     ), None)
        for chunk in [block] if what else chunks(block):
            why = done.get(chunk) or what or next(
                (e[1] for e in UNTYPED if re.match(e[0], chunk)), "?")
            print(f"# {page}:{number}: {chunk.splitlines()[0]}\n#     {why}")


def tests(folder):
    return manual.bind("shown", folder, accounted)
