"""Files from published packages: one version of one file each, known by its SHA-256.

pip does the fetching, from wherever it is set up to, and checks the file before it looks into it. We only read it; of a
source distribution pip runs the set-up script, to learn what the package is called.
"""

import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

SECONDS = 180
MOST_BYTES = 16 * 1024 * 1024
"""The largest file, of a package or within it, that is read."""


class Missing(Exception):
    """Data that is not here and cannot be had, with the reason and what to do."""


@dataclass(frozen=True)
class Archive:
    """A file of a package: a wheel, or a source distribution."""

    package: str
    version: str
    sha256: str
    is_source: bool = False

    def fetched(self, store: Path) -> bytes:
        """Its bytes, fetched into the folder if they are not there yet. Raises Missing."""
        path = store / f"{self.package}-{self.version}.{'tar.gz' if self.is_source else 'whl'}"
        if not path.exists() or sha256(path.read_bytes()).hexdigest() != self.sha256:
            store.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=store) as folder:
                self._download(Path(folder)).replace(path)
        return path.read_bytes()

    def _download(self, folder: Path) -> Path:
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        kind = ["--no-binary", ":all:"] if self.is_source else WHEEL
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        try:
            subprocess.run(
                [*command, "--require-hashes", *kind, "-d", str(folder / "got"), "-r", str(wanted)],
                check=True,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise Missing(f"{self.package} {self.version} did not come within {SECONDS} seconds") from error
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if line.startswith("ERROR: ")] or ["pip failed"]
            raise Missing(
                f"{self.package} {self.version} cannot be fetched: {said[-1].removeprefix('ERROR: ')[:200]}"
            ) from error
        (file,) = (folder / "got").iterdir()
        if file.stat().st_size > MOST_BYTES:
            raise Missing(f"{file.name} has {file.stat().st_size:,} bytes; expected are at most {MOST_BYTES:,}")
        return file


WHEEL = [
    # The same file wherever it is fetched: it is read, not installed.
    *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
    *(
        part
        for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
        for part in ("--platform", f"{tag}_x86_64")
    ),
    *("--abi", "none"),
    *("--platform", "any"),
]


def from_zip(archive: bytes, name: str) -> bytes:
    """The member of a wheel whose path is `name`. Raises Missing if it is too large, KeyError if there is none."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file, file.open(name) as member:
        return _bounded(member.read(MOST_BYTES + 1), name)


def from_tar(archive: bytes, name: str) -> bytes:
    """The member of a tar.gz whose path is `name`. Raises Missing if it is too large, KeyError if there is none."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as file:
        member = file.extractfile(name)
        if member is None:
            raise KeyError(name)
        return _bounded(member.read(MOST_BYTES + 1), name)


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MOST_BYTES:
        raise Missing(f"{name} has more than {MOST_BYTES:,} bytes")
    return content
