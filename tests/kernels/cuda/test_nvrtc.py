"""NVRTC compiles every kernel in every variant, without a GPU, for the GPUs it is meant for."""

import importlib
import io
import re
import sysconfig
from pathlib import Path

import pytest

from tinycnn.kernels.cuda import module

core = pytest.importorskip("cuda.core", reason="needs the compiler: pip install 'tinycnn[dev]'", exc_type=ImportError)

MODULES = sorted(p.stem for p in module.HERE.glob("*.py") if p.with_suffix(".cu").exists())
ARCHITECTURES = ["sm_80", "sm_90"]


def headers():
    """Where NVIDIA's wheels keep the CUDA headers."""
    site = Path(sysconfig.get_paths()["purelib"])
    return [str(path.parent) for path in site.glob("nvidia/**/cuda_fp16.h")]


def compiled(variant, arch):
    """What the compiler says of every kernel: {name: (registers, bytes of stack, bytes spilled)}."""
    file, dtype, macros = variant
    defines = [o[2:] for o in module.options(dtype, macros) if o.startswith("-D")]
    options = core.ProgramOptions(
        arch=arch, std="c++17", define_macro=defines, include_path=headers(), ptxas_options=["-v"]
    )
    log = io.StringIO()
    core.Program(module.source(file), "c++", options).compile("cubin", logs=log)
    text = log.getvalue()
    assert "warning" not in text, text
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers",
        text,
        re.DOTALL,
    )
    return {name: (int(registers), int(stack), int(spilled)) for name, stack, spilled, registers in found}


def test_every_file_of_kernels_has_its_variants():
    assert {p.stem for p in module.HERE.glob("*.cu")} == set(MODULES)
    for name in MODULES:
        assert importlib.import_module(f"tinycnn.kernels.cuda.{name}").VARIANTS


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", MODULES)
def test_every_variant_compiles_and_spills_nothing(name, arch):
    for variant in importlib.import_module(f"tinycnn.kernels.cuda.{name}").VARIANTS:
        results = compiled(variant, arch)
        assert set(results) == set(module.signatures(variant[0]))
        assert not {k: v for k, v in results.items() if v[2]}, f"{variant} spills registers"
