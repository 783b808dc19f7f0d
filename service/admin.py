"""Looks after a data directory: makes backups of it, gives them back, and sees whether all of it is sound."""

import argparse
import json
import os
import sys
from pathlib import Path

from service.backup.making import back_up
from service.backup.manifest import BackupError, Manifest
from service.backup.restoring import restore
from service.backup.verifying import Findings, verify
from service.settings import DATA_DIR


def main() -> None:
    """Does what the command line says.

    Exits with 1 and a line that says why if that can't be done or something is damaged, with 2 if it makes no sense.
    """
    options = _options()
    try:
        match options.what:
            case "backup":
                _tell(options, back_up(options.data_dir, options.place), f"backed up to {options.place}")
            case "restore":
                _tell(options, restore(options.place, options.data_dir), f"restored into {options.data_dir}")
            case "verify":
                place = options.place or options.data_dir
                sys.exit(_tell_findings(options, place, verify(place)))
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    except OSError as error:
        where = f" {error.filename}:" if error.filename else ""
        sys.stderr.write(f"can't {options.what}:{where} {error.strerror or error}\n")
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.admin", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    for what, place, about in (
        ("backup", "TO", "a directory that isn't there yet"),
        ("restore", "FROM", "a backup"),
        ("verify", "WHAT", "a backup or a data directory; by default --data-dir"),
    ):
        command = commands.add_parser(what)
        command.add_argument("place", metavar=place, type=Path, help=about, nargs="?" if what == "verify" else None)
        command.add_argument("--json", action="store_true", help="print an object of JSON")
        command.add_argument("--data-dir", type=Path, default=Path(os.environ.get("CHAINRULE_DATA_DIR") or DATA_DIR))
    return parser.parse_args()


def _tell(options: argparse.Namespace, manifest: Manifest, done: str) -> None:
    if options.json:
        about = {"made": manifest.made.isoformat(), "chainrule": manifest.chainrule}
        print(json.dumps({**about, "files": len(manifest.files), "bytes": manifest.size_bytes}))
    else:
        print(f"{done}: {len(manifest.files):,} files, {manifest.size_bytes:,} bytes, as of {manifest.made:%F %T %Z}")


def _tell_findings(options: argparse.Namespace, place: Path, findings: Findings) -> int:
    """Returns the exit code."""
    if options.json:
        print(json.dumps({**findings.counted, "problems": findings.problems}))
    else:
        counted = ", ".join(
            f"{count:,} {kind if count != 1 else kind[:-1]}" for kind, count in findings.counted.items()
        )
        problems = len(findings.problems)
        for problem in findings.problems:
            sys.stderr.write(f"{problem}\n")
        print(f"{place} has {counted}: {f'{problems:,} problems' if problems else 'all is sound'}", flush=True)
    return 1 if findings.problems else 0


if __name__ == "__main__":
    main()
