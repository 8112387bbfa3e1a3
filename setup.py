"""Build entry point: the compiled time loop. Everything else is declared in setup.cfg."""

import hashlib
import platform
from pathlib import Path

from setuptools import Extension, setup

# One file per instruction set; the best that the processor knows is chosen when it is loaded. They
# are plain shared libraries, without Python's headers. Where there is no C compiler the
# installation goes on without them, and the loops in torch take their place.
INSTRUCTIONS = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTIONS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTIONS["avx512"] = [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")] + ["-mfma"]
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
SOURCES = sorted(
    path
    for path in (Path(__file__).parent / "ctxrnn" / "_native").iterdir()
    if path.suffix in (".c", ".h")
)
# `ctxrnn/_kernel.py` computes the same, and does not load what was compiled from other sources.
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).digest()
HEADERS = ["functions.h", "loop.h", "losses.h", "noise.h", "products.h", "solve.h"]

setup(
    ext_modules=[
        Extension(
            f"ctxrnn._kernel_{name}",
            ["ctxrnn/_native/kernel.c"],
            depends=[f"ctxrnn/_native/{header}" for header in HEADERS],
            extra_compile_args=[*FLAGS, *flags],
            define_macros=[("KERNEL_SOURCES", str(int.from_bytes(DIGEST[:7], "big")))],
            libraries=["m"],
            optional=True,
        )
        for name, flags in INSTRUCTIONS.items()
    ]
)
