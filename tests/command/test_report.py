"""The report: its figures against the pixels, and the page in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vszhdrv.command.report import measuring, page, pictures
from vszhdrv.light import ClipLight
from vszhdrv.shots import Shot
from vszhdrv.stills import srgb

WIDTH, HEIGHT, LENGTH = 160, 96, 5
LOG = [
    {"epoch": n, "total": 0.5 / n, "reconstruction": 0.4 / n, "temporal": 0.1 / n, "lr": 1e-3, "seconds": 2.0 * n}
    for n in range(1, 6)
]
LAMP = (120, 30)
"""Column and row of the lamp's centre."""


class Scene:
    """A gradient with a lamp that clips in the source, and is up to 6 times white in the result; frame 0 is dark."""

    most_pixels = 10**9

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length

    def frame(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        ground = np.stack([x / WIDTH, y / HEIGHT, np.full_like(x, 0.4)]) * np.float32(0.5)
        lamp = 1.5 * n * np.exp(-((x - LAMP[0]) ** 2 + (y - LAMP[1]) ** 2) / 300)
        hdr = np.maximum(ground, lamp * np.float32([1, 0.9, 0.7])[:, None, None]).astype(np.float32)
        hdr = hdr.astype(np.float16).astype(np.float32)  # as EXR files hold it
        return np.minimum(hdr, 1), hdr

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for n in numbers:
            yield n, *self.frame(n)


def network(numbers: Sequence[int], trained_on: str) -> page.Network:
    header = {
        "log": json.dumps(LOG),
        "training_frames": trained_on,
        "seconds": "10.2",
        "key": "0123abcd",
        "facts": '{"clip": "feedbeef"}',
    }
    return page.Network(header, numbers)


def subject(**other: Any) -> page.Subject:
    values: dict[str, Any] = {
        "name": "lamp.mp4",
        "size": (WIDTH, HEIGHT),
        "frames": range(LENGTH),
        "length": LENGTH,
        "primaries": 1,
        "white": 203.0,
        "shots": [Shot(0, LENGTH, 0)],
        "networks": [network(range(LENGTH), "[0, 1, 2, 4]")],
        "params": {"input": "/home/somebody/lamp.mp4", "preset": "fast", "<b>": "</script>"},
        "written": "5 EXR files",
        "second_round": 0.2,
    }
    return page.Subject(**{**values, **other})


def made(about: page.Subject | None = None, pairs: Any = None) -> page.Report:
    report = page.Report(about or subject(), pairs or Scene())
    assert list(report.measure())[-1] == (len(report.figures), len(report.figures))
    return report


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def unpacked(text: str, width: int, height: int) -> np.ndarray:
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, 3, height, width)
    return np.cumsum(low + 256 * high.astype(np.uint16), axis=2, dtype=np.uint16)


def test_figures_are_those_of_the_pixels() -> None:
    report, light = made(), ClipLight(LENGTH, WIDTH, HEIGHT)
    for figures in report.figures:
        sdr, hdr = Scene().frame(figures.number)
        assert figures.clipped == pytest.approx((sdr.max(axis=0) == 1).mean(), abs=0.002)
        luminance = np.array([0.2126, 0.7152, 0.0722])
        stops = np.log2(np.tensordot(luminance, hdr, 1) / np.tensordot(luminance, sdr, 1))
        assert figures.most_stops == pytest.approx(stops.max(), abs=1e-3)
        assert figures.gained_stops == pytest.approx(stops[stops >= 0.1].mean() if figures.gained else 0, abs=1e-3)
        assert figures.where == "upper right" or not figures.gained
        light.add(figures.number, figures.result)
    html = report.page()
    assert f'<b id="result-max-cll">{light.max_cll:,.0f}</b>' in html
    assert f'<b id="result-max-fall">{light.max_fall:,.0f}</b>' in html
    found = data_of(html)["light"]
    assert found["result_max"] == [pytest.approx(frame.result.max_nits, abs=0.01) for frame in report.figures]
    assert found["clipped"] == [pytest.approx(100 * frame.clipped, abs=0.001) for frame in report.figures]


def test_pixels_in_the_page_are_those_of_the_exr_files() -> None:
    for picture in data_of(made().page())["pictures"]:
        size = picture["width"], picture["height"]
        assert size == (WIDTH, HEIGHT)
        before = unpacked(picture["sdr"], *size)
        after = before + unpacked(picture["hdr"], *size)
        sdr, hdr = Scene().frame(picture["frame"])
        assert np.array_equal(before.view(np.float16), sdr.astype(np.float16))
        assert np.array_equal(after.view(np.float16), hdr.astype(np.float16))


def test_histogram_and_waveform_count_every_pixel() -> None:
    _, hdr = Scene().frame(4)
    nits = pictures.nits_of(hdr, 1, 203)
    histogram = pictures.histogram(nits)
    assert sum(histogram) == pytest.approx(100, abs=0.1)
    middle = pictures.LOW_NITS * (pictures.HIGH_NITS / pictures.LOW_NITS) ** (np.arange(120) / 120)
    assert sum(share for share, low in zip(histogram, middle, strict=True) if low >= 203) == pytest.approx(
        100 * (nits >= 203).mean(), abs=1
    )
    rows = np.frombuffer(base64.b64decode(pictures.waveform(nits)), np.uint8).reshape(120, 200)
    top = [np.flatnonzero(rows[:, column])[0] for column in (10, 150)]
    assert top[0] > top[1]  # the lamp is on the right, and rows begin with the brightest


def test_the_frames_to_look_at_are_the_extremes() -> None:
    report = made()
    assert measuring.worth_a_look(report.figures) == {4: "most clipped, largest gain", 2: "median"}


def test_the_verdict_says_it_in_one_line() -> None:
    verdict = made().verdict()
    clipped = np.mean([(Scene().frame(n)[0].max(axis=0) >= 0.99).mean() for n in range(LENGTH)])
    assert verdict.startswith(f"{100 * clipped:.1f} % of the clip clips. Highlights gained ")
    assert verdict.endswith("at the upper right of frame 4. 1 shot in 1 place, trained in 10 s; 5 EXR files.")


def test_a_clip_that_gained_nothing_is_said_to() -> None:
    class Flat(Scene):
        def frame(self, n: int) -> tuple[np.ndarray, np.ndarray]:
            black = np.zeros((3, HEIGHT, WIDTH), np.float32)
            return black, black

    report = made(pairs=Flat())
    assert report.verdict().startswith("0 % of the clip clips. Nothing was made brighter.")
    assert report.page()


def test_places_have_a_row_each() -> None:
    """A network for each, too: its frames are counted within the place, and trainings follow one another."""
    shots = [Shot(0, 2, 0), Shot(2, 4, 1), Shot(4, 5, 0)]
    networks = [network([0, 1, 4], "[0, 2]"), network([2, 3], "[1]")]
    report = made(subject(shots=shots, networks=networks))
    html = report.page()
    assert re.findall(r"<h3>(Place .*)</h3>", html) == ["Place 1: frames 0 to 1, 4", "Place 2: frames 2 to 3"]
    data = data_of(html)
    assert [picture["frame"] for picture in data["pictures"]] == [4, 1, 3]
    assert data["trained"] == [0, 3, 4] and (data["cuts"], data["places"]) == ([], [2, 4])
    assert data["losses"]["epoch"] == list(range(1, 11)) and (data["second_rounds"], data["networks"]) == ([4, 9], [5])
    assert "3 shots in 2 places, trained in 20 s" in report.verdict()


def test_of_many_places_those_that_gained_most_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 2)
    places = [Shot(n, n + 1, n) for n in range(LENGTH)]
    networks = [network([n], "[0]") for n in range(LENGTH)]
    html = made(subject(shots=places, networks=networks)).page()
    assert [picture["frame"] for picture in data_of(html)["pictures"]] == [3, 4]
    assert "Of 5 places, the 2 that gained most have pictures." in html


def test_long_clips_are_measured_in_part_and_the_page_says_so() -> None:
    pairs = Scene()
    pairs.most_pixels = 0
    report = made(subject(length=1000, frames=range(0, 5), shots=[Shot(0, 1000, 0)]), pairs)
    assert len(report.figures) == 5
    assert "1000, 5 of them measured" in report.page()
    assert measuring.to_measure(range(100), 5) == [0, 25, 50, 74, 99]


def test_large_pictures_shrink_until_the_page_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "WIDTHS", (160, 80))
    monkeypatch.setattr(page, "WIDTHS", (160, 80))
    report = made()
    whole = report.page()
    monkeypatch.setattr(page, "LARGEST", len(whole) - 1)
    smaller = data_of(report.page())["pictures"]
    assert {(picture["width"], picture["height"]) for picture in smaller} == {(80, 48)}


def test_nothing_of_a_setting_becomes_part_of_the_page() -> None:
    html = made().page()
    assert "&lt;b&gt;" in html and "<td></script></td>" not in html
    assert "/home/somebody" not in html and "feedbeef" in html


def test_ranges() -> None:
    assert page.ranges([0, 1, 2, 4, 7, 8]) == "0 to 2, 4, 7 to 8"


# --- in a browser


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(made().page(), encoding="utf-8")
    return path


class Opened:
    """The page in the browser, and what it said and asked for."""

    def __init__(self, context: Any, file: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("body[data-ready]")

    def shown(self, **state: Any) -> None:
        """Waits until the page shows these of its state."""
        self.page.wait_for_function(
            """(wanted) => {
                const shown = JSON.parse(document.body.dataset.shown ?? "{}");
                return Object.entries(wanted).every(([name, value]) => shown[name] === value);
            }""",
            arg=state,
        )

    def pixel(self, x: int, y: int) -> list[int]:
        read = "([x, y]) => [...document.getElementById('view').getContext('2d').getImageData(x, y, 1, 1).data]"
        found: list[int] = self.page.evaluate(read, [x, y])
        return found[:3]

    def expose(self, stops: float) -> None:
        self.page.locator("#exposure").fill(str(stops))
        self.shown(stops=stops)


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Opened(context, file)
    context.close()


def test_it_opens_without_an_error_and_asks_for_nothing(opened: Opened, file: Path) -> None:
    opened.page.wait_for_timeout(300)
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    assert opened.page.locator(".chart canvas").count() == 6  # waveforms, histogram, light, gains, losses


@pytest.mark.parametrize("stops", [-6, -3, -1, 0, 1, 4])
def test_what_it_paints_is_the_exr_at_that_exposure(opened: Opened, stops: float) -> None:
    opened.expose(stops)
    for divider, planes in ((0, Scene().frame(4)[1]), (100, Scene().frame(4)[0])):
        opened.page.locator("#divider").fill(str(divider))
        opened.shown(divider=divider)
        for x, y in (LAMP, (10, 80), (100, 40)):
            expected = srgb(planes[:, y, x] * 2.0**stops)
            assert np.abs(np.array(opened.pixel(x, y)) - expected).max() <= 1


def test_exposure_tells_source_and_result_apart_where_the_source_clips(opened: Opened) -> None:
    x, y = LAMP
    seen: dict[int, list[list[int]]] = {0: [], 100: []}
    for divider in seen:
        opened.page.locator("#divider").fill(str(divider))
        for stops in (0, -1, -2, -3):
            opened.expose(stops)
            seen[divider].append(opened.pixel(x, y))
    result, source = np.array(seen[0]), np.array(seen[100])
    assert (result[0] == 255).all() and (source[0] == 255).all()
    assert (result[1:] > source[1:]).all()
    assert (np.diff(source, axis=0) < 0).all() and (np.diff(result[2:], axis=0) < 0).all()


def test_keys_do_what_the_page_says(opened: Opened) -> None:
    keys = opened.page.keyboard
    opened.shown(picture=0, stops=-2, divider=round(100 * LAMP[0] / WIDTH), mask=False)
    for key, state in (
        ("ArrowUp", {"stops": -1.5}),
        ("ArrowDown", {"stops": -2}),
        ("ArrowRight", {"picture": 1}),
        ("ArrowLeft", {"picture": 0}),
        ("m", {"mask": True}),
        ("d", {"divider": 0}),  # the person's from now on
        ("D", {"divider": 100}),
    ):
        keys.press(key)
        opened.shown(**state)
    assert opened.page.locator("#mask").get_attribute("aria-pressed") == "true"


def test_the_mask_has_the_colours_of_its_legend(opened: Opened) -> None:
    opened.page.keyboard.press("m")
    opened.page.locator("#divider").fill("0")
    opened.shown(mask=True, divider=0)
    report = made()
    end = np.ceil(2 * max(frame.most_stops for frame in report.figures)) / 2
    stops = measuring.gained_stops(*Scene().frame(4), 1)[LAMP[1], LAMP[0]]
    expected = page.heat_colours()[round(255 * stops / end)]
    assert np.abs(np.array(opened.pixel(*LAMP)) - expected).max() <= 3
    red, green, blue = opened.pixel(10, 80)
    assert red == green == blue
    assert opened.page.locator("#ticks span").last.inner_text() == f"{end:g}"


def test_the_divider_follows_the_pointer(opened: Opened) -> None:
    box = opened.page.locator("#view").bounding_box()
    mouse = opened.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    opened.shown(divider=25)
    mouse.up()


def test_tone_curves_keep_what_is_above_white_apart(opened: Opened) -> None:
    opened.expose(0)
    opened.page.locator("#divider").fill("0")
    opened.page.locator("#curve").select_option("reinhard")
    opened.shown(curve="reinhard", divider=0)
    x, y = LAMP
    peak = float(Scene().frame(4)[1].max())
    value = Scene().frame(4)[1][:, y - 8, x]
    expected = srgb(value * (1 + value / peak**2) / (1 + value))
    assert np.abs(np.array(opened.pixel(x, y - 8)) - expected).max() <= 1
    assert opened.pixel(x, y)[0] > opened.pixel(x, y - 8)[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_either_scheme(browser: Any, file: Path, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True, is_mobile=True
    )
    opened = Opened(context, file)
    sizes = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    ink, back = opened.page.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    small = opened.page.evaluate(
        "[...document.querySelectorAll('button, select, summary, input')]"
        ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 44).length"
    )
    context.close()
    assert sizes[0] <= sizes[1]
    assert small == 0, "smaller than a finger"
    bright = [sum(int(number) for number in re.findall(r"\d+", colour)[:3]) for colour in (ink, back)]
    assert (bright[0] < bright[1]) == (scheme == "light")


def test_everything_has_a_name_for_screen_readers(opened: Opened) -> None:
    unnamed = opened.page.evaluate(
        """[...document.querySelectorAll('button, input, select, img, [role=img]')]
            .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('alt')
                || e.labels?.length || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert "Frame 4:" in opened.page.locator("#alt").inner_text()
    assert opened.page.locator("#exposure").get_attribute("aria-valuetext") == "\u22122.0 stops"
    assert opened.page.locator("html").get_attribute("lang") == "en"


def test_it_says_whether_the_screen_shows_hdr(opened: Opened) -> None:
    pytest.importorskip("imagecodecs", reason="needs imagecodecs")
    said = opened.page.locator("#hdr-state").inner_text()
    assert "no HDR screen (dynamic-range: standard)" in said
    assert opened.page.evaluate("document.getElementById('ultra').naturalWidth") == WIDTH
