"""What can be set from outside: by options of the command line, or by environment variables, CHAINRULE_<NAME>."""

import os
from pathlib import Path
from typing import Annotated, Self

from platformdirs import user_data_path
from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.access.exposure import exposed

DATA_DIR = user_data_path("chainrule")
"""Where data is kept unless something else is said."""


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT. Raises ValueError, saying what would be right."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError(f"is {address!r}; must be HOST:PORT, such as 127.0.0.1:50051")
    return host, int(port)


def _checked(address: str) -> str:
    host_and_port(address)
    return address


Address = Annotated[str, AfterValidator(_checked)]


class Settings(BaseSettings):
    """Settings of the coordinator."""

    model_config = SettingsConfigDict(
        env_prefix="CHAINRULE_",
        extra="ignore",
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )

    listen: Address = Field("127.0.0.1:50051", description="HOST:PORT for gRPC; port 0 takes a free one")
    metrics_listen: Address = Field("127.0.0.1:9464", description="HOST:PORT for Prometheus; port 0 takes a free one")
    web_listen: Address | None = Field(
        None,
        description="HOST:PORT for a web page with the jobs, live; port 0 takes a free one. By default there is none",
    )
    data_dir: Path = Field(DATA_DIR, description="directory for jobs, datasets and models")
    ray_address: str | None = Field(
        None, description="a Ray cluster to join (also from RAY_ADDRESS); by default one is started here"
    )
    ray_listen: Address | None = Field(
        None,
        description="HOST:PORT by which other machines reach the Ray cluster started here, to offer it workers (see "
        "chainrule worker); by default none can",
    )
    local_workers: int = Field(
        max(4, os.cpu_count() or 1),
        ge=0,
        description="workers that the Ray cluster started here has room for; 0 where others offer them",
    )
    max_dataset_bytes: int = Field(2 << 30, ge=1, description="the most an uploaded dataset may have, also unpacked")
    total_dataset_bytes: int = Field(50 << 30, ge=1, description="the most all datasets together may take on disk")
    total_dataset_count: int = Field(10_000, ge=1, description="the most datasets there may be")
    unfinished_upload_bytes: int = Field(
        10 << 30, ge=1, description="the most that uploads under way may have together, and what broke off of others"
    )
    unfinished_upload_seconds: float = Field(
        24 * 3600.0, ge=0, description="how long what has arrived of an upload that broke off is kept"
    )
    import_root: list[str] = Field(
        [],
        description="a folder, or the prefix of an object store such as s3://bucket/data, below which clients may have "
        "files imported; may be given several times (in the environment, as a JSON list)",
    )
    max_model_bytes: int = Field(1 << 30, ge=1, description="the most an uploaded model may have")
    checkpoint_seconds: float = Field(10.0, ge=0, description="a checkpoint is due so long after the last one")
    worker_wait_seconds: float = Field(
        120.0, gt=0, description="how long a job without any worker waits for one to come back"
    )
    online_wait_seconds: float = Field(
        120.0, gt=0, description="a job whose mini-batches come from a client is paused when none has come for so long"
    )
    worker_join_seconds: float = Field(30.0, gt=0, description="a worker that takes longer to join a job is replaced")
    worker_answer_seconds: float = Field(300.0, gt=0, description="a worker that takes longer over a step is replaced")
    trainer_answer_seconds: float = Field(60.0, gt=0, description="a trainer that is silent for longer is replaced")
    model_cache_bytes: int = Field(
        1 << 30, ge=1, description="how much memory the models may take that are kept at hand to predict with"
    )
    max_message_bytes: int = Field(
        4 << 20,
        ge=4 << 20,
        le=(1 << 31) - 1,
        description="the most a request or a response may have, such as a batch to predict",
    )
    keep_ended_seconds: float | None = Field(
        None,
        ge=0,
        description="how long a job is kept after its end, with its events and checkpoints; by default for ever",
    )
    keep_ended_jobs: int | None = Field(
        None, ge=0, description="how many jobs are kept that have ended, those that did so last; by default all"
    )
    delete_models_too: bool = Field(
        False, description="have the model of a job that isn't kept any more go with it, unless an alias stands for it"
    )
    watch_heartbeat_seconds: float = Field(
        15.0, gt=0, description="a watch that has nothing to tell for so long says so, which keeps it alive"
    )
    metrics_retention_seconds: float = Field(3600.0, ge=0, description="how long an ended job stays in the metrics")
    auth_tokens: Path | None = Field(
        None,
        description="a file of who may call, in lines that `chainrule admin token` prints; read again when it changes",
    )
    tls_cert: Path | None = Field(
        None, description="the certificate, and those it depends on, in PEM; read again when it changes"
    )
    tls_key: Path | None = Field(None, description="the certificate's private key, in PEM")
    tls_client_ca: Path | None = Field(
        None, description="certificates in PEM, one of which must have signed that of a client (mutual TLS)"
    )
    allow_insecure: bool = Field(
        False, description="listen beyond this machine also without tokens or TLS, where something else sees to that"
    )
    calls_per_second: float = Field(1_000.0, gt=0, description="the most calls that one principal may make in a second")
    concurrent_calls: int = Field(500, ge=1, description="the most calls of one principal at a time, watches included")
    unfinished_jobs: int = Field(
        1_000, ge=1, description="the most jobs of one principal that haven't ended, queued ones included"
    )
    announce: bool = Field(False, description="print a line of JSON with the addresses once ready")
    until_stdin_closes: bool = Field(False, description="stop when standard input closes, as for a parent that ends")

    @property
    def authenticates(self) -> bool:
        """Whether callers must prove who they are."""
        return self.auth_tokens is not None or self.tls_client_ca is not None

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key come together, a certificate and its private key")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError(
                "--tls-client-ca needs --tls-cert and --tls-key: only over TLS do clients show certificates"
            )
        if not self.allow_insecure:
            addresses = {
                "--listen": self.listen,
                "--metrics-listen": self.metrics_listen,
                "--web-listen": self.web_listen,
            }
            for option, address in addresses.items():
                host, _ = host_and_port(address or "localhost:0")
                wrong = exposed(option, host, authenticates=self.authenticates, encrypts=self.tls_cert is not None)
                if wrong:
                    raise ValueError(wrong)
        return self
