# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures of these tests are in tests/lib/fixtures.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from fixtures import *
