"""The pages as a reader sees them: built, served, and opened in a browser."""

import functools
import http.server
import logging
import threading

import headless
import pytest
from test_docs import DOCS, PAGES, ROOT

mkdocs = pytest.importorskip("mkdocs.commands.build", reason="pip install -e '.[docs]'")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not report."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with all pages but the reference, whose links lead nowhere here."""
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYCNN_DOCS", "pages")
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(ROOT)
        logging.getLogger("mkdocs").setLevel(logging.ERROR)
        mkdocs.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_formulas_are_there_before_any_script_runs(site):
    for path in PAGES:
        tex = path.read_text(encoding="utf-8").count("$$") // 2
        html = (site / path.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert html.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == tex, path
        assert "$$" not in html


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_asks_nothing_of_another_host(address, width):
    with headless.chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        for path in PAGES:
            page.goto(f"{address}/{path.relative_to(DOCS).with_suffix('.html')}")
            assert not complaints, (path, complaints)
            sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert sideways <= 0, f"{path.name} scrolls sideways by {sideways} pixels on a screen of {width}"
        page.wait_for_load_state("networkidle")
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}
        assert page.evaluate("document.fonts.check('16px \"STIX Two Math\"')")
