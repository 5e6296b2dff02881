import pytest

from tinycnn import data
from tinycnn.data import registry
from tinycnn.data.files import MissingError

NAMES = ["cifar10", "cifar100", "digits", "fashion-mnist", "hymenoptera", "imagefolder", "mnist"]


def test_names_are_what_load_takes(tmp_path):
    assert data.names() == NAMES
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
        ValueError, match=rf"^unknown dataset '{typed}'; did you mean '{meant}'[?] \(known: cifar10, cifar100, dig.*\)$"
    ):
        data.load(typed)


def test_an_unknown_name_near_nothing():
    with pytest.raises(ValueError, match=r"^unknown dataset 'zzz' \(known: cifar10, cifar100, digits, .*, mnist\)$"):
        data.load("zzz")


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"^digits: unknown split 'val': choose 'train' or 'test'$"):
        data.load("digits", "val")


def test_options_are_for_those_that_take_them():
    with pytest.raises(ValueError, match=r"^mnist: unknown option 'labels': it takes none$"):
        data.load("mnist", labels="coarse")
    with pytest.raises(ValueError, match=r"^cifar100: unknown option 'label'; did you mean 'labels'\?: it takes"):
        data.load("cifar100", label="coarse")
    with pytest.raises(ValueError, match=r"^imagefolder: unknown option 'colours': it takes size, shorter, channels"):
        data.load("imagefolder", colours=3)


def test_what_is_known_of_each(tmp_path):
    for name in NAMES:
        known = registry.entry(name)
        assert known.what
        assert known.origin is None or known.origin.name == name
        downloaded = known.origin is not None and bool(known.origin.parts)
        assert downloaded == (name in ("cifar10", "cifar100", "fashion-mnist", "mnist"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "^digits: cannot be downloaded: it is yours or bundled$"),
        ("imagefolder", "^imagefolder: cannot be downloaded"),
        ("hymenoptera", r"^hymenoptera: cannot be downloaded: get it from https://download\.pytorch\.org"),
    ],
)
def test_what_cannot_be_downloaded(name, message, tmp_path):
    with pytest.raises(data.DataError, match=message):
        registry.download(name, tmp_path)


def test_load_downloads_only_when_asked(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(registry.downloads, "offline", lambda: False)
    monkeypatch.setattr(registry.downloads, "download", lambda *what: asked.append(what) or [])
    with pytest.raises(MissingError):
        data.load("mnist", "train", tmp_path)
    assert not asked
    with pytest.raises(MissingError, match=r"^mnist: no train-images"):
        data.load("mnist", "train", tmp_path, download=True)
    assert asked == [(registry.entry("mnist").origin, tmp_path)]
    for name in ("hymenoptera", "imagefolder"):
        with pytest.raises(data.DataError):
            data.load(name, "train", tmp_path, download=True)
    data.load("digits", download=True)
    assert len(asked) == 1


def test_fetch_missing(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(registry.downloads, "offline", lambda: False)
    monkeypatch.setattr(registry.downloads, "download", lambda *what: asked.append(what) or ["a file"])
    for name in ("digits", "hymenoptera", "imagefolder"):
        assert registry.fetch_missing(name, tmp_path) == []
    assert registry.fetch_missing("cifar100", tmp_path) == ["a file"]
    assert asked == [(registry.entry("cifar100").origin, tmp_path, None)]
    (tmp_path / "cifar-100-python.tar.gz").touch()
    assert registry.fetch_missing("cifar100", tmp_path) == []
    with pytest.raises(data.DataError, match="is not a folder"):
        registry.fetch_missing("cifar100", tmp_path / "new")


def test_load_offline_says_what_is_missing_and_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYCNN_OFFLINE", "1")
    with pytest.raises(
        MissingError,
        match=rf"^cifar10: no cifar-10-.* in {tmp_path} \(looked in .*\): .*; nothing is downloaded",
    ):
        data.load("cifar10", "train", tmp_path, download=True)


def test_where(tmp_path):
    assert registry.where("digits")[0].name == "digits.npz"
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / "MNIST" / "raw" / name).touch()
    with pytest.raises(MissingError, match="mnist: no t10k-labels-idx1-ubyte or"):
        registry.where("mnist", tmp_path)
    (tmp_path / "t10k-labels.idx1-ubyte.gz").touch()
    found = registry.where("mnist", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found][2:] == [
        "MNIST/raw/t10k-images-idx3-ubyte",
        "t10k-labels.idx1-ubyte.gz",
    ]
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert registry.where("cifar10", tmp_path) == [tmp_path / "cifar-10-python.tar.gz"]
