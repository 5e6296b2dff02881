"""HTML put together from elements, in which no text can be taken for markup.

>>> print(tag("p", "a < b, ", tag("b", "said <script>"), class_="note"))
<p class="note">a &lt; b, <b>said &lt;script&gt;</b></p>

SVG within a page is written the same way.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"img", "meta", "br", "hr", "col"})
"""Elements that have no content and no end."""


class Html(str):
    """Text that is HTML already; every other text is escaped where it is put in."""

    __slots__ = ()


def text(content: Any) -> Html:
    """Return anything as HTML: as it is if it is HTML, else its ``str``, escaped; nothing for None."""
    if isinstance(content, Html):
        return content
    return Html("" if content is None else html.escape(str(content), quote=True))


def tag(name: str, /, *content: Any, **attributes: Any) -> Html:
    """Return an element.

    Args:
        name: of the element.
        content: what is in it, see `text`.
        attributes: ``class_`` for ``class``, ``aria_label`` for ``aria-label``; one that is None or False is left out,
            one that is True has no value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{text(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start) if name in VOID else Html(f"{start}{join(content)}</{name}>")


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Return parts one after the other, see `text`."""
    return Html(text(between).join(text(part) for part in parts))


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], caption: str, **attributes: Any) -> Html:
    """Return a table that scrolls within itself where it is wider than the page.

    Args:
        head: of the columns.
        rows: of cells; the first cell of each is its heading.
        caption: what is in it; only readers that speak say it.
        attributes: of the table.
    """
    columns = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = []
    for first, *cells in rows:
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells)))
    content = tag("caption", caption), tag("thead", columns), tag("tbody", *body)
    return scrolling(tag("table", *content, **attributes), caption)


def scrolling(content: Html, label: str) -> Html:
    """Return what may be wider than the page in a box that scrolls, by keyboard too."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)
