"""Generates the Python stubs of the contract into chainrule/v1, or checks that those committed are fresh.

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
PACKAGE = Path("chainrule/v1")


def generate(output: Path) -> None:
    """Writes the modules and type stubs of every proto of the contract below `output`."""
    protos = sorted((ROOT / "protos" / PACKAGE).glob("*.proto"))
    compile_protos(output, ("python", "mypy"), protos)
    compile_protos(output, ("grpc_python", "mypy_grpc"), [path for path in protos if path.stem.endswith("_service")])


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
        {path.name: path.read_bytes() for path in (base / PACKAGE).glob("*_pb2*.py*")} for base in (fresh, ROOT)
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
