"""A page of the site for each experiment of examples/, from its script and from what it said and drew."""

import ast
import json
import textwrap
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OVERVIEW = "laboratory/index.md"


def results() -> dict[str, dict]:
    """What scripts/laboratory.py wrote down, by the name of the script."""
    return json.loads((ROOT / "docs/laboratory/results.json").read_text(encoding="utf-8"))


def on_config(config, **_):
    for entry in config.nav:
        if "Laboratory" in entry:
            entry["Laboratory"] += [f"laboratory/{name}.md" for name in results()]
    return config


def on_files(files, config, **_):
    for name, result in results().items():
        files.append(File.generated(config, f"laboratory/{name}.md", content=page(name, result)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """The overview: every experiment with its conclusion."""
    if page.file.src_uri != OVERVIEW:
        return markdown
    return markdown + "".join(
        f"\n## [{title(name)}]({name}.md)\n\n{conclusion(result)}\n\n![Figure of {name}]({name}.png)\n"
        for name, result in results().items()
    )


def page(name: str, result: dict) -> str:
    """What an experiment is about, what came out, and how it is done."""
    text = source(name)
    _, _, about = ast.get_docstring(ast.parse(text)).partition("\n")
    said = textwrap.indent(result["said"].rpartition("\n\n")[0], 8 * " ")
    return (
        f"# {title(name)}\n\n{about.strip()}\n\n"
        f"## What came out\n\n![Figure of {name}]({name}.png)\n\n{conclusion(result)}\n\n"
        f'??? note "All that it said, in {result["seconds"]} s on two cores"\n\n{said}\n\n'
        f"## The script\n\n`python examples/{name}.py`\n\n```python\n{text}```\n"
    )


def source(name: str) -> str:
    return (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")


def title(name: str) -> str:
    return ast.get_docstring(ast.parse(source(name))).partition("\n")[0].rstrip(".")


def conclusion(result: dict) -> str:
    """The last paragraph but the one that names the figure, with the lines as they were."""
    lines = result["said"].split("\n\n")[-2].splitlines()
    return "  \n".join(line.replace("*", r"\*").replace("_", r"\_") for line in lines)
