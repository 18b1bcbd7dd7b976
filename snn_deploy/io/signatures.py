"""Names a file by its first bytes, for messages about the wrong kind of file."""

from __future__ import annotations

import re
from typing import NamedTuple


class Kind(NamedTuple):
    """What a file seems to be; ``name`` is empty when unknown."""

    name: str
    article: str
    hint: str


_MAKE_AGAIN = "write it with torch.save(state, path)"
_KINDS = (
    # protocol 2, then LONG1 with torch's magic number 0x1950a86a20f9469cfc6c
    (rb"\x80.\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "legacy torch file", ""),
    (rb"\x80[\x01-\x05]", "plain Python pickle", "a pickle can run code: " + _MAKE_AGAIN),
    (rb"\x89HDF\r\n\x1a\n", "HDF5 file", "name it .nir (a NIR graph) or .net (lava-dl)"),
    (rb"PK\x03\x04|PK\x05\x06", "zip archive", ""),
    (rb"\x93NUMPY", "numpy .npy array", "put arrays into an .npz: np.savez('x.npz', x=array)"),
    (rb"\x1f\x8b", "gzip file", "unpack it first: gunzip"),
    (rb"version https?://git-lfs", "Git LFS pointer", "fetch the real file: git lfs pull"),
    (rb"(?s).{8}\{\"", "safetensors file", "name it .safetensors"),
    (rb"\s*<(!DOCTYPE|html|\?xml)", "web page", "the download failed: fetch the file again"),
    (rb"\x7fELF|MZ|\xcf\xfa\xed\xfe", "program", "this is no model or data file"),
)


def describe(head: bytes) -> Kind:
    """Return what the first bytes of a file look like."""
    if not head:
        return Kind("empty file", "an empty file", "it was not written to its end: make it again")
    for pattern, name, hint in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            vowel = name[0] in "aeiouAEIO" or name.startswith("HDF5")
            return Kind(name, f"{'an' if vowel else 'a'} {name}", hint)
    return Kind("", "an unknown kind of file", "")
