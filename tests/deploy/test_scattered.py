"""Workers in a Ray cluster that was there before, without shared memory, as on other machines. The last of these tests:
what is up is another thing afterwards."""

from dataclasses import replace

import pytest

from chainrule.client import Client
from tests.deploy.compose import ROOT, Deployment, until
from tests.deploy.training import DIGITS, at_work, learn_digits, start

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]


def test_workers_that_share_no_memory_give_the_same_bits(deployment: Deployment, client: Client) -> None:
    shared = learn_digits()["parameters_sha256"]
    joined = replace(deployment, files=(*deployment.files, "tests/deploy/joined.yaml"))
    joined.up("cluster", "coordinator", "worker")
    until("two workers", lambda: joined.compose("logs", "worker").count("offers 1 workers") == 2, 60)
    name = start(ROOT / DIGITS)
    until("its steps", lambda: at_work(client, name, 2), 60)
    assert client.get_job(name).progress.shared_memory_workers == 0
    assert client.wait(name).result.parameters_sha256 == shared
