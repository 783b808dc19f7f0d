"""One image, and one deployment of it, for all tests."""

from collections.abc import Iterator

import pytest

from chainrule.client import Client
from tests.deploy.compose import IMAGE, Deployment, build, free_port, have_watchers, run

FILES = ("deploy/compose.yaml", "deploy/compose.tls.yaml")


@pytest.fixture(scope="session")
def image() -> str:
    """The image, and secrets."""
    build(IMAGE)
    run("sh", "deploy/secrets.sh")
    return IMAGE


@pytest.fixture(scope="session")
def deployment(image: str) -> Iterator[Deployment]:
    """A coordinator with TLS, two workers and Prometheus."""
    have_watchers()
    made = Deployment(free_port(), free_port(), FILES, image)
    made.down()
    try:
        made.up("coordinator", "worker", "prometheus")
        yield made
    finally:
        made.down()


@pytest.fixture
def client(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client on this machine, over the published port, with token and TLS."""
    for name, value in deployment.client_env().items():
        monkeypatch.setenv(name, value)
    with Client(deployment.client_env()["CHAINRULE_SERVER"]) as made:
        yield made
