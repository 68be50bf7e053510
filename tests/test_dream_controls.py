"""Which action the keys of the page hold down: its own script, run by Node without a browser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "dreamerv2" / "dream" / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(not NODE, reason="needs node")

START = """
import { Controls, whilePressed } from "./controls.mjs";
globalThis.window = new EventTarget();
const buttons = [[], ["FIRE"], ["RIGHT"], ["LEFT"]];
const held = [];
const controls = new Controls({ discrete: true, size: 4, buttons }, (action) => held.push(action));
"""


@pytest.fixture
def held(tmp_path):
    """Runs lines of JavaScript with `controls`; the actions that were held, null for none."""
    (tmp_path / "controls.mjs").write_bytes((PAGE / "controls.js").read_bytes())

    def run(lines):
        script = tmp_path / "script.mjs"
        script.write_text(f"{START}\n{lines}\nconsole.log(JSON.stringify(held));")
        done = subprocess.run([NODE, script], capture_output=True, text=True, timeout=120)
        assert not done.stderr
        return json.loads(done.stdout)

    return run


def test_a_key_lets_go_what_it_pressed_though_shift_has_changed_its_name(held):
    """French keyboards have their digits on Shift, which may be released first."""
    assert held("""
        controls.keyDown({ key: "3", code: "Digit3" });
        controls.keyDown({ key: '"', code: "Digit3" }); // Shift is up, and the key repeats itself
        controls.keyUp({ key: '"', code: "Digit3" });
        controls.keyDown({ key: "ArrowLeft", code: "ArrowLeft" });
        controls.keyUp({ key: "ArrowLeft", code: "ArrowLeft" });
    """) == [2, None, 3, None]


def test_of_two_keys_that_say_no_place_each_is_itself(held):
    assert held("""
        controls.keyDown({ key: "ArrowLeft", code: "" });
        controls.keyUp({ key: "ArrowLeft", code: "" });
        controls.keyDown({ key: "ArrowLeft", code: "" });
        controls.keyDown({ key: " ", code: "" });
        controls.keyUp({ key: "ArrowLeft", code: "" });
        controls.keyUp({ key: " ", code: "" });
    """) == [3, None, 3, 1, None]


def test_an_action_that_is_let_go_leaves_another_one_held(held):
    assert held("""
        controls.keyDown({ key: "2", code: "Digit2" });
        controls.keyDown({ key: "3", code: "Digit3" });
        controls.keyUp({ key: "2", code: "Digit2" });
        controls.hold(3);
        controls.keyUp({ key: "3", code: "Digit3" });
        controls.release(3);
    """) == [1, 2, 3, None]


def test_a_page_that_loses_the_focus_holds_nothing(held):
    assert held("""
        controls.keyDown({ key: "3", code: "Digit3" });
        window.dispatchEvent(new Event("blur"));
        controls.keyDown({ key: '"', code: "Digit3" });
    """) == [2, None]


def test_a_button_is_pressed_by_enter_and_space_as_by_a_pointer(held):
    assert (
        held("""
        const button = new EventTarget();
        const send = (name, values) => {
            const event = Object.assign(new Event(name, { cancelable: true }), values);
            button.dispatchEvent(event);
            return event.defaultPrevented;
        };
        button.setPointerCapture = () => {};
        whilePressed(button, (isDown) => (isDown ? controls.hold(2) : controls.release(2)));
        for (const key of [" ", "Enter"]) {
            if (!send("keydown", { key })) throw new Error("the page scrolls, too");
            send("keyup", { key });
        }
        if (send("keydown", { key: "Tab" })) throw new Error("Tab stays here");
        send("pointerdown", {});
        send("pointerup", {});
        send("keydown", { key: " " });
        send("blur", {}); // the keyboard has gone on to the next button
    """)
        == [2, None] * 4
    )
