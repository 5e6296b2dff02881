"""What a layer says of itself: its docstring as HTML, and the lines that do its work, from the installed package."""

from __future__ import annotations

import html
import inspect
import re
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..kernels import im2col
from ..layers.base import Layer
from ..layers.conv import Conv2d

PACKAGE = Path(__file__).parent.parent
MOST_LINES = 70
"""Helpers of more lines than this are left out."""
_MARKS = (
    (re.compile(r"\*\*(.+?)\*\*", re.S), r"<strong>\1</strong>"),
    (re.compile(r"``(.+?)``", re.S), r"<code>\1</code>"),
    (re.compile(r"`(.+?)`", re.S), r"<code>\1</code>"),
    (re.compile(r"(?<![*\w])\*([^*\s][^*]*?)\*(?![*\w])", re.S), r"<em>\1</em>"),
)


def describe(kind: type[Layer]) -> dict[str, Any]:
    """Return ``doc``, the mathematics as HTML, and ``parts``, the source of forward, backward and what they call."""
    module = inspect.getmodule(kind)
    of_module, of_class = inspect.getdoc(module) or "", _idea(inspect.getdoc(kind) or "")
    own = "::" in of_class or "Backward" in of_class
    text = of_class if own else f"{of_class}\n\n{of_module}"
    return {"doc": to_html(text), "parts": [part for part in map(_part, _functions(kind)) if part]}


def _idea(doc: str) -> str:
    """Return a class's docstring up to its arguments, and without its examples."""
    return re.split(r"\n(?:Args|Shape|Raises|Attributes|Buffers|Sources?):|\n>>>", doc)[0].strip()


def _functions(kind: type[Layer]) -> list[Any]:
    """Return forward and backward, and the functions and methods beside them that these two use by name."""
    found: dict[str, Any] = {name: getattr(kind, name) for name in ("forward", "backward")}
    for method in list(found.values()):
        source, module = inspect.getsource(method), inspect.getmodule(method)
        for word in sorted(set(re.findall(r"\b[a-z_]\w*", source)), key=source.find):
            helper = _helper(kind, module, word)
            if helper is not None:
                found.setdefault(word, helper)
    if issubclass(kind, Conv2d):
        found |= {"im2col": im2col.im2col, "gather": im2col.gather, "scatter": im2col.scatter}
    return list(found.values())


def _helper(kind: type[Layer], module: ModuleType | None, word: str) -> Any:
    own = (c for c in kind.__mro__ if issubclass(c, Layer) and c is not Layer)
    method = next((vars(c)[word] for c in own if word in vars(c)), None)
    if isinstance(method, FunctionType):
        return method
    function = inspect.unwrap(getattr(module, word, None) or len)
    home = str(getattr(function, "__module__", ""))
    near = (module is not None and home == module.__name__) or home.startswith("tinycnn.kernels")
    return function if isinstance(function, FunctionType) and near and not word.startswith("check") else None


def _part(function: Any) -> dict[str, Any] | None:
    """Return a function's name, file, first line and source, indented as if it stood alone."""
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    if len(lines) > MOST_LINES:
        return None
    file = Path(inspect.getsourcefile(function) or "")
    where = f"tinycnn/{file.relative_to(PACKAGE).as_posix()}" if file.is_relative_to(PACKAGE) else file.name
    code = inspect.cleandoc("\n" + "".join(lines))
    return {"name": function.__qualname__, "file": where, "line": first, "code": code}


def to_html(doc: str) -> str:
    """Return a docstring of this package as HTML: paragraphs, tables and formulas; nothing in it is taken for markup.

    >>> to_html("**Forward**::\\n\\n    y = x < 2")
    '<p><strong>Forward</strong>:</p><pre>y = x &lt; 2</pre>'
    """
    blocks = re.split(r"\n\s*\n", doc.strip("\n"))
    return "".join(_block(block) for block in blocks if block.strip())


def _block(block: str) -> str:
    lines = block.split("\n")
    if all(line.startswith("    ") or not line for line in lines):
        return f"<pre>{html.escape(inspect.cleandoc(chr(10) + block))}</pre>"
    if re.fullmatch(r"=+( +=+)+", lines[0]):
        return _table(lines)
    if all(re.match(r"- |  ", line) for line in lines):
        items = re.split(r"(?:^|\n)- ", block)[1:]
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(block)}</p>"


def _table(lines: list[str]) -> str:
    """Return a table whose first line rules its columns."""
    starts = [match.start() for match in re.finditer("=+", lines[0])]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    rows = [[line[a:b].strip() for a, b in spans] for line in lines if not line.startswith("==")]
    cells = ("".join(f"<td>{_inline(cell)}</td>" for cell in row) for row in rows)
    return '<div class="scroll"><table class="legend">' + "".join(f"<tr>{row}</tr>" for row in cells) + "</table></div>"


def _inline(text: str) -> str:
    text = html.escape(text, quote=False).replace("::", ":")
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return text
