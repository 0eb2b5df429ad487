"""Copying text to the clipboard, also over ssh."""

from __future__ import annotations

import base64
import shutil
import subprocess

from mlx_qwen3.cli.output import write_codes

PROGRAMS = (["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard"])


def copy(text: str) -> None:
    """Put `text` on the clipboard with a program of the system, or else through the terminal (OSC 52)."""
    for program in PROGRAMS:
        if shutil.which(program[0]):
            # No pipes for the output: xclip stays in the background and would hold them open.
            result = subprocess.run(
                program,
                input=text.encode(),
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if result.returncode == 0:
                return
    encoded = base64.b64encode(text.encode()).decode()
    write_codes(f"\x1b]52;c;{encoded}\x07")
