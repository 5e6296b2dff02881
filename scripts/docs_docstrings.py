"""Docstrings as Markdown, for the API reference.

They are written to be read in the source: tables between rows of ``=``, formulas indented behind ``::``, examples
behind ``>>>``.  Markdown has other signs for all three.
"""

import re
import textwrap

import griffe

TABLE = re.compile(r"(?m)^(?P<rule>=+(?: +=+)+) *\n(?P<rows>(?:.*\S.*\n)+)(?P=rule) *$")
EXAMPLE = re.compile(r"(?m)^(?P<indent> *)>>> .*(?:\n(?! *$).*)*")
FORMULA = re.compile(r"(?m)^(?P<text>.*\S)::\n\n(?P<body>(?:(?:    .*)?\n)*    .*)")


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """
    >>> print(to_markdown("- So that::\\n\\n    y = x   (1)\\n\\nas claimed."))
    - So that:
    <BLANKLINE>
        ```text
        y = x   (1)
        ```
    <BLANKLINE>
    as claimed.
    """
    text = TABLE.sub(lambda m: table(m["rule"], m["rows"].splitlines()), text)
    text = EXAMPLE.sub(lambda m: fence(m[0], m["indent"], "pycon"), text)
    return FORMULA.sub(lambda m: f"{m['text']}:\n\n{formula(m['body'], in_list(text, m.start('text')))}", text)


def table(rule: str, rows: list[str]) -> str:
    """
    A table whose columns stand under the runs of ``=`` in ``rule``; one more such row, if any, ends its head.

    >>> print(table("==  ===", ["N   images", "x   the input"]))
    |  |  |
    | --- | --- |
    | N | images |
    | x | the input |
    """
    starts = [m.start() for m in re.finditer("=+", rule)]
    head = next((k for k, row in enumerate(rows) if set(row) == {"=", " "}), 0)
    named = rows[:head] or [""]
    lines = [cells(row, starts) for row in named + rows[head + (head > 0) :]]
    lines.insert(len(named), ["---"] * len(starts))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells(row: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(row) + 1]
    return [row[a:b].strip().replace("|", r"\|") for a, b in zip(starts, ends, strict=True)]


def formula(body: str, indent: str) -> str:
    body = re.sub(r"(?m) {4,}(\(\d+\))$", r"    \1", body.rstrip())  # numbers of equations, far to the right
    return textwrap.indent(fence(textwrap.dedent(body), "", "text"), indent)


def in_list(text: str, place: int) -> str:
    """The indent of what belongs to a list item, if the paragraph at ``place`` is one."""
    paragraph = text.rfind("\n\n", 0, place) + 2 if "\n\n" in text[:place] else 0
    return "    " if text.startswith("- ", paragraph) or "\n- " in text[paragraph:place] else ""


def fence(code: str, indent: str, language: str) -> str:
    return f"{indent}```{language}\n{code}\n{indent}```"
