"""A real Chromium that can reach no network but this machine, and what is asked of a page in it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FAULTS = """
const faults = [];
const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
const twice = ids.filter((id, place) => ids.indexOf(id) !== place);
if (twice.length) faults.push('ids twice: ' + [...new Set(twice)].join(', '));
for (const drawing of document.querySelectorAll('.drawing')) {
  if (!drawing.querySelector('svg path, svg line')) faults.push('empty: ' + drawing.id);
  if (drawing.getAttribute('role') !== 'img') faults.push('no role: ' + drawing.id);
}
const named = element => (element.getAttribute('aria-label')
  || (element.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
    .map(id => document.getElementById(id)?.textContent ?? '').join(' ')
  || element.closest('label')?.textContent || element.textContent).trim();
const control = 'a[href], button, input, summary, [tabindex], [role], nav, section';
for (const element of document.querySelectorAll(control)) {
  if (element.closest('.drawing svg') || element.closest('#vg-tooltip-element')) continue;
  if (!named(element)) faults.push('no name: ' + element.outerHTML.slice(0, 80));
}
for (const table of document.querySelectorAll('table')) {
  const caption = table.caption?.textContent.trim();
  if (!caption) faults.push('no caption: ' + table.textContent.slice(0, 40));
  if (table.querySelector('th:not([scope])')) faults.push('no scope: ' + caption);
}
for (const link of document.querySelectorAll('a[href^="#"]')) {
  if (!document.getElementById(link.hash.slice(1))) faults.push('leads nowhere: ' + link.hash);
}
const wide = document.documentElement.scrollWidth - innerWidth;
if (wide > 0) faults.push(wide + ' px too wide for ' + innerWidth);
for (const mark of ['main', 'header', 'nav', 'h1', 'a.skip']) {
  if (document.querySelectorAll(mark).length !== 1) faults.push('not one ' + mark);
}
if (document.documentElement.lang !== 'en') faults.push('no language');
return faults;
"""
"""Returns what is wrong with a page: names, captions, ids, empty figures, width."""

REACHABLE = """
return [...document.querySelectorAll('a[href], button, summary, input:checked, .scroll')]
  .filter(element => element.checkVisibility() && !element.closest('details:not([open]) > .scroll'))
  .map((element, place) => { element.dataset.place = place; return String(place); });
"""
"""Numbers whatever can be used by hand or must be scrolled, and returns the numbers."""


@contextmanager
def opened(profile: Path) -> Iterator[Any]:
    """Opens a browser, or skips the test where there is none."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium or google-chrome with chromedriver on PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    try:
        yield browser
    finally:
        browser.quit()


def show(browser: Any, address: str, scheme: str = "light", width: int = 1280) -> None:
    """Opens a page in a colour scheme and a width, and waits until its figures are drawn."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)
    wait(browser, "!document.getElementById('drawings') || document.documentElement.dataset.drawn")


def wait(browser: Any, condition: str) -> None:
    """Waits until a condition is true in the page."""
    end = time.monotonic() + 30
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < end, f"never true in the page: {condition}"
        time.sleep(0.05)


def tabbed(browser: Any, most: int) -> list[str]:
    """Presses Tab from the top until the focus comes round; returns the numbers it met, in order.

    Args:
        browser: It shows a page whose elements `REACHABLE` has numbered.
        most: How often Tab is pressed at most.
    """
    from selenium.webdriver.common.keys import Keys

    met: list[str] = []
    browser.execute_script("scrollTo(0, 0); document.activeElement.blur();")
    for _ in range(most):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        place = browser.execute_script("return document.activeElement.dataset.place ?? ''")
        if place in met:
            break
        met.append(place)
    return met
