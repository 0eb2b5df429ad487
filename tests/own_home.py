"""Gives the process a home folder of its own, so that tests neither see anyone's settings nor leave any.

Imported before all else: libraries look for their folders while they are imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from platformdirs import user_cache_path

# Found from the other home, too: kernels that were compiled before, and packages that were downloaded.
os.environ.setdefault("MLX_QWEN3_KERNELS", str(user_cache_path("mlx-qwen3") / "kernels"))
os.environ.setdefault("PIP_CACHE_DIR", str(user_cache_path("pip")))

HOME = tempfile.mkdtemp(prefix="mlx_qwen3_tests_")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["HOME"] = HOME
for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
    os.environ.pop(name, None)
