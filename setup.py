"""Build entry point: the compiled time loop. Everything else is declared in setup.cfg."""

import platform

from setuptools import Extension, setup

# One file per instruction set; the best that the processor knows is chosen when it is loaded. They
# are plain shared libraries, without Python's headers. Where there is no C compiler the
# installation goes on without them, and the loops in torch take their place.
INSTRUCTIONS = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTIONS["avx2"] = ["-mavx2", "-mfma"]
    INSTRUCTIONS["avx512"] = [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")] + ["-mfma"]
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
HEADERS = ["functions.h", "loop.h", "losses.h", "noise.h", "products.h"]

setup(
    ext_modules=[
        Extension(
            f"ctxrnn._kernel_{name}",
            ["ctxrnn/_native/kernel.c"],
            depends=[f"ctxrnn/_native/{header}" for header in HEADERS],
            extra_compile_args=[*FLAGS, *flags],
            libraries=["m"],
            optional=True,
        )
        for name, flags in INSTRUCTIONS.items()
    ]
)
