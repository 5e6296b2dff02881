"""report.html as a browser shows it."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from headless import chromium, visit
from PIL import Image

from tinycnn import data, load, report

from .conftest import HARMFUL, QUOTED


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(finished_run, coloured_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = {"grey": finished_run, "coloured": coloured_run}
    return {name: report.write(run, folder / f"{name}.html") for name, run in runs.items()}


class Elements(HTMLParser):
    """The elements that a text names, in their order; every one has to be ended."""

    def __init__(self, text):
        super().__init__()
        self.names, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute is there twice"
        self.names.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["grey", "coloured"])
def test_it_looks_right(browser, pages, name, width, scheme):
    with visit(browser, pages[name], width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width, "it scrolls sideways"
        broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        assert broken == 0
        assert page.locator("img").count() >= 6
        pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
    assert pixels.shape[1] == width
    corner = pixels[0, 0].mean()
    assert corner > 200 if scheme == "light" else corner < 60
    drawn = (np.abs(pixels.astype(int) - pixels[0, 0]).sum(axis=2) > 60).mean()
    assert 0.02 < drawn < 0.6


@pytest.mark.parametrize("name", ["grey", "coloured"])
def test_the_browser_reads_the_elements_that_were_written(browser, pages, name):
    """It would add, move or end elements of a page that is not valid."""
    written = Elements(pages[name].read_text(encoding="utf-8"))
    with visit(browser, pages[name]) as page:
        read = page.evaluate("[...document.querySelectorAll('*')].map(e => e.localName.toLowerCase())")
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        named = page.evaluate("[...document.querySelectorAll('[aria-labelledby]')].map(e => e.ariaLabelledByElements)")
    assert read == written.names
    assert len(set(ids)) == len(ids)
    assert all(named)


def test_its_numbers_are_those_of_the_run(browser, pages, finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    with visit(browser, pages["grey"]) as page:
        accuracy = page.locator("#test-accuracy").inner_text()
        page.locator("summary", has_text="epochs in numbers").click()
        table = page.get_by_role("region", name="Every epoch")
        head = table.locator("thead th").all_inner_texts()
        body = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
        counts = page.locator(".confusion tbody td").all_inner_texts()
        charts = {svg.get_attribute("aria-label"): svg for svg in page.locator("svg").all()}
        told = {
            name: svg.locator(".pointers title").evaluate_all("all => all.map(t => t.textContent)")
            for name, svg in charts.items()
        }
    assert accuracy == f"{100 * result['test_accuracy']:.2f} %"
    assert head == [name.replace("_", " ") for name in rows[0]]
    assert [[float(cell) for cell in row] for row in body] == [
        [pytest.approx(value, rel=1e-5) for value in row.values()] for row in rows
    ]
    losses = [f"epoch {r['epoch']} · training {r['train_loss']:.4g} · validation {r['val_loss']:.4g}" for r in rows]
    assert told["Loss"] == losses
    assert [words.split()[-1] for words in told["Learning rate"]] == [f"{row['lr']:.4g}" for row in rows]
    confusion = np.array(counts, int).reshape(10, 10)
    labels = data.load("digits", "test").labels
    assert np.array_equal(confusion.sum(axis=1), np.bincount(labels))
    assert np.trace(confusion) / len(labels) == result["test_accuracy"]


def test_the_most_wrong_images_are_shown_with_what_the_network_says(browser, pages, finished_run):
    test = data.load("digits", "test")
    scores = load(finished_run)(test.normalize(data.fit_images(test.images, (32, 32)))).astype(np.float64)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    true = p[np.arange(len(p)), test.labels]
    wrong = [i for i in np.argsort(true) if p[i].argmax() != test.labels[i]]
    with visit(browser, pages["grey"]) as page:
        images = page.locator(".tiles-of-images img")
        shown = images.evaluate_all("all => all.map(i => [i.title, i.alt, i.naturalWidth, i.naturalHeight])")
        captions = page.locator(".tiles-of-images figcaption").all_inner_texts()
        pixels = images.first.evaluate(
            """image => { const c = document.createElement('canvas'); c.width = c.height = 8;
            const g = c.getContext('2d'); g.drawImage(image, 0, 0); return [...g.getImageData(0, 0, 8, 8).data] }"""
        )
    assert len(shown) == min(len(wrong), 24)
    for (title, alt, *size), caption, i in zip(shown, captions, wrong, strict=False):
        assert title == f"test image {i:,}"
        assert alt == f"{test.labels[i]}, said to be {p[i].argmax()}"
        assert size == [8, 8]
        assert caption.split()[1] == f"{100 * p[i].max():.1f}"
    assert np.array_equal(np.array(pixels).reshape(8, 8, 4)[:, :, 0], test.images[wrong[0], 0])


def test_names_of_classes_are_no_markup(browser, pages):
    with visit(browser, pages["coloured"]) as page:
        assert page.locator("script, .confusion img, .scroll img").count() == 0
        assert page.locator(".confusion tbody th").all_inner_texts() == sorted([HARMFUL, QUOTED])


def test_by_keyboard(browser, pages):
    """What scrolls or opens can be reached and used without a mouse."""
    with visit(browser, pages["grey"], width=390) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.localName") == "summary"
        page.keyboard.press("Enter")
        assert page.locator("details").first.get_attribute("open") is not None
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Every epoch"
        scrolls = "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
        scrolls += "getComputedStyle(e).overflowX === 'auto' && e.tabIndex !== 0).length"
        assert page.evaluate(scrolls) == 0
