"""Builds the entropy coder's kernel; everything else is in pyproject.toml.

Without a compiler the package installs all the same and codes with numpy: the same bytes, slower.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

MSVC = sys.platform == "win32"

setup(
    ext_modules=[
        Extension(
            "linocut.entropy._kernel",
            ["src/linocut/entropy/_kernel.c"],
            depends=[str(path) for path in sorted(Path().glob("src/linocut/entropy/_kernel*.h"))],
            # Fused multiply-adds would round the prices of symbols otherwise than numpy does.
            extra_compile_args=["/O2"] if MSVC else ["-O3", "-std=c11", "-ffp-contract=off"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
