#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds up results: files of JUnit XML (.xml) and of lines "ok NAME", "not ok NAME" (.tap).

Prints what failed and why anything was skipped, and last "PASSED FAILED SKIPPED"."""

import pathlib
import sys
import xml.etree.ElementTree as ET

passed = failed = skipped = 0


def add_junit(path):
    global passed, failed, skipped
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}: {case.get('name')}"
        outcome = {child.tag: child for child in case}
        if "failure" in outcome or "error" in outcome:
            failed += 1
            print(f"  failed   {name}", file=sys.stderr)
        elif "skipped" in outcome:
            skipped += 1
            why = outcome["skipped"].get("message") or (outcome["skipped"].text or "").strip()
            print(f"  skipped  {name}: {why or 'no reason given'}", file=sys.stderr)
        else:
            passed += 1


def add_lines(path):
    global passed, failed
    for line in path.read_text().splitlines():
        if line.startswith("not ok "):
            failed += 1
            print(f"  failed   {line[7:]}", file=sys.stderr)
        elif line.startswith("ok "):
            passed += 1


for name in sys.argv[1:]:
    file = pathlib.Path(name)
    try:
        add_junit(file) if file.suffix == ".xml" else add_lines(file)
    except (OSError, ET.ParseError) as e:
        failed += 1
        print(f"  failed   {file.name}: no results: {e}", file=sys.stderr)
print(passed, failed, skipped)
