"""Reads formats whose library may crash on a broken file, in a process that may.

pyarrow is large, in C++, and ends the process for some files that are broken in the right way: it was tried. So it
reads in a child, with limits on memory and time; what it found lies in the workspace, and the child only says where. A
child that dies means a file that can't be read, and no more than that.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from service.data.arrow import check_installed, read_arrow, read_parquet
from service.data.layout import Layout, Place
from service.data.reading import Columns, Group, Reading, refuse
from service.errors import InvalidArgument

SECONDS = 600
"""How long the child may compute."""

SPARE_BYTES = 6 << 30
"""Of address space, beside what the columns may have; libraries reserve far more than they use."""

READERS = {"parquet": read_parquet, "arrow": read_arrow}


def read_apart(kind: str, path: Path, reading: Reading) -> Columns:
    """The columns of a file, gathered as the groups say. Raises InvalidArgument and FailedPrecondition."""
    check_installed()
    with ReadingProcess(reading.most_bytes) as process:
        layout = process.lay_out(kind, path, reading)
    yield from layout.map(reading.workspace)


class ReadingProcess:
    """A child that reads files, one after the other."""

    def __init__(self, most_bytes: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "service.data.apart", str(most_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child, whatever it does."""
        self._child.kill()
        self._child.communicate()

    @property
    def alive(self) -> bool:
        """Whether it can read another file."""
        return self._child.poll() is None

    def crash(self) -> None:
        """Has the child end as by a crash."""
        self._child.send_signal(signal.SIGABRT)

    def lay_out(self, kind: str, path: Path, reading: Reading) -> Layout:
        """Has a file laid out in the workspace. Raises InvalidArgument or OSError."""
        try:
            answer = json.loads(self._ask({"kind": kind, "path": str(path), **_message(reading)}) or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            code = self._child.wait()
            if code > 0:  # not a crash, but an exception, which is a mistake of ours
                raise RuntimeError((self._child.stderr.read() if self._child.stderr else b"").decode(errors="replace"))
            raise refuse(f"is not a readable {kind.capitalize()} file")
        if "refused" in answer:
            raise refuse(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        places = (
            Place(place["name"], np.dtype(place["dtype"]), tuple(place["row_shape"]), offset=place["offset"])
            for place in answer["places"]
        )
        return Layout(answer["rows"], tuple(places))

    def _ask(self, request: dict[str, Any]) -> bytes:
        """The answer to a request; nothing if the child has died."""
        if self._child.stdin is None or self._child.stdout is None:
            return b""
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        self._child.stdin.flush()
        return self._child.stdout.readline()


def main() -> None:
    """The child: answers one line of JSON with another, until its input ends."""
    most_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (SPARE_BYTES + 2 * most_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        groups = tuple(Group(group["name"], tuple(group["columns"])) for group in request["groups"])
        reading = Reading(request["most_bytes"], Path(request["workspace"]), groups)
        sys.stdout.write(json.dumps(_answer(request["kind"], Path(request["path"]), reading)) + "\n")
        sys.stdout.flush()


def _answer(kind: str, path: Path, reading: Reading) -> dict[str, Any]:
    try:
        layout = READERS[kind](path, reading)
    except InvalidArgument as error:
        return {"refused": error.violations[0].description}
    except OSError as error:
        return {"errno": error.errno}
    places = [
        {"name": place.name, "dtype": place.dtype.str, "row_shape": place.row_shape, "offset": place.offset}
        for place in layout.places
    ]
    return {"rows": layout.rows, "places": places}


def _message(reading: Reading) -> dict[str, Any]:
    return {**asdict(reading), "workspace": str(reading.workspace)}


if __name__ == "__main__":
    main()
