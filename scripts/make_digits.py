"""Make tinycnn/data/digits.npz from scikit-learn's copy of the UCI handwritten digits.

    python scripts/make_digits.py [OUT]

The bytes are the same on every machine: members are stored uncompressed (compressors differ between
versions of zlib; a wheel is compressed anyway) and carry no time of day.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "tinycnn" / "data" / "digits.npz"


def digits_archive() -> bytes:
    """Return the .npz: ``images``, uint8 (1797, 8, 8) of 0..16, and ``labels``, uint8 (1797,) of 0..9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, values in (("images", digits.images), ("labels", digits.target)):
            narrow = values.astype(np.uint8)
            assert (narrow == values).all()
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # Unix, wherever this runs
            content = io.BytesIO()
            np.lib.format.write_array(content, narrow, version=(1, 0))
            file.writestr(member, content.getvalue())
    return archive.getvalue()


def main(out: Path) -> None:
    """Write the archive to ``out``, whole or not at all."""
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_bytes(digits_archive())
    os.replace(temporary, out)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
