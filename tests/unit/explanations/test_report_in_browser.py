# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The report as a person sees it: in Chromium, by mouse, keyboard and touch."""

import os
import shutil
from pathlib import Path

import pytest

from anomalib_logic import HtmlReport

from .conftest import SCRIPT, Brightness, data, engine, make_parts

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium, from the system or from ``playwright install chromium``."""
    installed = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with playwright.sync_playwright() as driver:
        if installed is None and not Path(driver.chromium.executable_path).is_file():
            pytest.skip("no browser: install Debian's package chromium, or run `playwright install chromium`")
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium has no sandbox for root
        chromium = driver.chromium.launch(executable_path=installed, args=["--no-sandbox"] if root else [])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The report of a run on odd files."""
    folder = tmp_path_factory.mktemp("report")
    parts = make_parts(folder / "parts")
    for path in parts.rglob("one pixel high.png"):
        path.unlink()
    run = engine(folder, HtmlReport(folder / "report.html"))
    run.test(Brightness(visualizer=False), datamodule=data(parts, masks=True))
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser, address):
    """The page; an error, a message or a request of it fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    opened = context.new_page()
    wrong = []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert not wrong


def names(page) -> list[str]:
    return page.locator("li:visible h2").all_text_contents()


def scores(page) -> list[float]:
    return [float(card.get_attribute("data-score")) for card in page.locator("li:visible").all()]


def opacity(page, name: str) -> float:
    layer = page.get_by_role("button", name=f"Anomaly map of {name}", exact=True).locator(".seen")
    return float(layer.evaluate("element => getComputedStyle(element).opacity"))


def test_wrong_answers_are_first_when_the_page_opens(page):
    verdicts = page.locator("li .verdict").all_text_contents()
    assert verdicts == ["false alarm", "missed"] + ["right"] * 10
    assert names(page)[:2] == ["too bright.png", "missed.png"]


def test_order_follows_the_score_in_both_directions_and_the_name(page):
    page.get_by_label("Order").select_option("lowest score first")
    assert scores(page) == sorted(scores(page))
    page.get_by_label("Order").select_option("highest score first")
    assert scores(page) == sorted(scores(page), reverse=True)
    page.get_by_label("Order").select_option("by name")
    assert [name for name in names(page) if name[0].isdigit()] == ["0.png", "1.png", "2.png"]
    page.get_by_label("Order").select_option("wrong first")
    assert names(page)[:2] == ["too bright.png", "missed.png"]


def test_kind_answer_and_name_filter(page):
    page.get_by_label("Kind").select_option("good & new")
    assert sorted(names(page)) == ["0.png", "1.png", "2.png", "too bright.png"]
    page.get_by_label("Answer").select_option("wrong")
    assert names(page) == ["too bright.png"]
    assert page.locator("#shown").inner_text() == "1 of 12 images"
    page.get_by_label("Kind").select_option("all")
    page.get_by_role("searchbox", name="Name").fill("MISS")
    assert names(page) == ["missed.png"]


def test_map_is_seen_under_the_mouse_and_not_before(page):
    assert opacity(page, "plain.png") == 0
    page.get_by_role("button", name="Anomaly map of plain.png").hover()
    assert opacity(page, "plain.png") == 1


def test_keyboard_reaches_a_picture_shows_its_map_and_keeps_it(page):
    page.get_by_label("show all maps").focus()
    page.keyboard.press("Tab")
    first = names(page)[0]
    assert opacity(page, first) == 1  # focus
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert opacity(page, first) == 1  # kept
    assert page.locator("[aria-pressed=true]").count() == 1


def test_tap_shows_a_map_and_a_second_tap_hides_it(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto(address)
    button = phone.get_by_role("button", name="Anomaly map of missed.png")
    button.tap()
    assert opacity(phone, "missed.png") == 1
    button.tap()
    assert opacity(phone, "missed.png") == 0
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways
    context.close()


def test_all_maps_can_be_shown(page):
    page.get_by_label("show all maps").check()
    assert {opacity(page, name) for name in ("plain.png", "missed.png")} == {1.0}


def test_pictures_are_decoded_and_the_ground_truth_has_the_same_one(page):
    sizes = page.locator("li img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(sizes) == 12 * 2 + 8 * 2  # image and map, and where there is a mask image and mask
    assert min(sizes) >= 2
    card = page.locator("li", has_text="missed.png")
    assert card.locator(".again").get_attribute("src") == card.locator(".picture").get_attribute("src")


def test_box_of_a_region_lies_where_the_bright_square_is(page):
    card = page.locator("li", has_text="plain.png")
    picture, box = card.locator(".picture").bounding_box(), card.locator("rect").bounding_box()
    assert (box["x"] - picture["x"]) / picture["width"] == pytest.approx(1 / 4, abs=0.05)
    assert box["width"] / picture["width"] == pytest.approx(1 / 4, abs=0.07)
    assert (box["y"] - picture["y"]) / picture["height"] == pytest.approx(1 / 4, abs=0.05)


def test_names_are_shown_as_they_are_and_run_nothing(page):
    assert 'it\'s "quoted" & <b>bold<.png' in names(page)
    assert "größe 漢字.png" in names(page)
    titles = page.locator("h2").evaluate_all("all => all.map(one => one.title)")
    assert any(f"{SCRIPT}/script>" in title for title in titles)
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_of_wcag_aa(browser, address, scheme):
    context = browser.new_context(color_scheme=scheme)
    opened = context.new_page()
    opened.goto(address)
    ratios = opened.evaluate(
        """() => {
          const parse = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const luminance = (colour) => parse(colour).map((value) => value / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (element) => {
            const colour = getComputedStyle(element).backgroundColor;
            return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
          };
          return [...document.querySelectorAll("h1, h2, p, label, summary, .verdict, .faint, figcaption")]
            .filter((element) => element.checkVisibility())
            .map((element) => [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a))
            .map(([light, dark]) => (light + 0.05) / (dark + 0.05));
        }"""
    )
    context.close()
    assert len(ratios) > 30
    assert min(ratios) >= 4.5
