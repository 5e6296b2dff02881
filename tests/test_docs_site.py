"""The pages as a reader sees them: built, served, and opened in a browser."""

import functools
import http.server
import importlib.util
import logging
import threading
import types

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
        try:
            mkdocs.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
        finally:
            logging.getLogger("mkdocs").setLevel(logging.NOTSET)
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


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script async src="https://cdn.example/x.js"></script>'),
        ("a.html", "<img alt=x src=//example.org/x.png>"),
        ("a.html", '<link rel="stylesheet" href="https://fonts.example/css">'),
        ("a.css", "@import 'https://fonts.example/x.css';"),
        ("a.css", "p { background: url(http://example.org/x.png) }"),
        ("a.html", r'<span class="arithmatex">\(x\)</span>'),
    ],
)
def test_what_would_need_a_network_is_reported(name, text, tmp_path, caplog):
    (tmp_path / name).write_text(text)
    config = types.SimpleNamespace(site_dir=str(tmp_path))
    with caplog.at_level("WARNING"):
        script("docs_hooks").on_post_build(config)
    assert name in caplog.text


def test_a_link_to_another_host_is_none_of_that(tmp_path, caplog):
    text = '<a href="https://example.org">x</a><link href="https://example.org/a" rel="canonical"><img src="x.png">'
    (tmp_path / "a.html").write_text(text)
    script("docs_hooks").on_post_build(types.SimpleNamespace(site_dir=str(tmp_path)))
    assert not caplog.text


def test_a_formula_that_is_not_understood_is_reported(caplog):
    hooks = script("docs_hooks")
    assert hooks.formula("x^2", False, "page.md").startswith("<math")
    for tex in (r"\frac{1}", r"\nosuchthing x", r"\left( x"):
        caplog.clear()
        hooks.formula(tex, False, "page.md")
        assert "page.md" in caplog.text, tex


def test_docstrings_become_markdown():
    """A table and a formula of the source, as `tinycnn.layers.linear` has them."""
    markdown = script("docs_docstrings").to_markdown
    rule = "=====  ========"
    text = f"{rule}\nname   meaning\n{rule}\nx | y  an input\n{rule}\n\nSo::\n\n    y = x     (1)\n\nDone."
    table = "| name | meaning |\n| --- | --- |\n| x \\| y | an input |"
    assert markdown(text) == f"{table}\n\nSo:\n\n```text\ny = x    (1)\n```\n\nDone."
    assert markdown(f"{rule}\nx      an input\n{rule}\n\nText") == "|  |  |\n| --- | --- |\n| x | an input |\n\nText"
    assert markdown("- b::\n\n    y = 1\n    z = 2") == "- b:\n\n    ```text\n    y = 1\n    z = 2\n    ```"
    assert markdown(">>> 1 + 1\n2\n\nText") == "```pycon\n>>> 1 + 1\n2\n```\n\nText"
