"""The rules that keep the map of the code true: who may import whom, and what a file may be.

Each is a row of RULES and is held against the whole checkout. And because a rule that cannot fail protects nothing,
each is also shown, on a tree of a few lines, to find what it forbids and nothing else.
"""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("chainrule", "service", "worker")
LONGEST_FILE = 400
GRPC = ("grpc", "grpc_status", "grpc_health", "grpc_reflection", "google.rpc")


@dataclass(frozen=True)
class Source:
    """One text file of the checkout; `path` is relative to it, with forward slashes."""

    path: str
    text: str

    @property
    def package(self) -> str:
        """The folder at the top that the file is in."""
        return self.path.partition("/")[0]

    @property
    def module(self) -> str:
        """The dotted name: `worker.layers` for worker/layers/__init__.py."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def syntax(self) -> list[ast.AST]:
        """Every node of a Python file."""
        return list(ast.walk(ast.parse(self.text, self.path)))

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line and dotted name of everything imported, wherever in the file: `from a import b` is `a.b`."""
        return [(line, name) for node in self.syntax for line, name in self._names(node)]

    def _names(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = [*self._anchor(level), *([module] if module else [])]
                yield from ((node.lineno, ".".join([*parts, alias.name])) for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name

    def _anchor(self, level: int) -> list[str]:
        """What the dots of a relative import stand for."""
        return self.path.split("/")[:-level] if level else []


@dataclass(frozen=True)
class Checkout:
    """The text files below `root`, but for those that .gitignore names."""

    root: Path

    @cached_property
    def sources(self) -> list[Source]:
        """All of them, in the order of their paths."""
        return sorted(self._read(), key=lambda source: source.path)

    @property
    def python(self) -> list[Source]:
        """The Python files that people write; generated stubs are not."""
        return [s for s in self.sources if s.path.endswith(".py") and not s.path.endswith(("_pb2.py", "_pb2_grpc.py"))]

    def within(self, *packages: str) -> list[Source]:
        """The Python files of some of the folders at the top."""
        return [source for source in self.python if source.package in packages]

    def _read(self) -> Iterator[Source]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not self._ignored(name)]
            for path in (Path(folder, name) for name in names if not self._ignored(name)):
                if not path.is_file():
                    continue
                try:
                    yield Source(path.relative_to(self.root).as_posix(), path.read_text(encoding="utf-8"))
                except UnicodeDecodeError:
                    continue

    def _ignored(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self._ignored_patterns)

    @cached_property
    def _ignored_patterns(self) -> list[str]:
        gitignore = self.root / ".gitignore"
        lines = gitignore.read_text(encoding="utf-8").splitlines() if gitignore.exists() else []
        return [".git", *(line.strip("/ ") for line in lines)]


@dataclass(frozen=True)
class Offence:
    """Something a rule forbids, and where it is."""

    path: str
    line: int
    what: str


Check = Callable[[Checkout], Iterator[Offence]]


def is_in(name: str, *packages: str) -> bool:
    """Whether the dotted name is one of the packages or inside one."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def never(package: str, imports: Callable[[str], bool], *, but: tuple[str, ...] = ()) -> Check:
    """Forbids the files of a package, `but` for some, what `imports` accepts."""

    def check(checkout: Checkout) -> Iterator[Offence]:
        for source in checkout.within(package):
            for line, name in source.imports:
                if imports(name) and source.path not in but:
                    yield Offence(source.path, line, f"imports {name}")

    return check


def confined(packages: tuple[str, ...], *places: str) -> Check:
    """Forbids our packages to import these, but in `places`: files, or folders with a slash at the end."""

    def check(checkout: Checkout) -> Iterator[Offence]:
        for source in checkout.within(*PACKAGES):
            if any(source.path == place or (place.endswith("/") and source.path.startswith(place)) for place in places):
                continue
            for line, name in source.imports:
                if is_in(name, *packages):
                    yield Offence(source.path, line, f"imports {name}")

    return check


def no_cycles(checkout: Checkout) -> Iterator[Offence]:
    """Names the modules of one cycle, if there is any."""
    sources = {source.module: source for source in checkout.python}
    graph = {
        module: {target: line for line, name in source.imports if (target := module_of(name, sources))}
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        yield Offence(sources[cycle[0]].path, graph[cycle[0]][cycle[1]], f"imports itself: {' -> '.join(cycle)}")


def module_of(name: str, modules: dict[str, Source]) -> str:
    """The module of ours that has the imported name: the name itself or the longest part of it; "" if none has."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def folders_of_tests(checkout: Checkout) -> Iterator[Offence]:
    """Looks at each folder of tests/ with Python files, and at those above it."""
    tests = checkout.within("tests")
    folders = {parent for source in tests for parent in Path(source.path).parents if parent.parts}
    missing = {f"{folder.as_posix()}/__init__.py" for folder in folders} - {source.path for source in tests}
    yield from (Offence(path, 1, "is missing") for path in sorted(missing))


def no_patching(checkout: Checkout) -> Iterator[Offence]:
    """Finds `patch` of unittest.mock and of pytest-mock, imported or used."""
    for source in checkout.within("tests"):
        for line, name in source.imports:
            if name in ("unittest.mock.patch", "mock.patch"):
                yield Offence(source.path, line, f"imports {name}")
        for node in source.syntax:
            match node:
                case ast.Attribute(attr="patch", value=ast.Name(id="mock" | "mocker") | ast.Attribute(attr="mock")):
                    yield Offence(source.path, node.lineno, "uses patch")


def telling_names(checkout: Checkout) -> Iterator[Offence]:
    """Finds classes whose name says that they do something, but not what."""
    for source in checkout.python:
        for node in source.syntax:
            match node:
                case ast.ClassDef(name=name) if re.search("(Manager|Helper|Handler|Utils|Common|Base)$", name):
                    yield Offence(source.path, node.lineno, f"class {name}")


def short_files(checkout: Checkout) -> Iterator[Offence]:
    """Counts the lines of Python files and protos."""
    protos = [source for source in checkout.sources if source.path.endswith(".proto")]
    for source in [*checkout.python, *protos]:
        if (lines := len(source.text.splitlines())) > LONGEST_FILE:
            yield Offence(source.path, lines, f"has {lines} lines")


def no_places(checkout: Checkout) -> Iterator[Offence]:
    """Finds the hosts of package registries, and absolute paths that only one machine has."""
    # The brackets keep this line from finding itself.
    place = re.compile(r"pypi[.]org|registry[.]npmjs[.]org|files[.]pythonhosted[.]org|(?<![\w./])/work[/]")
    for source in checkout.sources:
        for number, line in enumerate(source.text.splitlines(), start=1):
            if found := place.search(line):
                yield Offence(source.path, number, f"names {found[0]}")


RULES: dict[str, Check] = {
    "worker imports nothing of ours": never("worker", lambda name: is_in(name, "chainrule", "service")),
    "worker is NumPy and the standard library, but for its ends: Ray, shared memory, environments, versions": never(
        "worker",
        lambda name: name.partition(".")[0] not in {*sys.stdlib_module_names, *PACKAGES, "numpy"},
        but=tuple(f"worker/{name}.py" for name in ("actor", "exchange", "segment", "environments", "versions")),
    ),
    "service imports worker and the stubs in chainrule.v1 and chainrule.inference, and nothing else of ours": never(
        "service", lambda name: is_in(name, "chainrule") and not is_in(name, "chainrule.v1", "chainrule.inference")
    ),
    "chainrule imports neither service nor worker": never("chainrule", lambda name: is_in(name, "service", "worker")),
    "ray is imported by its actor and service/cluster/ only": confined(("ray",), "worker/actor.py", "service/cluster/"),
    "grpc is imported in service/api/, service/__main__.py and chainrule/ only": confined(
        GRPC, "service/api/", "service/__main__.py", "chainrule/"
    ),
    "prometheus_client is imported in service/metrics/ only": confined(("prometheus_client",), "service/metrics/"),
    "aiohttp is imported in service/web/ only": confined(("aiohttp",), "service/web/"),
    "opentelemetry is imported in service/tracing/ only": confined(("opentelemetry",), "service/tracing/"),
    "sqlite3 is imported in service/jobs/store.py only": confined(("sqlite3",), "service/jobs/store.py"),
    "no module imports itself, by whatever way round": no_cycles,
    "every folder of tests is a package, or tests/worker would hide worker": folders_of_tests,
    "tests use small real classes, not patch": no_patching,
    "a class is named for what it is": telling_names,
    f"a file holds one idea: {LONGEST_FILE} lines at most": short_files,
    "no file names a package registry's host or a path of one machine": no_places,
}


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    """This checkout, read once."""
    return Checkout(ROOT)


@pytest.mark.parametrize("rule", RULES)
def test_the_code_keeps_the_rule(rule: str, checkout: Checkout) -> None:
    offences = [f"{o.path}:{o.line}: {o.what}" for o in RULES[rule](checkout)]
    assert not offences, "\n".join([f"{rule}. But:", *offences])


def test_the_checkout_was_found(checkout: Checkout) -> None:
    paths = {source.path for source in checkout.sources}
    assert {"pyproject.toml", "worker/__init__.py", "tests/test_architecture.py", "Makefile"} <= paths
    assert not any(path.startswith((".git/", ".venv/")) or path.endswith(".pyc") for path in paths)
    assert "chainrule/v1/training_job_pb2.py" not in {source.path for source in checkout.python}


def write(root: Path, files: dict[str, str]) -> Checkout:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Checkout(root)


# For each rule, in the same order: a tree, and the places where it breaks the rule.
BROKEN: list[tuple[dict[str, str], set[str]]] = [
    (
        {"worker/a.py": "import ast\nimport service.x\nfrom chainrule import v1", "worker/actor.py": "import service"},
        {"worker/a.py:2", "worker/a.py:3", "worker/actor.py:1"},
    ),
    (
        {"worker/a.py": "import scipy.signal", "worker/layers/b.py": "def f():\n    import ray"},
        {"worker/a.py:1", "worker/layers/b.py:2"},
    ),
    (
        {"service/a.py": "import chainrule.client\nimport chainrule", "service/b/c.py": "from chainrule import client"},
        {"service/a.py:1", "service/a.py:2", "service/b/c.py:1"},
    ),
    (
        {
            "chainrule/a.py": "if TYPE_CHECKING:\n    from worker import network\nimportlib.import_module('service')",
            "chainrule/b/c.py": "from service.x import *",
        },
        {"chainrule/a.py:2", "chainrule/a.py:3", "chainrule/b/c.py:1"},
    ),
    (
        {"worker/a.py": "import ray", "service/jobs/a.py": "from ray.util import x"},
        {"worker/a.py:1", "service/jobs/a.py:1"},
    ),
    (
        {"worker/a.py": "import grpc.aio", "service/a.py": "from google import rpc\nfrom google.rpc import status_pb2"},
        {"worker/a.py:1", "service/a.py:1", "service/a.py:2"},
    ),
    (
        {
            "service/training/a.py": "from prometheus_client import Gauge",
            "service/__main__.py": "import prometheus_client",
        },
        {"service/training/a.py:1", "service/__main__.py:1"},
    ),
    ({"service/api/a.py": "from aiohttp import web"}, {"service/api/a.py:1"}),
    ({"service/__main__.py": "from opentelemetry import trace"}, {"service/__main__.py:1"}),
    (
        {"service/jobs/a.py": "import sqlite3 as sql", "worker/a.py": "import sqlite3"},
        {"service/jobs/a.py:1", "worker/a.py:1"},
    ),
    (
        {"worker/__init__.py": "from worker.a import name", "worker/a.py": "\nfrom worker import other"},
        {"worker/__init__.py:1"},
    ),
    (
        {"tests/__init__.py": "", "tests/worker/deep/test_a.py": ""},
        {"tests/worker/__init__.py:1", "tests/worker/deep/__init__.py:1"},
    ),
    (
        {
            "tests/a.py": "from unittest.mock import Mock, patch\nfrom unittest import mock\nmock.patch('x')",
            "tests/b.py": "import unittest.mock\nunittest.mock.patch.object(x, 'y')\nmocker.patch('z')",
        },
        {"tests/a.py:1", "tests/a.py:3", "tests/b.py:2", "tests/b.py:3"},
    ),
    (
        {"worker/a.py": "class LayerBase: ...\nclass Basement: ...\nclass JobManager: ..."},
        {"worker/a.py:1", "worker/a.py:3"},
    ),
    (
        {"service/a.py": "\n" * (LONGEST_FILE + 1), "protos/a.proto": "\n" * (LONGEST_FILE + 1)},
        {f"service/a.py:{LONGEST_FILE + 1}", f"protos/a.proto:{LONGEST_FILE + 1}"},
    ),
    (
        {
            "a.md": f"See\nhttps://{'pypi' + '.org'}/simple",
            "b.lock": f"https://{'files.pythonhosted' + '.org'}\nhttps://{'registry.npmjs' + '.org'}/x",
            "docs/c.yaml": f"path: {'/wo' + 'rk/'}data",
        },
        {"a.md:2", "b.lock:1", "b.lock:2", "docs/c.yaml:1"},
    ),
]

SOUND = {
    ".gitignore": ".venv/\n*.egg-info/\n",
    ".venv/lib/service/a.py": "import sqlite3",
    "README.md": f"An address such as https://example.com{'/wo' + 'rk/'} is no path.\n",
    "chainrule/v1/job_pb2.py": "class Base: ...\n" * (LONGEST_FILE + 1),
    "chainrule/client.py": "import grpc\nfrom chainrule.v1 import job_pb2",
    "worker/__init__.py": "",
    "worker/network.py": "from __future__ import annotations\nimport numpy as np\nfrom worker.layers import Dense",
    "worker/actor.py": "import ray\nfrom worker import network",
    "worker/layers/__init__.py": "from worker.layers.dense import Dense",
    "worker/layers/dense.py": "from .layer import Layer\nclass Dense(Layer): ...",
    "worker/layers/layer.py": "import numpy.typing\nclass Layer: ...",
    "service/__main__.py": "import grpc\nfrom service import metrics\nfrom service.api import jobs",
    "service/metrics/process.py": "import prometheus_client",
    "service/api/jobs.py": "import grpc\nfrom google.rpc import status_pb2\nfrom chainrule.v1 import job_pb2",
    "service/jobs/store.py": "import sqlite3",
    "service/tracing/spans.py": "import opentelemetry.sdk",
    "service/cluster/pool.py": "import ray\nimport worker.actor",
    "tests/__init__.py": "",
    "tests/test_a.py": "import grpc, ray, sqlite3, service.api\nfrom unittest.mock import Mock\nx = 'mock.patch'",
    "short.py": "\n" * LONGEST_FILE,
}


@pytest.mark.parametrize(("rule", "broken"), list(zip(RULES, BROKEN, strict=True)), ids=list(RULES))
def test_each_rule_finds_what_it_forbids(rule: str, broken: tuple[dict[str, str], set[str]], tmp_path: Path) -> None:
    files, places = broken
    assert {f"{o.path}:{o.line}" for o in RULES[rule](write(tmp_path, files))} == places


def test_a_cycle_is_found_through_every_kind_of_import(tmp_path: Path) -> None:
    files = {
        "worker/__init__.py": "",
        "worker/a.py": "if TYPE_CHECKING:\n    from worker import b",
        "worker/b.py": "import numpy\nfrom .c.d import name",
        "worker/c/__init__.py": "",
        "worker/c/d.py": "def f():\n    from .. import a",
    }
    (offence,) = no_cycles(write(tmp_path, files))
    names = offence.what.removeprefix("imports itself: ").split(" -> ")
    around = ["worker.a", "worker.b", "worker.c.d", "worker.a"]
    assert set(pairwise(names)) == set(pairwise(around))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_lets_sound_code_be(rule: str, tmp_path: Path) -> None:
    assert list(RULES[rule](write(tmp_path, SOUND))) == []
