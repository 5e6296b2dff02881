"""What the pages of docs/ show is run as it stands there."""

import doctest
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import typer

from tinycnn import layers, losses, models, optim
from tinycnn.cli import app
from tinycnn.contract import CASES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*).*\n(?P<code>(?:.*\n)*?)(?P=indent)```$", re.MULTILINE)


def blocks(text):
    """(language, code, number of its first line) of every fenced block."""
    for found in FENCE.finditer(text):
        yield found["language"], textwrap.dedent(found["code"]), text.count("\n", 0, found.start("code")) + 1


def run(page, text):
    """Run the Python of a page from top to bottom, as one session; return what differs from what is shown."""
    names, differences = {"__name__": page}, []
    runner = doctest.DocTestRunner(verbose=False)
    for language, code, line in blocks(text):
        if language == "python":
            exec(compile("\n" * (line - 1) + code, page, "exec"), names)
        elif language == "pycon":
            examples = doctest.DocTestParser().get_examples(code)
            shown = doctest.DocTest(examples, names, page, page, line - 1, code)
            runner.run(shown, out=differences.append, clear_globs=False)
            names = shown.globs
    return "".join(differences)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_what_a_page_shows_is_what_happens(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # some show what is recorded in benchmarks/results
    differences = run(str(path), path.read_text(encoding="utf-8"))
    assert not differences, differences


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_blocks_are_of_known_kinds(path):
    """Output that nobody checks has no place; ``text`` is for drawings and formulas."""
    text = path.read_text(encoding="utf-8")
    found = list(blocks(text))
    assert text.count("```") == 2 * len(found)
    assert {language for language, _, _ in found} <= {"pycon", "python", "sh", "text", "toml"}
    assert not [code for language, code, _ in found if language != "pycon" and ">>>" in code]


def commands(path):
    """The lines of a page's ``sh`` blocks, each as its words; without what is behind a #."""
    shown = "".join(code for language, code, _ in blocks(path.read_text(encoding="utf-8")) if language == "sh")
    return [words for line in shown.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_are_there(path):
    """The commands of ``tinycnn`` and their options, by name, and what is to be explained."""
    known = typer.main.get_command(app).commands
    for name, *words in commands(path):
        if name == "tinycnn" and words:
            assert words[0] in known, words
            options = {option for parameter in known[words[0]].params for option in parameter.opts}
            assert {word for word in words[1:] if word.startswith("-")} <= options | {"--help"}, words
            if words[0] == "explain":
                target = [word for word in words[1:2] if not word.startswith("-")]
                assert {*target} <= {*CASES, *models.names(), "runs/NAME"}, words


def test_every_derivation_says_how_to_see_its_layers():
    """But those of what is not in a pass: weights to start from, rates, and what is done with gradients."""
    apart = {"initialization", "schedules", "clipping_averaging_scaling", "squared_and_binary"}
    for path in sorted((DOCS / "derivations").glob("*.md")):
        found = [words for words in commands(path) if words[:2] == ["tinycnn", "explain"]]
        assert bool(found) != (path.stem in apart), path.stem


def test_every_layer_loss_optimizer_and_schedule_is_derived():
    """Each public name stands on some page as it is written in a program: in code, not in passing."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "derivations").glob("*.md")))
    code = " ".join(re.findall(r"`[^`\n]+`", pages)) + " ".join(code for _, code, _ in blocks(pages))
    bases = layers.Layer, losses.Loss, optim.Optimizer, optim.LRScheduler
    public = [vars(room)[name] for room in (layers, losses, optim) for name in room.__all__]
    derived = {o.__name__ for o in public if isinstance(o, type) and issubclass(o, bases) and o not in bases}
    assert len(derived) > 60
    assert not {name for name in derived if not re.search(rf"\b{name}\b", code)}


def test_a_wrong_number_is_noticed():
    page = "# A\n\n```pycon\n>>> 1 + 1\n2\n>>> a = 3\n```\n\n??? note\n\n    ```pycon\n    >>> a + 1\n    5\n    ```\n"
    assert "Expected:\n    5\nGot:\n    4\n" in run("page", page)
    assert "line 12" in run("page", page)
    assert not run("page", page.replace("5", "4"))
