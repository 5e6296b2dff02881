import pytest

from tinycnn import data


def test_names_are_what_load_takes(tmp_path):
    assert data.names() == ["cifar10", "digits", "fashion-mnist", "hymenoptera", "imagefolder", "mnist"]
    for name in data.names():
        if name == "digits":
            assert data.load(name, data_dir=tmp_path).name == name
        else:
            with pytest.raises(data.DataError, match=rf"^{name}: no .* in "):
                data.load(name, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("minst", "mnist"), ("MNIST", "mnist"), ("fashion_mnist", "fashion-mnist"), ("cifar-10", "cifar10")],
)
def test_an_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(
        ValueError, match=rf"^unknown dataset '{typed}'; did you mean '{meant}'[?] \(known: cifar10, dig.*\)$"
    ):
        data.load(typed)


def test_an_unknown_name_near_nothing():
    with pytest.raises(ValueError, match=r"^unknown dataset 'zzz' \(known: cifar10, digits, .*, mnist\)$"):
        data.load("zzz")


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"^digits: unknown split 'val': choose 'train' or 'test'$"):
        data.load("digits", "val")
