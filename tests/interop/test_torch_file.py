"""Files of torch.save, written by PyTorch and read without it."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from tinycnn.interop import CheckpointError, read_torch
from tinycnn.interop.torch_file import MAGIC, MOST_REPEATED, MOST_TENSORS

KINDS = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
KINDS += [
    "complex128",
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e8m0fnu",
]
WIDE = {"bfloat16": "float32", **{kind: "float32" for kind in KINDS if kind.startswith("float8")}}


@pytest.fixture(params=["zip", "stream"])
def save(request, tmp_path):
    """Save an object as PyTorch does now, or did once, and return the path."""

    def saved(value, **options):
        torch.save(value, tmp_path / "m.pth", _use_new_zipfile_serialization=request.param == "zip", **options)
        return tmp_path / "m.pth"

    saved.kind = request.param
    return saved


def assert_same(found, tensors):
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        expected = tensor.detach().to(getattr(torch, WIDE.get(kind, kind))).numpy()
        assert found[name].dtype == expected.dtype, name
        assert found[name].shape == expected.shape, name
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_of_every_type(save, protocol):
    tensors = {kind: torch.tensor([[1, 0, 2], [1, 4, 1]]).to(getattr(torch, kind)) for kind in KINDS}
    assert_same(read_torch(save(tensors, pickle_protocol=protocol)), tensors)


def test_views_of_shared_storages(save):
    x = torch.arange(60.0)
    tensors = {
        "all": x.view(3, 4, 5),
        "transposed": x.view(3, 4, 5).permute(2, 0, 1),
        "steps": x[3::7],
        "inner": x.view(6, 10)[1:5, 2:9:3],
        "one": x[17],
        "expanded": x[4:5].expand(7),
        "none": x[:0].view(0, 3),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.arange(6).half()[1::2],
        "brain": torch.arange(6).bfloat16().view(2, 3).t(),
    }
    found = read_torch(save(tensors))
    assert_same(found, tensors)
    assert np.shares_memory(found["all"], found["steps"])
    assert not found["all"].flags.writeable
    assert found["channels last"].strides == tuple(4 * s for s in tensors["channels last"].stride())


def test_modules_parameters_and_what_is_beside_them(save):
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 3, 3), bn=nn.BatchNorm2d(3)))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "best": 91.5, "name": "ü", "none": None, "state_dict": module.state_dict()}
    saved |= {"optimizer": optimizer.state_dict(), "size": torch.Size([1, 2]), "device": torch.device("cpu")}
    saved |= {"scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4]).state_dict(), "numpy": np.float64(2)}
    saved["top1"] = torch.tensor(91.5)
    found = read_torch(save(saved))
    assert_same(found, module.state_dict())
    extra = found.extra
    assert (extra["epoch"], extra["best"], extra["name"], extra["none"], extra["numpy"]) == (3, 91.5, "ü", None, 2.0)
    assert (extra["size"], extra["device"], float(extra["top1"])) == ((1, 2), "cpu", 91.5)
    assert extra["scheduler"]["milestones"] == {2: 1, 4: 1}
    state = optimizer.state_dict()["state"][0]
    np.testing.assert_array_equal(extra["optimizer"]["state"][0]["exp_avg"], state["exp_avg"].numpy())
    assert_same(read_torch(save(dict(module.named_parameters()))), dict(module.named_parameters()))


def test_bytes_in_the_other_order(tmp_path):
    """PyTorch on a big-endian machine writes the same archive with its own bytes, and says so."""
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, -2]), "c": torch.tensor([1.5]).bfloat16()}
    torch.save(tensors, tmp_path / "little.pth")
    with zipfile.ZipFile(tmp_path / "little.pth") as old, zipfile.ZipFile(tmp_path / "big.pth", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name:
                size = {"0": 4, "1": 8, "2": 2}[name.rsplit("/", 1)[1]]
                data = np.frombuffer(data, f"V{size}").view(np.uint8).reshape(-1, size)[:, ::-1].tobytes()
            new.writestr(name, data)
    found = read_torch(tmp_path / "big.pth")
    assert_same(found, tensors)
    assert all(x.dtype.isnative for x in found.values())


def test_tensors_that_were_on_a_gpu(tmp_path):
    torch.save({"a": torch.arange(3.0)}, tmp_path / "m.th", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "m.th").read_bytes()
    gpu = raw.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0").replace(
        b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage"
    )
    assert gpu.count(b"cuda") == 2
    (tmp_path / "m.th").write_bytes(gpu)
    assert read_torch(tmp_path / "m.th")["a"].tolist() == [0, 1, 2]


def test_views_in_old_streams(tmp_path):
    """Before 0.4 a storage could be a part of another, and tensors were rebuilt by another function."""

    def rebuild(pid, offset, size, stride):
        return Call(torch._utils._rebuild_tensor, pid, offset, size, stride)

    whole = ("storage", torch.FloatStorage, "7", "cpu", 10, None)
    part = ("storage", torch.FloatStorage, "7", "cpu", 10, ("8", 4, 5))
    tensors = {"a": rebuild(whole, 1, (2, 2), (2, 1)), "b": rebuild(part, 1, (4,), (1,))}
    (tmp_path / "m.pth").write_bytes(stream(tensors))
    found = read_torch(tmp_path / "m.pth")
    assert found["a"].tolist() == [[1, 2], [3, 4]]
    assert found["b"].tolist() == [5, 6, 7, 8]


# ---- what is refused ---------------------------------------------------------------------------------------


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


TEN = (("7", np.arange(10, dtype="<f4")),)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


def stream(value, storages=TEN):
    """An old file of a value in which persistent ids stand for storages."""
    file = io.BytesIO()
    for head in (MAGIC, 1001, {}):
        pickle.dump(head, file, 2)
    _Pickler(file, 2).dump(value)
    pickle.dump([key for key, _ in storages], file, 2)
    for _, data in storages:
        file.write(struct.pack("<q", len(data)) + data.tobytes())
    return file.getvalue()


def archive(value, storages=TEN):
    """A new file of a value in which persistent ids stand for storages."""
    file, text = io.BytesIO(), io.BytesIO()
    _Pickler(text, 2).dump(value)
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("m/data.pkl", text.getvalue())
        z.writestr("m/version", b"3\n")
        for key, data in storages:
            z.writestr(f"m/data/{key}", data.tobytes())
    return file.getvalue()


def storage(kind=torch.FloatStorage, key="7", count=10, *view):
    return "storage", kind, key, "cpu", count, *(view or (None,))


def tensor(pid=None, offset=0, size=(2, 5), stride=(5, 1), *rest):
    rest = rest or (False, OrderedDict())
    return Call(torch._utils._rebuild_tensor_v2, storage() if pid is None else pid, offset, size, stride, *rest)


def typed(count, offset, size, stride, kind=torch.uint16, of=torch.storage.UntypedStorage):
    pid = storage(of, "7", count)
    return Call(torch._utils._rebuild_tensor_v3, pid, offset, size, stride, False, OrderedDict(), kind)


BAD_TENSORS = {
    "a negative offset": tensor(offset=-1),
    "an offset behind the end": tensor(offset=1),
    "a huge offset": tensor(offset=2**64),
    "a negative size": tensor(size=(-1, 5)),
    "a size too large": tensor(size=(3, 5)),
    "a huge size": tensor(size=(2**62, 2**61)),
    "a huge stride": tensor(stride=(2**61, 1)),
    "a negative stride": tensor(stride=(-5, 1)),
    "a stride too large": tensor(stride=(6, 1)),
    "more sizes than strides": tensor(stride=(1,)),
    "sizes that are no numbers": tensor(size=("2", 5)),
    "sizes that are true": tensor(size=(True, 5)),
    "sizes that are a list": tensor(size=[2, 5]),
    "too many axes": tensor(size=(1,) * 33, stride=(1,) * 33),
    "one number, over and over": tensor(size=(MOST_REPEATED + 11,), stride=(0,)),
    "empty in one direction and endless in others": tensor(size=(0, 2**61, 2**61), stride=(0, 0, 0)),
    "a storage that is none": Call(torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,), False, {}),
    "a storage of a negative length": tensor(storage(count=-10)),
    "a storage of another length": tensor(storage(count=11)),
    "a storage that is missing": tensor(storage(key="8")),
    "a storage with a path": tensor(storage(key="../../etc/passwd")),
    "a storage of another type": tensor(storage(torch.DoubleStorage)),
    "a storage with no type": tensor(storage(OrderedDict)),
    "a storage with a type of no storage": tensor(storage(torch.strided)),
    "a storage of quantised numbers": tensor(storage(torch.QInt8Storage)),
    "a storage of two types": [tensor(), tensor(storage(torch.IntStorage))],
    "a storage that is too short a tuple": tensor(("storage", torch.FloatStorage)),
    "a view outside": tensor(storage(torch.FloatStorage, "7", 10, ("8", 8, 3))),
    "a view that is none": tensor(storage(torch.FloatStorage, "7", 10, 3)),
    "a conjugated tensor": tensor(None, 0, (2, 5), (5, 1), False, OrderedDict(), {"conj": True}),
    "a typed tensor outside": typed(40, 0, (21,), (1,)),
    "a typed tensor of floats": typed(10, 0, (2,), (1,), of=torch.FloatStorage),
    "a tensor without a type": typed(40, 0, (2,), (1,), kind=None),
    "a sparse tensor": Call(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, ()),
}


@pytest.mark.parametrize("make", [archive, stream])
@pytest.mark.parametrize("what", BAD_TENSORS)
def test_bad_tensors_are_refused(what, make, tmp_path):
    (tmp_path / "bad.pth").write_bytes(make({"good": tensor(), "bad": BAD_TENSORS[what]}))
    with pytest.raises(CheckpointError, match=r"bad\.pth: refused: .*: (take another copy|do not open it)"):
        read_torch(tmp_path / "bad.pth")


@pytest.mark.parametrize("make", [archive, stream])
def test_the_good_tensors_of_these_tests_are_good(make, tmp_path):
    (tmp_path / "a.pth").write_bytes(make({"good": tensor()}))
    assert read_torch(tmp_path / "a.pth")["good"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    raw = (("7", np.arange(40, dtype="<u2").view("u1")),)
    (tmp_path / "a.pth").write_bytes(make({"good": typed(80, 2, (3,), (3,))}, raw))
    assert read_torch(tmp_path / "a.pth")["good"].tolist() == [2, 5, 8]
    (tmp_path / "a.pth").write_bytes(make({"many": [tensor(size=(1 << 20,), stride=(0,))] * 3, "good": tensor()}))
    assert list(read_torch(tmp_path / "a.pth")) == ["good"]


@pytest.mark.parametrize("make", [archive, stream])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (tensor(storage(count=11)), r"should have 44 bytes, and has 40|storage '7' is not there whole"),
        (
            tensor(storage(count=9), 0, (2, 4), (4, 1)),
            r"should have 36 bytes, and has 40|storage '7' is not there whole",
        ),
        (
            tensor(storage(torch.FloatStorage, "7", 10, ("8", 8, 3)), 0, (1,), (1,)),
            "a view that leaves the storage '7'",
        ),
        (tensor(offset=1), "a tensor that leaves its storage '7'"),
        (tensor(storage(key="x" * 1000)), "a storage that makes no sense"),
    ],
)
def test_storages_that_are_not_what_the_pickle_says(bad, words, make, tmp_path):
    (tmp_path / "bad.pth").write_bytes(make({"bad": bad}))
    with pytest.raises(CheckpointError, match=words):
        read_torch(tmp_path / "bad.pth")


def test_more_tensors_than_weights_can_be(tmp_path):
    again = _body(tensor())[:-1] + b"0h\x63h\x62R" * MOST_TENSORS + b"."
    (tmp_path / "bad.pth").write_bytes(_archive_of(again))
    with pytest.raises(CheckpointError, match="larger, or more, than weights can be"):
        read_torch(tmp_path / "bad.pth")


def _body(value):
    """The pickle of a tensor that keeps its function and its arguments in places 0x63 and 0x62 of the memo."""
    text = io.BytesIO()
    _Pickler(text, 2).dump(value)
    raw = text.getvalue()
    function = raw.find(b"_rebuild_tensor_v2\n") + len(b"_rebuild_tensor_v2\n")
    raw = raw[:function] + b"q\x63" + raw[function:]
    call = raw.rfind(b"R")
    return raw[:call] + b"q\x62" + raw[call:]


def _archive_of(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("m/data.pkl", text)
        z.writestr("m/version", b"3\n")
        z.writestr("m/data/7", np.arange(10, dtype="<f4").tobytes())
    return file.getvalue()


def test_a_flipped_bit_is_noticed_unless_pytorch_was_told_to_write_no_checksums(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    raw = bytearray(path.read_bytes())
    raw[raw.find(np.float32(500).tobytes())] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"'m/data/0' does not have its checksum"):
        read_torch(path)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(1000.0)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(path) as z, pytest.raises(zipfile.BadZipFile):
        z.read("m/data/0")
    assert read_torch(path)["a"][999] == 999


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_programs_archives(tmp_path):
    path = tmp_path / "m.pth"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(CheckpointError, match="a TorchScript program"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("readme", b"hello")
    with pytest.raises(CheckpointError, match=r"not one of torch\.save"):
        read_torch(path)


@pytest.mark.parametrize("member", ["data.pkl", "data/7"])
def test_compressed_archives_are_refused(member, tmp_path):
    """A zip bomb is one, if only somebody unpacks it."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(io.BytesIO(archive({"a": tensor()}))) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            bomb = name.endswith(member)
            data = bytes(20 << 20) if bomb else old.read(name)
            new.writestr(name, data, zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED)
    assert path.stat().st_size < 30_000
    with pytest.raises(CheckpointError, match=f"'m/{member}' is compressed"):
        read_torch(path)


def test_streams_of_other_versions(tmp_path):
    for head, words in [((MAGIC, 1002), "not of version 1001"), ((7, 1001), "not a file of torch.save")]:
        (tmp_path / "m.pth").write_bytes(b"".join(pickle.dumps(value, 2) for value in head))
        with pytest.raises(CheckpointError, match=words):
            read_torch(tmp_path / "m.pth")


@pytest.mark.parametrize("storages", [(), (("8", np.arange(10, dtype="<f4")),), (("7", np.arange(9, dtype="<f4")),)])
def test_streams_whose_storages_are_not_those_of_the_tensors(storages, tmp_path):
    (tmp_path / "m.pth").write_bytes(stream({"a": tensor()}, storages))
    with pytest.raises(CheckpointError, match=r"list of storages does not fit|truncated or damaged"):
        read_torch(tmp_path / "m.pth")


def test_truncated_anywhere(save):
    path = save({"a": torch.arange(4.0), "b": torch.arange(3)})
    raw = path.read_bytes()
    for n in (*range(0, len(raw), 7), *range(len(raw) - 30, len(raw))):
        path.write_bytes(raw[:n])
        with pytest.raises(CheckpointError, match="refused: "):
            read_torch(path)


def test_parameters_of_any_shape(save):
    tensors = {"one": torch.tensor(2.0), "tall": torch.arange(1 << 20), "many": torch.ones(300, 2048)}
    state = {name: nn.Parameter(x, requires_grad=False) for name, x in tensors.items()}
    assert_same(read_torch(save(state)), tensors)


def test_a_storage_that_is_only_spoken_of_is_no_leave_to_repeat_another(tmp_path):
    """A file of 1 kB would be an array of 2^60 numbers, and to convert it would fill any disk."""
    endless = {"w": tensor(size=(1 << 60,), stride=(0,)), "x": storage(torch.FloatStorage, "9", 1 << 61)}
    for value in (endless, dict(reversed(endless.items()))):
        (tmp_path / "bad.pth").write_bytes(archive(value))
        with pytest.raises(CheckpointError, match="larger, or more, than weights can be"):
            read_torch(tmp_path / "bad.pth")
