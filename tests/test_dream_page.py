"""The page in a real browser: Chromium, driven by Playwright."""

import base64
import io
import shutil
import time

import numpy as np
import pytest
import saved
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra dream")
pytest.importorskip("uvicorn", reason="needs the extra dream")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

from dream_server import PATIENCE, serving  # noqa: E402

CHROMIUM = shutil.which("chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("run")
    # Wide enough for a held class to be seen in the picture of an untrained agent.
    wide = {"rssm.stoch": 8, "rssm.discrete": 8, r"decoder\.cnn_depth": 4}
    saved.save(logdir, time_limit=200, **wide)
    rng, rows = np.random.default_rng(0), 30
    (logdir / "eval_episodes").mkdir()
    np.savez(
        logdir / "eval_episodes" / f"20261125T201224-abc123-{rows - 1}.npz",
        image=rng.integers(0, 256, (rows, 64, 64, 1), np.uint8),
        action=np.eye(4, dtype=np.float32)[rng.integers(0, 4, rows)],
        is_first=np.arange(rows) == 0,
    )
    with serving(logdir) as served:
        yield served


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(served, browser):
    """Opens pages; at the end none of them may have an error in its console."""
    said, contexts = [], []

    def opened(fragment="", **options):
        context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{served.address}/{fragment}")
        wait(page, "document.body.dataset.step !== undefined")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def wait(page, condition):
    """Until the JavaScript is true. The page's own policy forbids what Playwright does for it."""
    for _ in range(20 * PATIENCE):
        if page.evaluate(condition):
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {condition}")


def step_of(page):
    return int(page.evaluate("document.body.dataset.step"))


def picture(page, name="model"):
    """What a canvas shows, bit for bit."""
    return page.evaluate(f"document.getElementById('{name}').toDataURL()")


def one_step(page, times=1):
    for _ in range(times):
        before = step_of(page)
        page.keyboard.press(".")
        wait(page, f"document.body.dataset.step === '{before + 1}'")


def rewind(page, to):
    page.evaluate(
        f"const t = document.getElementById('timeline'); t.value = {to};"
        "t.dispatchEvent(new Event('input'))"
    )
    wait(page, f"document.body.dataset.step === '{to}'")


def hold(page, variable, chosen, count=8):
    box = page.locator("#grid").bounding_box()
    x = box["x"] + box["width"] * (chosen + 0.5) / count
    y = box["y"] + box["height"] * (variable + 0.5) / count
    page.mouse.click(x, y)


def test_a_key_moves_the_dream_with_the_action_of_that_key(open_page):
    page = open_page()
    before = picture(page)
    page.keyboard.down("ArrowRight")
    wait(page, "Number(document.body.dataset.step) >= 5")
    assert page.inner_text("#action") == "right"
    page.keyboard.up("ArrowRight")
    page.keyboard.down("ArrowLeft")
    wait(page, "document.getElementById('action').textContent === 'left'")
    page.keyboard.up("ArrowLeft")
    wait(page, "document.getElementById('action').textContent === 'noop'")
    page.keyboard.press("p")
    wait(page, "document.body.dataset.running === 'false'")
    assert picture(page) != before


def test_a_held_class_changes_the_picture_at_once_and_letting_go_brings_it_back(open_page):
    page = open_page()
    one_step(page, 3)
    before, step = picture(page), step_of(page)
    for variable in range(8):
        hold(page, variable, 5)
        wait(
            page,
            f"document.getElementById('release').textContent === 'release all ({variable + 1})'",
        )
    assert picture(page) != before and step_of(page) == step
    page.click("#release")
    wait(page, "document.getElementById('release').disabled")
    assert picture(page) == before


def test_rewinding_gives_the_same_picture_again(open_page):
    page = open_page()
    seen = [picture(page)]
    for _ in range(6):
        one_step(page)
        seen.append(picture(page))
    for step in (5, 2, 0, 4):
        rewind(page, step)
        assert picture(page) == seen[step]
    one_step(page)
    assert picture(page) == seen[5]


def test_the_saved_gif_has_the_pictures_that_were_seen(open_page):
    page = open_page()
    page.click("#where button[data-value=both]")
    wait(page, "document.body.dataset.where === 'both'")
    seen = [pixels(page)]
    for _ in range(5):
        one_step(page)
        seen.append(pixels(page))
    with page.expect_download() as download:
        page.click("#gif")
    image = Image.open(download.value.path())
    left, shown = round(160 * 256 / 210) + 8, []
    for index in range(image.n_frames):
        image.seek(index)
        frame = np.asarray(image.convert("RGB"))[:256, left : left + 256]
        shown.append(frame[::4, ::4])
    assert len(shown) == len(seen)
    # Colours may move to the nearest of the 255 that a GIF has.
    np.testing.assert_allclose(np.int16(shown), np.int16(seen), atol=12)
    assert download.value.suggested_filename == "dream-atari_breakout.gif"


def pixels(page):
    """The dream as uint8 [64, 64, 3]."""
    png = base64.b64decode(picture(page).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_two_tabs_do_not_disturb_each_other(open_page):
    first, second = open_page(), open_page()
    one_step(first, 3)
    hold(second, 0, 5)
    wait(second, "!document.getElementById('release').disabled")
    second.click("#who button[data-value=policy]")
    one_step(second)
    assert (step_of(first), step_of(second)) == (3, 1)
    assert first.is_disabled("#release")
    assert first.get_attribute("#who button[data-value=you]", "aria-pressed") == "true"
    third = open_page()
    one_step(third, 3)
    assert picture(third) == picture(first)


def test_a_link_leads_to_the_same_picture(open_page):
    page = open_page()
    one_step(page, 2)
    hold(page, 3, 5)
    wait(page, "!document.getElementById('release').disabled")
    page.click("#who button[data-value=policy]")
    one_step(page, 4)
    page.click("#link")
    link = page.locator("#kept input").input_value()
    other = open_page("#" + link.partition("#")[2])
    wait(other, "document.body.dataset.step === '6' && document.body.dataset.running === 'false'")
    assert picture(other) == picture(page)
    assert not other.is_disabled("#release")


def test_a_dream_starts_from_a_stored_moment(open_page):
    page = open_page()
    wait(page, "document.getElementById('thumbnails').width > 1000")
    page.click("#thumbnails", position={"x": 300, "y": 20})
    wait(page, "document.querySelector('#where [data-value=game]').disabled")
    assert page.evaluate("document.body.dataset.where") == "dream"
    one_step(page, 2)


def test_all_fits_the_screen_of_a_laptop_and_of_a_phone(open_page):
    page = open_page(has_touch=True)
    for width, height in ((1280, 720), (1440, 900), (1920, 1080), (390, 844), (360, 640)):
        page.set_viewport_size({"width": width, "height": height})
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth") <= width
        assert page.evaluate(f"{root}.scrollHeight") <= height
        box = page.locator("#model").bounding_box()
        assert min(box["width"], box["height"]) >= 90, (width, height)
        for name in ("run", "model", "pad" if width < 900 else "grid"):
            box = page.locator(f"#{name}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, (name, width, height)


def test_touch_plays_too(open_page):
    page = open_page(has_touch=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.hover("#pad .left")
    page.mouse.down()
    wait(page, "document.getElementById('action').textContent === 'left'")


def test_everything_can_be_reached_with_the_keyboard(open_page):
    page = open_page()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"run", "timeline", "grid", "temperature", "likely", "thumbnails", "gif"} <= reached
    page.focus("#grid")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait(page, "!document.getElementById('release').disabled")
    assert step_of(page) == 0  # the arrows were the grid's, not the game's


def test_a_session_that_ends_says_why_and_can_be_opened_again(open_page):
    page = open_page()
    one_step(page, 2)
    page.evaluate("() => { WebSocket.prototype.plain = WebSocket.prototype.send }")
    page.evaluate("() => { WebSocket.prototype.send = function () { this.plain('{') } }")
    page.keyboard.press("p")
    wait(page, "document.getElementById('notice').innerText.includes('a message is not JSON')")
    page.evaluate("() => { WebSocket.prototype.send = WebSocket.prototype.plain }")
    page.click("#notice button")
    wait(page, "document.body.dataset.step === '0'")
