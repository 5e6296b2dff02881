"""What README shows is run as it stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_learns():
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names = {}
    exec(example, names)
    assert float(names["loss"]) < 0.2


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_table_names_every_model():
    from tinycnn import models

    for name in models.names():
        assert f"`{name}`" in README, name
