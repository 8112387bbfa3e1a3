"""Build entry point: the compiled parts. Everything else is declared in setup.cfg."""

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


def sources(folder):
    """List the sources in a folder, as paths from here."""
    here = Path(__file__).parent
    found = sorted(path for path in (here / folder).iterdir() if path.suffix in (".c", ".h"))
    return [path.relative_to(here) for path in found]


def digest(paths):
    """Return a number that `_kernel.py` and `_local.py` compute, too: they load nothing else."""
    whole = hashlib.sha256(b"".join((Path(__file__).parent / p).read_bytes() for p in paths))
    return str(int.from_bytes(whole.digest()[:7], "big"))


def extensions(name, folder, main, macro):
    """Return one extension for each instruction set."""
    paths = sources(folder)
    return [
        Extension(
            f"{name}_{kind}",
            [f"{folder}/{main}"],
            depends=[path.as_posix() for path in paths if path.name != main],
            extra_compile_args=[*FLAGS, *flags],
            define_macros=[(macro, digest(paths))],
            libraries=["m"],
            optional=True,
        )
        for kind, flags in INSTRUCTIONS.items()
    ]


setup(
    ext_modules=[
        *extensions("ctxrnn._kernel", "ctxrnn/_native", "kernel.c", "KERNEL_SOURCES"),
        *extensions(
            "ctxrnn.comodulation._local", "ctxrnn/comodulation/_native", "hierarchy.c",
            "LOCAL_SOURCE",
        ),
    ]
)  # fmt: skip
