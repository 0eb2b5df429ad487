"""Links an object file of x86-64 Linux into code that runs wherever it is copied to.

Later processes then load kernels without LLVM. Of an ELF file only what LLVM emits for kernels is understood
(https://gitlab.com/x86-psABIs/x86-64-ABI); all else is refused, and LLVM links it in each process.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

from mlx_qwen3.backend.native.machine_code import MachineCode, library_function

CAN_LINK = platform.machine() == "x86_64"

FILE_HEADER, SECTION, SYMBOL, RELOCATION = "<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IBBHQQ", "<QQq"
PROGBITS, SYMTAB, RELA = 1, 2, 4
ALLOCATED, WRITABLE = 2, 1
UNDEFINED = 0
# A distance of 32 bits from the place itself, to data or to a function.
DISTANCES = (2, 4)
# mov rax, ADDRESS; jmp rax
STUB, STUB_ADDRESS, STUB_BYTES = b"\x48\xb8" + bytes(8) + b"\xff\xe0" + bytes(4), 2, 16


class CannotLinkError(Exception):
    """The object file has something that this does not link."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int


def link(file: bytes, kernels: list[str]) -> MachineCode:
    """The code of an object file, with where each of `kernels` begins. Raises CannotLinkError."""
    if not CAN_LINK:
        raise CannotLinkError
    sections = _sections(file)
    code, places = _laid_out(file, sections)
    symbols = _symbols(file, sections)
    stubs: dict[str, int] = {}
    for table in sections:
        if table.kind == RELA and table.info in places:
            _relocate(code, file, table, symbols, places, stubs)
    starts = {
        symbol.name: places[symbol.section] + symbol.value for symbol in symbols if symbol.section in places
    }
    external = {name: start + STUB_ADDRESS for name, start in stubs.items()}
    return MachineCode(bytes(code), {name: starts[name] for name in kernels}, external)


def _sections(file: bytes) -> list[_Section]:
    header = struct.unpack_from(FILE_HEADER, file)
    start, entry_size, count = header[6], header[11], header[12]
    return [_Section(*struct.unpack_from(SECTION, file, start + entry_size * i)) for i in range(count)]


def _name(file: bytes, names: _Section, offset: int) -> str:
    start = names.offset + offset
    return file[start : file.index(b"\0", start)].decode()


def _laid_out(file: bytes, sections: list[_Section]) -> tuple[bytearray, dict[int, int]]:
    """Code and constants, one section after another, and where in it each section is."""
    names = sections[struct.unpack_from(FILE_HEADER, file)[13]]
    code, places = bytearray(), {}
    for number, section in enumerate(sections):
        if not section.flags & ALLOCATED or _name(file, names, section.name) == ".eh_frame":
            continue  # without the tables that exceptions need
        if section.size and (section.kind != PROGBITS or section.flags & WRITABLE):
            raise CannotLinkError
        code += bytes(-len(code) % max(1, section.alignment))
        places[number] = len(code)
        code += file[section.offset : section.offset + section.size]
    return code, places


def _symbols(file: bytes, sections: list[_Section]) -> list[_Symbol]:
    table = next(section for section in sections if section.kind == SYMTAB)
    names = sections[table.link]
    symbols = []
    for offset in range(table.offset, table.offset + table.size, struct.calcsize(SYMBOL)):
        name, _, _, section, value, _ = struct.unpack_from(SYMBOL, file, offset)
        symbols.append(_Symbol(_name(file, names, name), section, value))
    return symbols


def _relocate(
    code: bytearray,
    file: bytes,
    table: _Section,
    symbols: list[_Symbol],
    places: dict[int, int],
    stubs: dict[str, int],
) -> None:
    """Write the distances that `table` asks for. Functions of the C library get a stub at the end."""
    base = places[table.info]
    for entry in range(table.offset, table.offset + table.size, struct.calcsize(RELOCATION)):
        offset, info, addend = struct.unpack_from(RELOCATION, file, entry)
        symbol, kind = symbols[info >> 32], info & 0xFFFFFFFF
        if kind not in DISTANCES:
            raise CannotLinkError
        if symbol.section == UNDEFINED:
            target = _stub(code, symbol.name, stubs)
        elif symbol.section in places:
            target = places[symbol.section] + symbol.value
        else:
            raise CannotLinkError
        struct.pack_into("<i", code, base + offset, target + addend - (base + offset))


def _stub(code: bytearray, name: str, stubs: dict[str, int]) -> int:
    if name not in stubs:
        if library_function(name) is None:
            raise CannotLinkError
        code += bytes(-len(code) % STUB_BYTES)
        stubs[name] = len(code)
        code += STUB
    return stubs[name]
