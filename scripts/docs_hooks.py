"""What happens while the site is built.

The API reference gets a page for each module of the package; formulas become MathML; and the finished pages are
checked: they must open without any network, with no script, style, font or picture from another host.
"""

import functools
import html
import logging
import os
import re
from pathlib import Path
from xml.etree import ElementTree

from latex2mathml import converter
from mkdocs.structure.files import File

PACKAGE = Path(__file__).parent.parent / "tinycnn"

log = logging.getLogger("mkdocs.hooks.tinycnn")
PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
CODE = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.DOTALL)
LOADED = re.compile(r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'> ]+""")
LINKED = re.compile(r"""<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//[^"'> ]+""")
STYLED = re.compile(r"""(?:url\(|@import\s+)["']?(?:https?:)?//[^"') ]+""")


def modules() -> dict[str, str]:
    """Where the page of each module is, by its dotted name; none where only the other pages are wanted, and soon."""
    if os.environ.get("TINYCNN_DOCS") == "pages":
        return {}
    found = (p for p in sorted(PACKAGE.rglob("*.py")) if (p.parent / "__init__.py").exists())
    paths = (p.relative_to(PACKAGE.parent).with_suffix("") for p in found)
    paths = ((p.parent, f"{p.parent}/index.md") if p.name == "__init__" else (p, f"{p}.md") for p in paths)
    return {".".join(p.parts): f"reference/{page}" for p, page in paths if p.name != "__main__"}


def on_config(config, **_):
    """The last entry of the navigation, a tree of all modules."""
    tree: dict = {}
    for name, page in modules().items():
        room, inner = tree, name.split(".")[1:]
        for part in inner:
            room = room.setdefault(part, {})
        room[""] = page
    if tree:
        config.nav.append({"Reference": branch(tree)})
    return config


def branch(tree: dict) -> list:
    entries = [tree[""]] if "" in tree else []
    for name, inner in tree.items():
        if name:
            entries.append({name: inner[""] if list(inner) == [""] else branch(inner)})
    return entries


def on_files(files, config, **_):
    for name, page in modules().items():
        files.append(File.generated(config, page, content=f"::: {name}\n"))
    return files


def on_page_content(content: str, page, **_) -> str:
    return FORMULA.sub(lambda m: formula(html.unescape(m[3]).strip(), m[2] == "[", page.file.src_uri), content)


def formula(tex: str, block: bool, where: str) -> str:
    try:
        return mathml(tex, block)
    except Exception as error:  # whatever goes wrong, the page and the formula are to be named
        log.warning("%s: no MathML for the formula %r: %s: %s", where, tex, type(error).__name__, error)
        return html.escape(tex)


@functools.cache
def mathml(tex: str, block: bool) -> str:
    if block:  # what is summed over stands below the sign, within brackets too
        tex = tex.replace(r"\sum_", r"\sum\limits_")
    text = converter.convert(tex, display="block" if block else "inline")
    for element in ElementTree.fromstring(text).iter():
        if len(element) != PARTS.get(element.tag.rpartition("}")[2], len(element)):
            raise ValueError("something is missing in a fraction, or behind a _ or ^")
    if left := re.search(r"\\[a-zA-Z]+", text):
        raise ValueError(f"{left[0]} is not understood")
    return text


def on_post_build(config, **_) -> None:
    site = Path(config.site_dir)
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for loaded in (*LOADED.findall(text), *LINKED.findall(text)):
            log.warning("%s loads something from another host: %s", path.relative_to(site), loaded)
        if "arithmatex" in CODE.sub("", text):
            log.warning("%s shows a formula that is no MathML", path.relative_to(site))
    for path in sorted(site.rglob("*.css")):
        for loaded in STYLED.findall(path.read_text(encoding="utf-8")):
            log.warning("%s loads something from another host: %s", path.relative_to(site), loaded)
