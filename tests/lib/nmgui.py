# SPDX-License-Identifier: GPL-2.0-or-later
"""A screen that nobody sees, and programs on it that edit connections of NetworkManager."""

import contextlib
import json
import os
import subprocess

import ethercord
from ethercord import end_process, run, wait_until

PLUGIN = "libnm-vpn-plugin-ethercord.so"
PICTURES = ethercord.BUILD / "screenshots"
STILL = "[Settings]\ngtk-cursor-blink=false\ngtk-enable-animations=false\n"


class Screen:
    """An X server of one's own."""

    def __init__(self, lab, size="1280x1024"):
        reading, writing = os.pipe()
        with open(lab.directory / "xvfb.log", "wb") as log:
            self.process = subprocess.Popen(
                ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-nolisten", "tcp",
                 "-noreset"],
                pass_fds=(writing,), stdout=log, stderr=log)
        os.close(writing)
        with os.fdopen(reading) as told:
            self.name = f":{told.readline().strip()}"
        lab.keep(self)
        home = lab.directory / "home"
        home.mkdir(mode=0o700)
        for version in ("3.0", "4.0"):
            settings = home / f".config/gtk-{version}/settings.ini"
            settings.parent.mkdir(parents=True)
            settings.write_text(STILL)
        self.environment = {
            "DISPLAY": self.name, "GDK_BACKEND": "x11", "GSETTINGS_BACKEND": "memory",
            "GSK_RENDERER": "cairo", "LIBGL_ALWAYS_SOFTWARE": "1", "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home), "GTK_THEME": "Adwaita", "NO_AT_BRIDGE": "1",
            "GTK_A11Y": "none"}

    def keys(self, title, *keys):
        """Struck while the window of that title has the focus."""
        def do(*words):
            return run("xdotool", *words, env={**os.environ, **self.environment}).stdout.split()
        window = do("search", "--sync", "--onlyvisible", "--name", title)[-1]
        do("windowfocus", "--sync", window, "key", "--clearmodifiers", *keys)

    def picture(self, name):
        """What is to be seen, for people to look at; beside the build."""
        PICTURES.mkdir(exist_ok=True)
        file = PICTURES / f"{name}.png"
        seen = []

        def stands_still():
            run("import", "-display", self.name, "-window", "root", file)
            seen.append(run("identify", "-format", "%#", file).stdout)
            return seen[-2:-1] == seen[-1:]
        wait_until(stands_still, "the screen stands still", interval=0.2)
        assert int(run("identify", "-format", "%k", file).stdout) > 50, f"{file} shows nothing"
        return file

    def close(self):
        end_process(self.process)


class Host:
    """tests/unit/editor-host.c, told what its user does. toolkit: gtk3 or gtk4."""

    def __init__(self, bed, screen, toolkit):
        self.screen, self.toolkit = screen, toolkit
        with open(bed.directory / f"{toolkit}.log", "ab") as self.log:
            self.process = bed.near.popen(
                "dbus-run-session", "--", ethercord.BUILD / f"tests/editor-host-{toolkit}",
                bed.owned_by_root(PLUGIN), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=self.log, env={**bed.near.environment, **screen.environment})
        bed.lab.keep(self)
        assert self.answer() == ["ready"], (bed.directory / f"{toolkit}.log").read_text()
        self.file = bed.directory / f"{toolkit}.log"

    def answer(self):
        lines = []
        while (line := self.process.stdout.readline()) != ".\n":
            assert line, f"the program ended: {self.file.read_text()}"
            lines.append(line.rstrip("\n"))
        return lines

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def do(self, *words):
        """What must not fail."""
        lines = self.tell(*words)
        assert not lines or not lines[0].startswith("error "), lines
        return lines

    def set(self, **values):
        for name, text in values.items():
            self.do("set", name.replace("_", "-"), text)

    def get(self, name):
        """text, sensitive, error, problem, placeholder"""
        pairs = [line.partition(" ") for line in self.do("get", name)]
        return {key: text for key, _, text in pairs}

    def picture(self, name):
        return self.screen.picture(f"{self.toolkit}-{name}")

    def close(self):
        self.process.stdin.close()
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process.stdout.close()
        text = self.file.read_text(errors="replace")
        assert status == 0, f"{self.toolkit} ended with {status}: {text}"
        assert "CRITICAL" not in text and "WARNING" not in text, text


class Accessible:
    """A program, used through tests/lib/accessible.py."""

    def __init__(self, bed, screen, *command):
        self.screen = screen
        self.file = bed.directory / f"{command[0]}.log"
        environment = {**bed.near.environment, **screen.environment}
        for name in ("NO_AT_BRIDGE", "GTK_A11Y", "G_DEBUG"):
            environment.pop(name, None)
        with open(self.file, "ab") as log:
            self.process = bed.near.popen(
                "dbus-run-session", "--", "/usr/bin/python3",
                ethercord.ROOT / "tests/lib/accessible.py", *command, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        bed.lab.keep(self)

    def ask(self, do, name=None, **more):
        self.process.stdin.write(json.dumps({"do": do, "name": name, **more}) + "\n")
        self.process.stdin.flush()
        # What AT-SPI starts has something to say as well.
        while not (line := self.process.stdout.readline()).startswith('{"answer"'):
            assert line, f"the program ended: {self.file.read_text()}"
        return json.loads(line)["answer"]

    def do(self, do, name=None, **more):
        answer = self.ask(do, name, **more)
        assert answer, f"{do} {name} {more}: {self.ask('tree')}"
        return answer

    def picture(self, name):
        return self.screen.picture(f"nm-connection-editor-{name}")

    def close(self):
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
