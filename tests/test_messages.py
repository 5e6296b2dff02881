"""Words for error messages."""

from tinycnn.messages import nearest, some


def test_nearest_suggests_only_what_is_close():
    assert nearest("ResNet2", ["resnet20", "lenet5"]) == "; did you mean 'resnet20'?"
    assert nearest("adma", ["adam", "adamax", "adamw"]) == "; did you mean 'adam'?"
    assert nearest("resnet21", ["resnet20", "resnet32"]) == "; did you mean 'resnet20'?"
    assert nearest("zzz", ["resnet20"]) == ""


def test_some_counts_the_rest():
    assert some([]) == "nothing"
    assert some(["a", "b"]) == "a, b"
    assert some("abcdefg") == "a, b, c, d and 3 more"
