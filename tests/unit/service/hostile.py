"""Uploads made to do harm, or merely broken: name, bytes, and what is said of them."""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from worker.arrays import Array

LIMIT = 20_000
"""What a dataset may have in these tests, in bytes."""


def npz(compressed: bool = False, **columns: object) -> bytes:
    """As numpy.savez writes it."""
    file = io.BytesIO()
    arrays: Mapping[str, Array] = {name: np.asarray(column) for name, column in columns.items()}
    (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def npy(
    shape: object = (3,), descr: object = "<f4", order: object = False, data: bytes = bytes(12), version: int = 1
) -> bytes:
    """A npy file whose header says what it likes."""
    return raw_npy(repr({"descr": descr, "fortran_order": order, "shape": shape}), data, version)


def raw_npy(header: str, data: bytes = bytes(12), version: int = 1, length: int | None = None) -> bytes:
    """A npy file with any header."""
    text = header.encode("latin-1")
    said = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + said + text + data


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with any members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, data in members:
            zipped.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def of(data: bytes) -> bytes:
    """A zip file with one member, x.npy."""
    return archive(("x.npy", data))


GOOD = npz(x=np.arange(12, dtype=np.float32).reshape(6, 2), y=np.arange(6))
SMALL = npy()


def with_names(*names: str) -> bytes:
    """A zip file with members of some names, which zipfile itself might warn of or mend."""
    placeholders = [f"{number:0{len(name.encode())}d}" for number, name in enumerate(names)]
    data = archive(*((placeholder, SMALL) for placeholder in placeholders))
    for placeholder, name in zip(placeholders, names, strict=True):
        data = data.replace(placeholder.encode(), name.encode())
    return data


def flagged(bits: int, name: bytes | None = None) -> bytes:
    """A zip file whose member has flags set, and perhaps another name of five bytes."""
    data = bytearray(of(SMALL))
    central = data.index(b"PK\x01\x02")
    for place in (6, central + 8):
        (flags,) = struct.unpack_from("<H", data, place)
        struct.pack_into("<H", data, place, flags | bits)
    return bytes(data.replace(b"x.npy", name) if name else data)


def lying_about_size() -> bytes:
    """The directory says that the member unpacks to the little its header needs; there is far more."""
    data = bytearray(archive(("x.npy", npy((10**6,), data=bytes(4 * 10**6))), compression=zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 200)
    return bytes(data)


def with_wrong_sum() -> bytes:
    """One bit of the data is another than when its sum was taken."""
    data = bytearray(npz(x=np.ones(64)))
    data[data.index(np.ones(2).tobytes()) + 3] ^= 1
    return bytes(data)


def deflated_garbage() -> bytes:
    """A member that says it is compressed, and is not."""
    data = bytearray(of(bytes(200)))
    struct.pack_into("<H", data, 8, zipfile.ZIP_DEFLATED)
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, zipfile.ZIP_DEFLATED)
    place = data.index(bytes(100))
    data[place : place + 100] = b"\xff" * 100
    return bytes(data)


NO_NPZ, NO_HEADER = "is not a readable npz file", "'x' does not begin with a npy header that can be read"
MEMBER = "every member must be an array, <name>.npy"

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", NO_NPZ),
    "text": (lambda: b"x,y\n1,2\n", NO_NPZ),
    "a npy": (lambda: SMALL, NO_NPZ),
    "cut off in the middle": (lambda: GOOD[: len(GOOD) // 2], NO_NPZ),
    "cut off at the end": (lambda: GOOD[:-1], NO_NPZ),
    "its beginning cut off": (lambda: GOOD[40:], NO_NPZ),
    "a wrong sum": (with_wrong_sum, NO_NPZ),
    "deflated garbage": (deflated_garbage, NO_NPZ),
    "encrypted": (lambda: flagged(0x1), NO_NPZ),
    "patched data": (lambda: flagged(0x20), NO_NPZ),
    "strongly encrypted": (lambda: flagged(0x40), NO_NPZ),
    "a name that is no text": (lambda: flagged(0x800, b"\xff.npy"), NO_NPZ),
    "bzip2": (lambda: archive(("x.npy", SMALL), compression=zipfile.ZIP_BZIP2), "numpy.savez_compressed does not use"),
    "lzma": (lambda: archive(("x.npy", SMALL), compression=zipfile.ZIP_LZMA), "numpy.savez_compressed does not use"),
    "no member": (archive, "has 0 arrays; must have 1 to 1,000"),
    "too many members": (lambda: archive(*((f"{n}.npy", SMALL) for n in range(1001))), "has 1001 arrays; must have 1"),
    "a text among the arrays": (
        lambda: archive(("x.npy", SMALL), ("README", b"hello")),
        "has a member 'README'; every",
    ),
    "a folder": (lambda: archive(("x/", b""), ("x/y.npy", SMALL)), MEMBER),
    "no name": (lambda: with_names(".npy"), MEMBER),
    "a long name": (lambda: archive(("x" * 101 + ".npy", SMALL)), MEMBER),
    "a name with a line break": (lambda: with_names("a\nb.npy"), MEMBER),
    "a name with a zero": (lambda: with_names("a\0b.npy"), MEMBER),
    "two arrays of a name": (lambda: with_names("x.npy", "x.npy"), "two arrays of the same name"),
    "pickles": (lambda: npz(x=np.array([{}, []], object)), "'x' holds Python objects (pickles); store numbers"),
    "a pickle by another name": (lambda: of(npy(descr="<O8")), "'x' holds Python objects (pickles); store numbers"),
    "fields": (lambda: npz(x=np.zeros(3, [("a", "f4"), ("b", "i8")])), "must be float, integer or bool of at most 64"),
    "fields with pickles": (lambda: npz(x=np.zeros(3, [("a", "O")])), "must be float, integer or bool"),
    "text columns": (lambda: npz(x=np.array(["a", "bc"])), "'x' has the type '<U2'; must be float, integer or bool"),
    "bytes": (lambda: npz(x=np.array([b"a"])), "has the type '|S1'"),
    "complex numbers": (lambda: npz(x=np.zeros(3, complex)), "has the type '<c16'"),
    "dates": (lambda: npz(x=np.zeros(3, "M8[s]")), "has the type '<M8[s]'"),
    "long doubles": (lambda: npz(x=np.zeros(3, np.longdouble)), "has the type '<f16'"),
    "a type that is none": (lambda: of(npy(descr="<f3")), "has the type '<f3'"),
    "a type of types": (lambda: of(npy(descr=("<f4", (3,)))), "has the type"),
    "an empty type": (lambda: of(npy(descr=())), "has the type '()'"),
    "a type as long as a header": (lambda: of(npy(descr="f4," * 3000 + "f4")), "has the type"),
    "a single number": (lambda: npz(x=np.float32(1)), "has the shape (); must have a row axis first"),
    "no rows": (lambda: npz(x=np.zeros((0, 3))), "has the shape (0, 3); must have a row axis first, nothing empty"),
    "no features": (lambda: npz(x=np.zeros((3, 0))), "has the shape (3, 0); must have"),
    "a negative shape": (lambda: of(npy((-3,))), "has the shape (-3,); must have"),
    "two negative lengths": (lambda: of(npy((-3, -1))), "has the shape (-3, -1); must have"),
    "more axes than there can be": (lambda: of(npy((1,) * 33 + (3,))), "at most 32 axes"),
    "different rows": (lambda: npz(x=np.zeros(3), y=np.zeros(4)), "'y' has 4 rows, but the one before it has 3"),
    "a bomb": (lambda: npz(True, x=np.zeros(10**6)), f"unpacks to 8,000,128 bytes; must be at most {LIMIT:,}"),
    "a bomb in small parts": (
        lambda: archive(*((f"{n}.npy", npy((100,), data=bytes(400))) for n in range(100))),
        f"bytes; must be at most {LIMIT:,}",
    ),
    "a bomb that says it is small": (lying_about_size, NO_NPZ),
    "a shape beyond the data": (lambda: of(npy((4,))), "'x' says it has 16 bytes, but 12 are there"),
    "a shape short of the data": (lambda: of(npy((2,))), "'x' says it has 8 bytes, but 12 are there"),
    "a shape beyond all memory": (lambda: of(npy((10**30,) * 3)), "but 12 are there"),
    "no data": (lambda: of(npy(data=b"")), "'x' says it has 12 bytes, but 0 are there"),
    "no array": (lambda: of(b""), NO_HEADER),
    "an array of garbage": (lambda: of(b"\xff" * 50), NO_HEADER),
    "a version that is none": (lambda: of(npy(version=9)), NO_HEADER),
    "a header cut off": (lambda: of(SMALL[:30]), NO_HEADER),
    "a header longer than the file": (lambda: of(raw_npy("{", length=9999)), NO_HEADER),
    "a header of gigabytes": (lambda: of(raw_npy("{", version=2, length=2**32 - 1)), NO_HEADER),
    "a header that is no literal": (lambda: of(raw_npy("__import__('os').abort()")), NO_HEADER),
    "a header that is no dictionary": (lambda: of(raw_npy("['descr', 'fortran_order', 'shape']")), NO_HEADER),
    "a header with open brackets": (lambda: of(raw_npy("(" * 5000)), NO_HEADER),
    "a header with deep brackets": (lambda: of(raw_npy("[" * 4000 + "]" * 4000)), NO_HEADER),
    "a header with open quotes": (lambda: of(raw_npy("{'descr': '''")), NO_HEADER),
    "a header with a bad number": (lambda: of(raw_npy("{'shape': (" + "9" * 5000 + ",)}")), NO_HEADER),
    "a header with a zero": (lambda: of(raw_npy("{'descr': '<f4\0'}")), NO_HEADER),
    "a header that can't be hashed": (lambda: of(raw_npy("{{}: 1}")), NO_HEADER),
    "a shape that is no tuple": (lambda: of(npy([3])), NO_HEADER),
    "a shape of other things": (lambda: of(npy((3.0,))), NO_HEADER),
    "a shape of truth values": (lambda: of(npy((True,))), NO_HEADER),
    "an order that is none": (lambda: of(npy(order=2)), NO_HEADER),
    "keys missing": (lambda: of(raw_npy("{'descr': '<f4', 'shape': (3,)}")), NO_HEADER),
}
