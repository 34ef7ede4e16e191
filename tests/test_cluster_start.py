"""Local dask workers come up whatever else the machine is doing, or it is said that they did not."""

import socket
from contextlib import suppress
from typing import Any

import pytest

from unetctl.cluster.session import ClusterSession
from unetctl.errors import ResourceError

distributed = pytest.importorskip("distributed", reason="needs dask.distributed")


def test_two_clusters_do_not_want_one_port():
    with socket.socket() as other, ClusterSession("local:1") as session:
        with suppress(OSError):  # dask's usual port for HTTP belongs to another program, this one or a third
            other.bind(("127.0.0.1", 8787))
            other.listen()
        assert session.num_workers() == 1


def test_workers_that_do_not_start_are_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    def fail(**given: Any) -> None:
        raise RuntimeError("Cluster failed to start: timed out")

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    with (
        ClusterSession("local:2") as session,
        pytest.raises(ResourceError, match=r"2 dask workers could not be started on this machine .*timed out"),
    ):
        session.num_workers()
