# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program of GTK 3 and uses it as somebody who cannot see it does (AT-SPI), told by lines:

    {"do": "press", "name": "Save"}                  a button, a menu's item, a tab
    {"do": "click", "name": "Add"}                   the same with the mouse
    {"do": "type", "name": "Remote", "text": "..."}  into the entry that a label is of
    {"do": "choose", "name": "Mode", "text": "..."}  from the list that a label is of
    {"do": "get", "name": "Remote", "role": "..."}   what is shown, and whether it can be used
    {"do": "cells"}                                  what stands in tables
    {"do": "open", "name": "office"}                 a line of a table
    {"do": "windows"}                                their titles
    {"do": "tree"}                                   everything, for whoever writes tests

Each answer is a line of JSON: {"answer": ...}. Started by tests/lib/nmgui.py in a session of its own."""

import contextlib
import json
import subprocess
import sys

import gi

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi, GLib

from waiting import wait_until

PATIENCE = 20
ENTRIES = {Atspi.Role.TEXT, Atspi.Role.PASSWORD_TEXT, Atspi.Role.ENTRY}
CHOICES = {Atspi.Role.COMBO_BOX}
BUTTONS = {Atspi.Role.PUSH_BUTTON, Atspi.Role.MENU_ITEM, Atspi.Role.TOGGLE_BUTTON,
           Atspi.Role.CHECK_BOX, Atspi.Role.PAGE_TAB, Atspi.Role.RADIO_BUTTON}


def children(thing):
    for i in range(thing.get_child_count()):
        child = thing.get_child_at_index(i)
        if child is not None:
            yield child


def everything(thing):
    yield thing
    for child in children(thing):
        yield from everything(child)


def application(pid):
    for desktop in range(Atspi.get_desktop_count()):
        for app in children(Atspi.get_desktop(desktop)):
            if app.get_process_id() == pid:
                return app
    return None


def labels(thing):
    """By what it is called: its own name, and its labels'."""
    names = {thing.get_name()}
    for relation in thing.get_relation_set():
        if relation.get_relation_type() == Atspi.RelationType.LABELLED_BY:
            names |= {relation.get_target(i).get_name() for i in range(relation.get_n_targets())}
    return {name.replace("_", "").rstrip(":") for name in names if name}


def activate(cell):
    """As a double click on a row."""
    Atspi.Component.grab_focus(cell)
    names = [Atspi.Action.get_action_name(cell, i) for i in range(Atspi.Action.get_n_actions(cell))]
    return "activate" in names and Atspi.Action.do_action(cell, names.index("activate"))


def is_shown(thing):
    """Even where one has to scroll to it."""
    return thing.get_state_set().contains(Atspi.StateType.VISIBLE)


def find(app, name, roles):
    """The last one of that name: in the window that was opened last."""
    found = [t for t in everything(app) if t.get_role() in roles and name in labels(t) and
             (is_shown(t) or t.get_role() in {Atspi.Role.MENU_ITEM})]
    return found[-1] if found else None


def act(thing):
    if thing.get_role() == Atspi.Role.PAGE_TAB:
        Atspi.Selection.select_child(thing.get_parent(), thing.get_index_in_parent())
    else:
        Atspi.Action.do_action(thing, 0)


def click(thing):
    """With the mouse: where an action opens a dialog that is waited for, and so never ends."""
    box = Atspi.Component.get_extents(thing, Atspi.CoordType.SCREEN)
    return Atspi.generate_mouse_event(box.x + box.width // 2, box.y + box.height // 2, "b1c")


def choose(thing, text):
    for item in everything(thing):
        if item.get_role() == Atspi.Role.MENU_ITEM and item.get_name().strip() == text:
            act(item)
            return True
    return False


def text_of(thing):
    if thing.get_role() in CHOICES:
        return thing.get_name()
    return Atspi.Text.get_text(thing, 0, -1)


def obey(app, order):
    do, name = order["do"], order.get("name")
    if do == "tree":
        return [[t.get_role_name(), t.get_name(), sorted(labels(t)), is_shown(t)]
                for t in everything(app)]
    if do == "cells":
        return [t.get_name() for t in everything(app) if t.get_role() == Atspi.Role.TABLE_CELL and
                t.get_name()]
    if do == "open":
        thing = find(app, name, {Atspi.Role.TABLE_CELL})
        return thing and activate(thing)
    if do == "windows":
        return [w.get_name() for w in children(app) if is_shown(w)]
    if do == "press":
        thing = find(app, name, BUTTONS)
        return thing and (act(thing) or True)
    if do == "click":
        thing = find(app, name, BUTTONS)
        return thing and click(thing)
    if do == "type":
        thing = find(app, name, ENTRIES)
        return thing and Atspi.EditableText.set_text_contents(thing, order["text"])
    if do == "choose":
        thing = find(app, name, CHOICES)
        return thing and choose(thing, order["text"])
    thing = find(app, name, ENTRIES | CHOICES | BUTTONS)
    return thing and {
        "text": text_of(thing) if thing.get_role() in ENTRIES | CHOICES else thing.get_name(),
        "sensitive": thing.get_state_set().contains(Atspi.StateType.SENSITIVE),
        "checked": thing.get_state_set().contains(Atspi.StateType.CHECKED)}


def patiently(process, order):
    """Windows take their time. What is not there after all is answered with null."""
    answer = None

    def answered():
        nonlocal answer
        try:
            app = application(process.pid)
            answer = app and obey(app, order)
        except GLib.Error:
            answer = None  # it went away while it was looked at
        return answer or process.poll() is not None
    with contextlib.suppress(AssertionError):
        wait_until(answered, "", order.get("patience", PATIENCE), 0.05)
    return answer


def main():
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    for line in sys.stdin:
        print(json.dumps({"answer": patiently(process, json.loads(line))}), flush=True)
    process.terminate()
    process.wait()


main()
