"""Generates the Python stubs of the contracts below chainrule/, or checks that those committed are fresh.

They are committed so that an install needs no compiler. The generator is pinned to the protobuf 6 line: its code runs
with protobuf 6 and 7, while code from newer tools would lock out everyone whose other libraries hold protobuf below 7.

    python protos/generate.py            write
    python protos/generate.py --check    compare, and exit with 1 if anything differs
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (Path("chainrule/v1"), Path("chainrule/inference"))
SHARED = PACKAGES[1]
"""The protocol that isn't ours alone. Other libraries bring stubs of it too, such as Triton's client, and protobuf's
default pool takes no two files that define the same names; so ours get a pool of their own."""


def generate(output: Path) -> None:
    """Writes the modules and type stubs of every proto below `output`."""
    protos = [path for package in PACKAGES for path in sorted((ROOT / "protos" / package).glob("*.proto"))]
    compile_protos(output, ("python", "mypy"), protos)
    compile_protos(output, ("grpc_python", "mypy_grpc"), [path for path in protos if "\nservice " in path.read_text()])
    for path in (output / SHARED).glob("*_pb2.py"):
        own = path.read_text().replace("_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()")
        path.write_text(own)


def compile_protos(output: Path, plugins: tuple[str, ...], protos: list[Path]) -> None:
    """Runs protoc once."""
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'protos'}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        *(f"--{plugin}_out=quiet:{output}" if "mypy" in plugin else f"--{plugin}_out={output}" for plugin in plugins),
        *map(str, protos),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed; its messages are above")


def stale(fresh: Path) -> list[str]:
    """The names of the generated files that differ from those committed, or are only on one side."""
    contents = [
        {
            path.relative_to(base).as_posix(): path.read_bytes()
            for package in PACKAGES
            for path in (base / package).glob("*_pb2*.py*")
        }
        for base in (fresh, ROOT)
    ]
    return sorted(
        name for name in contents[0].keys() | contents[1].keys() if contents[0].get(name) != contents[1].get(name)
    )


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        if names := stale(Path(directory)):
            sys.exit(f"stubs that don't fit protos/: {', '.join(names)}; run `make proto`")


if __name__ == "__main__":
    main()
