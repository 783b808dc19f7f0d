"""Measures Chainrule against other ways to do the same, in turns in one run.

python -m benchmarks                                 everything
python -m benchmarks --quick --rows small-adam,step  a short run of some rows
python -m benchmarks scale                           how the cost of a step grows
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from benchmarks import exchange_cost, eyes_cost, memory, report, scale, scrape_cost, starting, watching
from benchmarks.cases import CASES, DDP, OURS, PLAIN_RAY, PRODUCTS, SKLEARN, TORCH, Case
from benchmarks.comparison import Comparison
from benchmarks.contenders import Contender, peer
from benchmarks.ours import Ours, Service, service
from benchmarks.report import Line

WIDE = CASES["wide-adam-1024"]


class Run:
    """What the command line asked for."""

    def __init__(self, bench_python: str, *, quick: bool) -> None:
        self.bench_python = bench_python
        self.quick = quick
        self.seconds, self.rounds = (1.5, 2) if quick else (4.0, 5)

    def compare(self, running: Service, case: Case) -> Iterator[Line]:
        """Ours against everyone who can do the case."""
        names = [DDP, TORCH]
        names += [SKLEARN] if case.with_sklearn else []
        names += [PLAIN_RAY] if case.with_plain_ray else []
        names += [PRODUCTS] if case.batch == 1024 else []
        targets = dict(case.targets) | {PRODUCTS: 0.8}
        with ExitStack() as stack:
            contenders: dict[str, Contender] = {OURS: Ours(running, case)}
            for name in names:
                contenders[name] = stack.enter_context(peer(name, case, self.bench_python))
            result = Comparison(contenders, self.seconds, self.rounds)
        yield Line(f"**{case.title}**: {OURS}", f"{result.rate(OURS):,.0f} samples/s")
        for name in names:
            ratio, target = result.ratio(OURS, name), targets.get(name)
            reached = None if target is None else ratio >= target
            aim = "" if target is None else f">= {target:g}"
            yield Line(name, f"{result.rate(name):,.0f} samples/s", f"{ratio:.2f}", aim, reached)

    def speedup(self, running: Service) -> Iterator[Line]:
        """Two workers against one."""
        contenders = {"2 workers": Ours(running, WIDE), "1 worker": Ours(running, WIDE, workers=1)}
        result = Comparison(contenders, self.seconds, self.rounds)
        ratio = result.ratio("2 workers", "1 worker")
        what = f"2 workers against 1, {WIDE.title}"
        yield Line(what, f"{result.rate('1 worker'):,.0f} samples/s", f"{ratio:.2f}", ">= 1.75", ratio >= 1.75)

    def watched(self, running: Service) -> Iterator[Line]:
        """Clients and scrapes."""
        for name in ("small-adam", "image-adam"):
            lost = watching.slowdown(running, CASES[name], self.seconds, 4 * self.rounds)
            what = f"lost to {watching.CLIENTS} watching clients and a scrape a second, {CASES[name].title}"
            yield Line(what, f"{lost:.1%}", "", "<= 5 %", lost <= 0.05)

    def started(self, running: Service) -> Iterator[Line]:
        """From Create to the first step."""
        seconds = starting.seconds_to_first_step(running, CASES["small-adam"], self.rounds)
        yield Line("from Create to the first step, running service", f"{seconds:.2f} s", "", "<= 1 s", seconds <= 1)

    def step(self) -> Iterator[Line]:
        """What a step costs beyond arithmetic."""
        cost = exchange_cost.measure(exchange_cost.Setting(25_000, steps=1000 if self.quick else 5000))
        what = "a step beyond arithmetic: 25 k parameters, 2 workers, 2 shards"
        yield Line(what, f"{cost.total * 1e3:.3f} ms", "", "<= 0.2 ms", cost.total <= 2e-4)
        yield Line("of which gathering, the rest is the average", f"{cost.gather * 1e3:.3f} ms")

    def seen(self) -> Iterator[Line]:
        """What it costs a step to be seen."""
        for name in ("small-adam", "image-adam"):
            rounds = (18 if self.quick else 60) // (1 if name == "small-adam" else 6)
            cost = eyes_cost.measure(eyes_cost.Setting(name, rounds))
            health, everything, title = cost.health, cost.everything, CASES[name].title
            yield Line(f"a step longer by looks at the layers, {title}", f"{health:.1%}", "", "<= 1 %", health <= 0.01)
            what = "by those and all that is counted and told"
            yield Line(what, f"{everything:.1%}", "", "<= 2 %", everything <= 0.02)

    def scrape(self) -> Iterator[Line]:
        """What Prometheus gets, and what it takes."""
        setting = scrape_cost.Setting(rounds=10 if self.quick else 50)
        cost = scrape_cost.measure(setting)
        what = f"a scrape of {setting.jobs} jobs of {setting.layers} layers and {setting.workers} workers"
        yield Line(f"{what}, in gzip", f"{cost.seconds * 1e3:.1f} ms", "", "<= 50 ms", cost.seconds <= 0.05)
        most = 400 * setting.jobs
        yield Line("its series", f"{cost.series:,}", "", f"<= {most:,}", cost.series <= most)
        yield Line("its bytes, and those in gzip", f"{cost.bytes:,}, {cost.packed_bytes:,}")

    def memory(self) -> Iterator[Line]:
        """Copies of the dataset, and the trainer's vectors."""
        found = memory.measure()
        for workers, copies in found.copies.items():
            yield Line(f"the dataset in memory, {workers} workers", f"{copies:.2f} times")
        yield Line("the trainer's own vectors, Adam", f"{found.vectors:.2f}", "", "<= 4", found.vectors <= 4)


def main() -> None:
    """Runs what is asked for, prints a table, and keeps it if asked to."""
    arguments = _arguments()
    if arguments.what == "scale":
        scale.main(quick=arguments.quick, write=arguments.write)
        return
    run = Run(arguments.bench_python, quick=arguments.quick)
    about = report.machine(arguments.bench_python)
    with_service: Mapping[str, Callable[[Service], Iterator[Line]]] = {
        **{name: lambda running, case=case: run.compare(running, case) for name, case in CASES.items()},  # type: ignore[misc]
        "speedup": run.speedup,
        "watching": run.watched,
        "start": run.started,
    }
    alone: Mapping[str, Callable[[], Iterator[Line]]] = {
        "step": run.step,
        "seen": run.seen,
        "memory": run.memory,
        "scrape": run.scrape,
    }
    wanted = arguments.rows.split(",") if arguments.rows else [*with_service, *alone]
    if unknown := set(wanted) - {*with_service, *alone}:
        sys.exit(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join([*with_service, *alone])}")
    lines: list[Line] = []
    if any(name in with_service for name in wanted):
        with service() as running:
            for name in wanted:
                if name in with_service:
                    _show(lines, with_service[name](running))
    for name in wanted:
        if name in alone:
            _show(lines, alone[name]())
    print(f"\n{about}\n\n{report.table(lines)}")
    if arguments.write:
        report.write(
            shlex.join(["python", "-m", "benchmarks", *_without_python(sys.argv[1:])]), about, report.table(lines)
        )


def _show(lines: list[Line], more: Iterator[Line]) -> None:
    for line in more:
        lines.append(line)
        print("  ".join(filter(None, (line.what, line.measured, line.ratio, line.target))), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=("compare", "scale"), default="compare")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rows", default="", help="which rows, separated by commas")
    parser.add_argument("--write", action="store_true", help="keep the results in a file")
    parser.add_argument("--bench-python", default=sys.executable, help="a Python that has PyTorch and scikit-learn")
    return parser.parse_args()


def _without_python(arguments: list[str]) -> list[str]:
    """The arguments without the place of an interpreter, which means something on one machine alone."""
    return [a for a in arguments if not a.startswith("--bench-python=")]


if __name__ == "__main__":
    main()
