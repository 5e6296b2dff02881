"""Files as CIFAR-10's and CIFAR-100's are, of other images."""

import io
import struct
import tarfile

import numpy as np


def python2_batch(x: np.ndarray, labels: list[int], key: bytes = b"labels", **others: list[int]) -> bytes:
    """The pickle that Python 2's NumPy writes for {'data': x, 'labels': labels}, opcode by opcode."""

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(J" + struct.pack("<i", x.shape[0]) + b"J" + struct.pack("<i", x.shape[1]) + b"t"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", x.nbytes) + x.tobytes() + b"tb"
    lists = {key: labels} | {name.encode(): values for name, values in others.items()}
    items = (text(name) + b"](" + b"".join(b"K" + bytes([k]) for k in values) + b"e" for name, values in lists.items())
    return b"\x80\x02}(" + text(b"data") + array + state + b"".join(items) + b"u."


def write_archive(path, files: dict[str, bytes], mode: str, folder: str = "cifar-10-batches-py") -> None:
    with tarfile.open(path, mode) as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
