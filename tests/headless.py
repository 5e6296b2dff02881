"""A browser without a window, and what pages do in it."""

import os
import shutil
from contextlib import contextmanager

import pytest

NEEDED = "TINYCNN_NEEDS_BROWSER"
"""Set this, and a test that finds no browser fails rather than being skipped."""
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _missing(what):
    words = f"no browser: {what}"
    if os.environ.get(NEEDED):
        pytest.fail(f"{words} ({NEEDED} is set)")
    pytest.skip(words)


@contextmanager
def chromium():
    """Start Chromium, with a profile of its own."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        _missing("install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS), chromium_sandbox=False)
        yield browser
        browser.close()


@contextmanager
def visit(browser, path, width=1280, height=900, scheme="light"):
    """Open a file, and make sure that it asked for nothing else and that nothing went wrong.

    Yields:
        The page.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    complaints, asked = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(path.resolve().as_uri())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [path.resolve().as_uri()]
