"""A seeded mutator of bytes: flips, swaps, splices, cuts, and numbers that lengths may be taken for.

Containers with checksums of their own would turn every change into the same complaint, so they are also
changed inside: the members of a zip or tar file, what a gzip file packs, the JSON header of safetensors.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

# What lengths, offsets and counts may become.
NUMBERS = (
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
    2**64 - 1,
)  # fmt: skip
WORDS = (
    b"", b"-1", b"0", b"1e999", b"nan", b"NaN", b"Infinity", b"null", b"true", b"99999999999999999999",
    b"1.5", b'"', b"[[[[[[[[", b"{}", b"[]", b"../../x", b"/etc/passwd", b"\x00", b"\xff\xfe", b"a" * 300,
    b"\\ud800", b"-", b".", b"'",
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 1, 1.5, -0.0, 2**70, 1e308, "", "x", "none", [], {}, [1, 2], {"a": 1}, "0", [None],
    "\ud800",
)  # fmt: skip
DEEP = b"[" * 20_000

Mutator = Callable[[Random, bytes], bytes]


def mutated(random: Random, data: bytes) -> bytes:
    """Return a copy of bytes with one to four changes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_CHANGES)(random, changed)
    return bytes(changed)


def text_mutated(random: Random, data: bytes) -> bytes:
    """Return a copy of a text with some of its words replaced, doubled, or moved, or with changed bytes."""
    if random.random() < 0.3:
        return mutated(random, data)
    words = _words(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        if not words:
            break
        place = random.randrange(len(words))
        what = random.random()
        if what < 0.5:
            words[place] = random.choice(WORDS) if random.random() < 0.97 else DEEP
        elif what < 0.7:
            words[place] = random.choice(words)
        elif what < 0.85:
            del words[place]
        else:
            words.insert(place, random.choice(words))
    return b"".join(words)


def in_gzip(inner: Mutator = mutated) -> Mutator:
    """Return a mutator of what a gzip file packs."""

    def change(random: Random, data: bytes) -> bytes:
        if random.random() < 0.4:
            return mutated(random, data)
        return gzip.compress(inner(random, gzip.decompress(data)), 1)

    return change


def in_zip(random: Random, data: bytes) -> bytes:
    """Change a zip file, or a member of it."""
    if random.random() < 0.4:
        return mutated(random, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        entries = old.infolist()
        chosen = random.choice(entries).filename
        for entry in entries:
            content = old.read(entry)
            if entry.filename == chosen:
                # Headers are short and at the start: they would hardly be met in a long member.
                near = random.random() < 0.6
                content = mutated(random, content[:128]) + content[128:] if near else mutated(random, content)
            new.writestr(entry.filename, content)
    return out.getvalue()


def in_tar(random: Random, data: bytes) -> bytes:
    """Change a packed tar file, or a member of it."""
    if random.random() < 0.4:
        return mutated(random, data)
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as new,
    ):
        members = old.getmembers()
        chosen = random.choice(members).name
        for member in members:
            opened = old.extractfile(member)
            content = b"" if opened is None else opened.read()
            if member.name == chosen:
                content = mutated(random, content)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return out.getvalue()


def in_safetensors(random: Random, data: bytes) -> bytes:
    """Change a safetensors file: its bytes, its header, or the JSON document in the header's metadata."""
    what = random.random()
    if what < 0.3:
        return mutated(random, data)
    length = struct.unpack("<Q", data[:8])[0]
    header, tensors = data[8 : 8 + length], data[8 + length :]
    if what < 0.5:
        header = text_mutated(random, header)
    else:
        document = json.loads(header)
        meta = document["__metadata__"]
        key = random.choice(list(meta))
        meta[key] = (
            changed_json(random, meta[key])
            if what < 0.9
            else text_mutated(random, meta[key].encode()).decode("utf-8", "replace")
        )
        header = json.dumps(document).encode()
    return struct.pack("<Q", len(header)) + header + tensors


def changed_json(random: Random, text: str) -> str:
    """Return a JSON document with one value replaced by one of another type or size, or left out."""
    document = json.loads(text)
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        part = waiting.pop()
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in items:
            places.append((part, key))
            waiting.append(value)
    part, key = random.choice(places)
    if random.random() < 0.15:
        del part[key]
    else:
        part[key] = random.choice(VALUES)
    return json.dumps(document)


def _words(data: bytes) -> list[bytes]:
    """Split a text at every change between letters and digits, signs and spaces."""
    words: list[bytearray] = []
    last = -1
    for byte in data:
        kind = 0 if chr(byte).isalnum() or byte in b"_." else 1 if byte in b" \n\r\t" else 2
        if kind == last and kind < 2:
            words[-1].append(byte)
        else:
            words.append(bytearray([byte]))
        last = kind
    return [bytes(word) for word in words]


# --- changes in place ------------------------------------------------------------------------------


def _place(random: Random, data: bytearray) -> int:
    # Headers are at the start and at the end.
    size = len(data)
    if not size:
        return 0
    near = random.random()
    if near < 0.4:
        return random.randrange(min(size, 256))
    return size - 1 - random.randrange(min(size, 256)) if near < 0.55 else random.randrange(size)


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _byte(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _number(random: Random, data: bytearray) -> None:
    width = random.choice((2, 4, 8))
    place = _place(random, data)
    number = random.choice(NUMBERS) % 256**width
    data[place : place + width] = number.to_bytes(width, random.choice(("little", "little", "big")))


def _swap(random: Random, data: bytearray) -> None:
    length = random.choice((1, 2, 4, 8, 16, 64, 512))
    one, other = _place(random, data), _place(random, data)
    data[one : one + length], data[other : other + length] = (
        data[other : other + length],
        data[one : one + length],
    )


def _splice(random: Random, data: bytearray) -> None:
    length = random.choice((1, 4, 8, 32, 200))
    start, to = _place(random, data), _place(random, data)
    data[to:to] = data[start : start + length]


def _delete(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    del data[place : place + random.choice((1, 2, 8, 64, 1024))]


def _cut(random: Random, data: bytearray) -> None:
    del data[_place(random, data) :]


def _zeros(random: Random, data: bytearray) -> None:
    place, length = _place(random, data), random.choice((4, 16, 512))
    data[place : place + length] = bytes(min(length, max(len(data) - place, 0)))


_CHANGES = (_flip, _flip, _byte, _byte, _number, _number, _swap, _splice, _delete, _cut, _zeros)
