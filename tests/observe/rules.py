# SPDX-License-Identifier: GPL-2.0-or-later
"""Alerts for Prometheus and the dashboard for Grafana: by promtool, and against
what the exporter has."""

import json
import pathlib
import re
import tempfile

import lab
from lab import check
from scrape import promtool

TOP = pathlib.Path(lab.TOP)
RULES = TOP / "packaging/prometheus/deskcast.rules.yaml"
BOARD = TOP / "packaging/grafana/deskcast.json"
MANUAL = TOP / "docs/operations/monitoring.rst"
CASES = [TOP / "tests/observe/rules.test.yaml",
         TOP / "tests/observe/rules-days.test.yaml"]
# What Grafana puts in, as PromQL can have it
VARIABLES = {"$__rate_interval": "5m", "$host": ".*", "$desktop": ".*"}


def text_of(path):
    return path.read_text(encoding="utf-8")


def alerts():
    return set(re.findall(r"- alert: (\w+)", text_of(RULES)))


def exported():
    """Names of all metrics"""
    return {line.split()[0] for line in
            lab.deskcast("exporter", "--list").expect(0).out.splitlines()}


def recorded():
    return set(re.findall(r"- record: (\S+)", text_of(RULES)))


def panels():
    return [p for p in json.loads(text_of(BOARD))["panels"]
            if p["type"] != "row"]


def expressions():
    """Of the dashboard, as Prometheus gets them"""
    found = [t["expr"] for p in panels() for t in p["targets"]]
    for variable, value in VARIABLES.items():
        found = [e.replace(variable, value) for e in found]
    return found


def rules():
    """promtool takes the rules, and would not take a mistake"""
    said, status = promtool("check", "rules", RULES)
    check(status == 0, said)
    with tempfile.TemporaryDirectory() as folder:
        broken = pathlib.Path(folder, "broken.yaml")
        broken.write_text(text_of(RULES).replace("== 0", "=== 0"),
                          encoding="utf-8")
        check(promtool("check", "rules", broken)[1] != 0, "it takes anything")


def run_cases(rules_text, cases):
    """What promtool says of @cases with these rules, and its status"""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "rules.yaml")
        path.write_text(rules_text, encoding="utf-8")
        case = pathlib.Path(folder, "case.yaml")
        case.write_text(text_of(cases).replace("RULES", str(path)),
                        encoding="utf-8")
        return promtool("test", "rules", case)


def cases():
    """each alert fires where it should, says what it should, and else is silent"""
    for file in CASES:
        said, status = run_cases(text_of(RULES), file)
        check(status == 0, said)
    text = "".join(map(text_of, CASES))
    for alert in alerts():
        fires = re.findall(rf"alertname: {alert}\n +exp_alerts:(.*)", text)
        check(fires.count("") and fires.count(" []"), alert, fires)
    check(len(alerts()) > 10, alerts())


def mistakes():
    """a wrong threshold, time or sentence in a rule is noticed"""
    for right, wrong in (("> 0.95", "> 0.94"), ("for: 2m", "for: 4m"),
                         ("is broken", "broke")):
        check(right in text_of(RULES), right)
        said, status = run_cases(text_of(RULES).replace(right, wrong), CASES[0])
        check(status != 0, right, "can be", wrong, said)


def known_metrics():
    """rules and dashboard name metrics that the exporter has, and no others"""
    known = exported() | recorded()
    check(len(known) > 40, known)
    text = text_of(RULES) + "\n".join(expressions()) + text_of(BOARD)
    named = set(re.findall(r"\bdeskcast[_:][a-z0-9_:]+", text))
    check(len(named) > 20 and named <= known, named - known)
    # Recorded ones are not there where our rules are not loaded
    used = set(re.findall(r"\bdeskcast:[a-z0-9_:]+", text_of(BOARD)))
    check(not used, used)


def queries():
    """promtool takes each query of the dashboard"""
    lines = ["groups:", "- name: board", "  rules:"]
    for i, e in enumerate(expressions()):
        lines += [f"  - record: board:{i}", f"    expr: {json.dumps(e)}"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "board.yaml")
        path.write_text("\n".join(lines), encoding="utf-8")
        said, status = promtool("check", "rules", path)
        check(status == 0, said)
        check(f"{len(expressions())} rules found" in said, said)
    check(len(expressions()) > 20, len(expressions()))


def board():
    """the dashboard's panels have places of their own, titles and known variables"""
    whole = json.loads(text_of(BOARD))
    variables = {v["name"] for v in whole["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", text_of(BOARD))) - {"__rate_interval",
                                                          "__all"}
    check(used == variables, used, variables)
    taken, ids = {}, [p["id"] for p in whole["panels"]]
    check(len(set(ids)) == len(ids), ids)
    for p in whole["panels"]:
        check(p["title"], p["id"], "has no title")
        g = p["gridPos"]
        check(g["x"] + g["w"] <= 24, p["title"])
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"])
                     for y in range(g["y"], g["y"] + g["h"])):
            check(cell not in taken, p["title"], "is over", taken.get(cell))
            taken[cell] = p["title"]


def told():
    """the manual says of each alert what to do, and of no other"""
    named = set(re.findall(r"^``(Deskcast\w+)``", text_of(MANUAL), re.M))
    check(named == alerts(), named ^ alerts())


def main():
    return lab.run_tests([rules, cases, mistakes, known_metrics, queries,
                          board, told])
