"""Watching: every event exactly once, in order, however often the stream breaks."""

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as job_pb
from service.api import watching
from service.jobs.jobs import Jobs
from service.jobs.store import Record
from tests.api.running import FLOWERS, SECONDS, Service, refusal, refused, serving
from tests.unit.service.unreliable import GatedCluster

State = job_pb.TrainingJob


def test_a_watch_from_the_start_sees_everything_and_ends(service: Service) -> None:
    name = service.create().name
    updates = list(service.watch(name))
    events = [update.event for update in updates if update.HasField("event")]
    assert [event.number for event in events] == list(range(1, service.get(name).last_event + 1))
    states = [State.State.Name(e.state_changed.state) for e in events if e.HasField("state_changed")]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert [e.epoch_completed.epoch for e in events if e.HasField("epoch_completed")] == [1, 2, 3]
    assert updates[-1].event.state_changed.result == service.get(name).result
    assert service.events(name) == events


def test_progress_is_shown_while_it_changes(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    seen = []
    for update in gated.watch(name):
        if update.HasField("progress"):
            seen.append(update.progress)
            if update.progress.step < 3:
                cluster.let_through(1)
            else:
                cluster.gate.set()
    assert {1, 2, 3} <= {progress.step for progress in seen}
    assert seen == sorted(seen, key=lambda progress: progress.step)
    assert all(before != after for before, after in pairwise(seen))


def test_the_first_step_is_told_at_once(tmp_path: Path, cluster: GatedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing else that would wake who watches: no tick, no heartbeat, no event."""
    monkeypatch.setattr(watching, "PROGRESS_SECONDS", 3_600.0)
    with serving(tmp_path, cluster, watch_heartbeat_seconds=3_600) as service:
        service.upload("flowers", FLOWERS)
        call = service.watch(service.create(batch_size=8).name)
        assert cluster.entered.wait(SECONDS)
        next(update for update in call if update.event.state_changed.state == State.RUNNING)
        cluster.let_through(1)
        shown = (update.progress.step for update in call if update.HasField("progress"))
        assert next(step for step in shown if step) == 1
        cluster.gate.set()


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_every_event_comes_exactly_once_over_reconnects(at_once: int, gated: Service, cluster: GatedCluster) -> None:
    """The client leaves after every few events, and comes back with the number of the last one."""
    name = gated.create().name
    cluster.gate.set()
    seen: list[event_pb.TrainingEvent] = []
    while not (seen and seen[-1].state_changed.state == State.SUCCEEDED):
        call = gated.watch(name, seen[-1].number if seen else 0)
        taken = 0
        for update in call:
            if update.HasField("event"):
                seen.append(update.event)
                taken += 1
                if taken == at_once:
                    break
        call.cancel()
    assert [event.number for event in seen] == list(range(1, gated.get(name).last_event + 1))
    assert seen == gated.events(name)


def test_watching_an_ended_job_from_anywhere(service: Service) -> None:
    name = service.create().name
    last = service.end(name).last_event
    for after in range(last + 1):
        assert [event.number for event in service.events(name, after)] == list(range(after + 1, last + 1))
    assert all(update.HasField("event") for update in service.watch(name))


@pytest.mark.parametrize("after", [-1, -(2**63), 99, 2**63 - 1])
def test_a_number_that_is_none_yet(after: int, service: Service) -> None:
    name = service.create().name
    last = service.end(name).last_event
    found = refusal(lambda: service.events(name, after))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert found.fields == {"after_event": f"is {after}; {name} has the events 1 to {last} so far"}


def test_many_watch_at_once(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    calls = [gated.watch(name) for _ in range(20)]
    firsts = [next(call) for call in calls]
    for call in calls[::2]:
        call.cancel()
    cluster.gate.set()
    assert {first.event.number for first in firsts} == {1}
    numbers = [[u.event.number for u in call if u.HasField("event")] for call in calls[1::2]]
    assert numbers == [list(range(2, gated.get(name).last_event + 1))] * 10


def test_what_many_watch_is_read_from_the_store_once(
    gated: Service, cluster: GatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    events = Jobs.events

    def counting(jobs: Jobs, job_id: str, after: int, most: int) -> list[Record]:
        reads.append(after)
        time.sleep(0.05)  # long enough that all ask for the same meanwhile
        return events(jobs, job_id, after, most)

    name = gated.create().name
    calls = [gated.watch(name) for _ in range(20)]
    for call in calls:
        next(call)
    monkeypatch.setattr(Jobs, "events", counting)
    cluster.gate.set()
    told = [[u.event.number for u in call if u.HasField("event")] for call in calls]
    last = gated.get(name).last_event
    assert all(numbers[-1] == last and numbers == list(range(numbers[0], last + 1)) for numbers in told)
    assert max(Counter(reads).values()) < 5  # where each reads for itself it is all 20, for the first of them


def test_a_job_that_waits_is_watched_in_silence_until_it_is_cancelled(gated: Service, cluster: GatedCluster) -> None:
    first, second = (gated.create(workers=4, min_workers=4).name for _ in range(2))
    call = gated.watch(second)
    assert next(call).event.state_changed.state == State.QUEUED
    gated.cancel(second)
    last = [update.event for update in call if update.HasField("event")]
    assert [event.state_changed.state for event in last] == [State.CANCELLED]
    cluster.gate.set()
    gated.end(first)


def test_a_watch_ends_in_an_error_that_tells_to_come_back_when_the_service_stops(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with serving(tmp_path, cluster) as service:
        service.upload("flowers", FLOWERS)
        first, waiting = (service.create(workers=4, min_workers=4).name for _ in range(2))
        call, idle = service.watch(first), service.watch(waiting)
        assert next(call).event.number == next(idle).event.number == 1
        assert cluster.entered.wait(SECONDS)
        service.stop()
        cluster.gate.set()
        seen = [1]
        for watch in (call, idle):
            with pytest.raises(grpc.RpcError) as ended:
                seen += [update.event.number for update in watch if update.HasField("event")]
            found = refused(ended.value)
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "COORDINATOR_STOPPING")
    with serving(tmp_path) as service:
        numbers = [event.number for event in service.events(first, seen[-1])]
        assert seen + numbers == list(range(1, service.get(first).last_event + 1))
        assert service.end(waiting).state == State.SUCCEEDED


def test_a_watch_that_has_nothing_to_tell_says_so(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with serving(tmp_path, cluster, watch_heartbeat_seconds=0.05) as service:
        service.upload("flowers", FLOWERS)
        _, waiting = (service.create(workers=4, min_workers=4).name for _ in range(2))
        call = service.watch(waiting)
        kinds = [next(call).WhichOneof("update") for _ in range(6)]
        assert kinds == ["event", "progress", "heartbeat", "heartbeat", "heartbeat", "heartbeat"]
        service.cancel(waiting)
        assert [update.event.state_changed.state for update in call if update.HasField("event")] == [State.CANCELLED]
        cluster.gate.set()
