"""Compiled kernels as bytes: read from a file that may be damaged, and put into memory where they can run."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
from typing import Any, NamedTuple, Self

READ_AND_RUN = 1 | 4  # PROT_READ | PROT_EXEC


class MachineCode(NamedTuple):
    """Kernels that were compiled together.

    Attributes:
        code: What is to be in memory, at any place; or an object file.
        kernels: Where in it each kernel begins.
        external: Where in it the address of a function of the C library has to be written.
        is_object: Whether `code` is an object file, which LLVM has to link.
    """

    code: bytes
    kernels: dict[str, int]
    external: dict[str, int] = {}  # noqa: RUF012
    is_object: bool = False

    def to_bytes(self) -> bytes:
        """As `from_bytes` reads it: a checksum, what is in the code, and the code."""
        header = {"kernels": self.kernels, "external": self.external, "is_object": self.is_object}
        rest = json.dumps(header).encode() + b"\n" + self.code
        return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self | None:
        """What `to_bytes` wrote; None if it is damaged."""
        digest, _, rest = stored.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            return None
        header, _, code = rest.partition(b"\n")
        return cls(code, **json.loads(header))

    def load(self) -> dict[str, int]:
        """Put linked code into memory for good. Returns the address of each kernel.

        Raises OSError where the system does not let a process run what it has written.
        """
        memory = kept_for_ever(mmap.mmap(-1, len(self.code)))
        memory[:] = self.code
        for name, place in self.external.items():
            address = library_function(name)
            if address is None:
                raise OSError(f"there is no {name} in this process")
            memory[place : place + 8] = address.to_bytes(8, "little")
        start = ctypes.addressof(kept_for_ever(ctypes.c_char.from_buffer(memory)))
        process = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_size_t(len(self.code))
        if process.mprotect(ctypes.c_void_p(start), size, READ_AND_RUN) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
        return {name: start + place for name, place in self.kernels.items()}


def library_function(name: str) -> int | None:
    """The address of a function of the C library."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except AttributeError:
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def kept_for_ever(thing: Any) -> Any:
    """`thing`, which is never freed: threads in machine code may use it while the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing
