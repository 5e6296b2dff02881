"""The experiments of examples/: of one form, and what the site shows of them is what they said."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))


def load(path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


laboratory = load(ROOT / "scripts" / "laboratory.py")


def test_numbers_are_given_once():
    assert [path.stem[:2] for path in SCRIPTS] == [f"{k:02}" for k in range(1, len(SCRIPTS) + 1)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_an_experiment_has_a_title_and_ends_with_a_conclusion(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    tree = ast.parse(text)
    title, blank, *about = ast.get_docstring(tree).splitlines()
    assert title.endswith(".")
    assert not blank
    assert about
    assert ast.unparse(tree.body[-1]).startswith("lab.conclude(options, figure, ")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_what_the_site_shows_was_said_by_this_script(path):
    """After a change: python scripts/laboratory.py."""
    found = laboratory.recorded()[path.stem]
    assert found["script"] == laboratory.fingerprint(path), f"python scripts/laboratory.py {path.stem[:2]}"
    assert f"figure: {path.stem}.png" in found["said"]
    assert (ROOT / "docs" / "laboratory" / f"{path.stem}.png").stat().st_size < 150_000


def test_nothing_is_shown_of_experiments_that_are_no_more():
    names = {path.stem for path in SCRIPTS}
    assert set(laboratory.recorded()) == names
    assert {path.stem for path in (ROOT / "docs" / "laboratory").glob("*.png")} == names
