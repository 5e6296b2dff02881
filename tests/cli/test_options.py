"""The options of ``tinycnn train``: assignments, and the help."""

import pytest
import typer

from tinycnn.cli.options import folder, merged, parsed


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["lr=0.1", "batch-size=3"], {"lr": 0.1, "batch_size": 3}),
        (["clip_norm=null", "ema=none", "recompute_statistics=True"],
         {"clip_norm": None, "ema": None, "recompute_statistics": True}),
        (["optimizer.nesterov=true", "optimizer.eps=1.0"], {"optimizer_options": {"nesterov": True, "eps": 1.0}}),
        (["data.labels=coarse"], {"data_options": {"labels": "coarse"}}),
        (["augment=crop4+flip"], {"augment": "crop4+flip"}),
        (["schedule.warmup_mode=constant"], {"schedule_options": {"warmup_mode": "constant"}}),
        ([], {}),
    ],
)  # fmt: skip
def test_assignments(assignments, expected):
    assert parsed(assignments) == expected


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("lr", "write NAME=VALUE"),
        ("=3", "write NAME=VALUE"),
        ("model.=3", "write NAME=VALUE"),
        ("batch_sise=3", "unknown setting 'batch_sise'; did you mean 'batch_size'"),
        ("modle.dropout=3", "unknown setting 'modle.dropout'"),
        ("recipe=a", "unknown setting 'recipe'"),
        ("model_options=3", "unknown setting 'model_options'"),
    ],
)
def test_assignments_that_make_no_sense(assignment, words):
    with pytest.raises(ValueError, match=words):
        parsed([assignment])


def test_merged():
    assert merged({"lr": 0.5, "seed": None, "augment": "none", "mix": "mixup"}, ["shift=1"]) == {
        **{"lr": 0.5, "augment": "", "mix": "mixup", "shift": 1}
    }
    with pytest.raises(ValueError, match="--batch-size and --set batch_size are both given"):
        merged({"batch_size": 3}, ["batch_size=4"])


def test_an_empty_folder():
    with pytest.raises(typer.BadParameter, match="an empty name"):
        folder("")


def test_help_has_headings(command):
    assert command("train", "--help") == 0
    lines = command.out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        *("What is trained:", "How it is trained:", "Images:", "Against learning by heart:", "The run:"),
        "What is shown:",
    ]
    assert max(map(len, lines)) <= 80
    assert "--help" in command.out
