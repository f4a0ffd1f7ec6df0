"""A reader's way through a whole report, click by click, at one width.

Every category, every figure, its plotted values, the claims and every table. The names of the
buttons are Snakemake's.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from report.browser import Browser

HIDE = "document.querySelector('nav h1 a')"
SHOW = "[...document.querySelectorAll('div.fixed a')].at(-1)"
HOME = "document.querySelector('nav nav li a')"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


def link(words):
    """The link of the menu that says these words."""
    said = json.dumps(words)
    return f"[...document.querySelectorAll('nav a')].find(a => a.innerText.trim() === {said})"


def row(words):
    """The button that shows the result whose row of the menu holds these words."""
    said = json.dumps(words)
    rows = "[...document.querySelectorAll('nav tbody tr')]"
    return f"{rows}.find(row => row.innerText.includes({said}))?.querySelector('a')"


def open_report(browser: Browser, report, width):
    """Load the report at a width; its body must not be wider."""
    browser.resize(width)
    browser.open(report)
    browser.wait_for("document.querySelector('nav')?.innerText.includes('RESULTS')")
    assert browser.value(OVERFLOW) <= 0


def open_category(browser: Browser, category):
    """One part of the report, from wherever its reader is."""
    if not browser.value(f"!!({link(category)})"):
        browser.click(HOME)
    browser.click(link(category))
    browser.wait_for("document.querySelectorAll('nav tbody tr').length > 0")


def show_figure(browser: Browser, title):
    """A figure's picture, once it is drawn."""
    browser.click(row(title))
    browser.wait_for("document.querySelector('img:not(nav img)')?.naturalWidth > 300")


def show_page(browser: Browser, label):
    """A page in its frame, once its tables are drawn; with the menu out of the way."""
    browser.click(row(label))
    browser.wait_for("!!document.querySelector('input[type=search]')", framed=True)
    browser.click(HIDE)
    browser.wait_for("document.querySelector('iframe').clientWidth > innerWidth - 20")
    assert browser.value(OVERFLOW) <= 0
    assert browser.value(OVERFLOW, framed=True) <= 0


def show_menu(browser: Browser):
    """The menu again."""
    browser.click(SHOW)


def read_claims(browser: Browser, words, *, framed=True):
    """Search the claims for words, and open the points of the first that has some."""
    shown = "[...document.querySelectorAll('.claims tbody tr')].filter(r => r.offsetHeight)"
    num_claims = browser.value(f"{shown}.length", framed=framed)
    field = "document.querySelector('input[type=search]')"
    browser.click(field, framed=framed)
    browser.wait_for(f"document.activeElement === {field}", framed=framed)
    browser.type(words)
    browser.wait_for(f"{field}.value === {json.dumps(words)}", framed=framed)
    said = json.dumps(words.lower())
    holds = f"r => r.textContent.toLowerCase().includes({said})"
    browser.wait_for(f"{shown}.length > 0 && {shown}.every({holds})", framed=framed)
    assert browser.value(f"{shown}.length", framed=framed) < num_claims
    browser.click(
        "[...document.querySelectorAll('summary')].find(s => s.checkVisibility())", framed=framed
    )
    browser.wait_for("[...document.querySelectorAll('details[open]')].length === 1", framed=framed)
    points = "document.querySelector('details[open] li')"
    assert browser.value(f"{points}.checkVisibility()", framed=framed)
    assert "=" in browser.value(f"{points}.innerText", framed=framed)  # the row behind it


def read_tables(browser: Browser, tables: Sequence[str]):
    """Go to every table by its link."""
    for name in tables:
        browser.click(f"document.querySelector('a[href=\"#{name}\"]')", framed=True)
        top = f"document.getElementById('{name}').getBoundingClientRect().top"
        browser.wait_for(f"0 <= {top} + 1 && {top} < innerHeight", framed=True)


def read_report(
    browser: Browser,
    report: Path,
    width: int,
    *,
    figures: Mapping[str, Sequence[str]],
    tables: Sequence[str],
    claim: str,
):
    """Everything a reader can open.

    Args:
        browser: a started one.
        report: the report's file.
        width: of the window, in pixels.
        figures: titles of the figures of each category.
        tables: names of the tables on the page of all.
        claim: words that some claims have and others have not.
    """
    open_report(browser, report, width)
    open_category(browser, "1 Claims")
    show_page(browser, "Claims and the points behind them")
    read_claims(browser, claim)
    show_menu(browser)
    for category, titles in figures.items():
        open_category(browser, category)
        for title in titles:
            show_figure(browser, title)
    open_category(browser, "4 Tables and provenance")
    show_page(browser, "Every table")
    read_tables(browser, tables)
    assert browser.complaints == []
