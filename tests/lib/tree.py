# SPDX-License-Identifier: GPL-2.0-or-later
"""The source tree, for the gates: tests/check-*."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tracked(*suffixes):
    """Files under version control, as paths relative to ROOT; all, or those with these suffixes."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z"],
                            stdout=subprocess.PIPE, check=True, text=True).stdout
    files = [pathlib.Path(name) for name in listed.split("\0") if name]
    present = [f for f in files if (ROOT / f).is_file()]
    return [f for f in present if not suffixes or f.suffix in suffixes]


def is_script(file):
    with open(ROOT / file, "rb") as f:
        return f.read(2) == b"#!"


def verdict(problems, looked_at):
    """Prints the problems and ends. Having looked at nothing is a problem, too."""
    if not looked_at:
        problems = [*problems, "there was nothing to check"]
    for problem in problems:
        print(problem)
    print(f"{looked_at} looked at, {len(problems)} problems")
    sys.exit(1 if problems else 0)
