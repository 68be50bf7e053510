"""Replicas that share a batch learn what one agent learns from all of it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from common.nn import replica
from common.nn.optimizer import INITIAL_SCALE

SCRIPT = Path(__file__).parent / "sharing.py"


def start(*args):
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    argv = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module", params=["devices", pytest.param("workers", marks=pytest.mark.slow)])
def found(request):
    """What each process found."""
    if request.param == "devices":
        return [result(start())]
    ports = [free_port(), free_port()]
    return [result(process) for process in [start(index, *ports) for index in range(2)]]


def test_parameters_after_three_updates_are_those_of_one_agent(found):
    for process in found:
        assert process["learned"] > 100
        assert process["difference"] <= 1e-5
        assert process["relative"] <= 1e-3


def test_losses_and_norms_are_those_of_the_whole_batch(found):
    assert all(process["metrics"] <= 1e-4 for process in found)


def test_replicas_stay_equal_bit_for_bit(found):
    assert all(process["equal"] for process in found)
    assert len({process["checksum"] for process in found}) == 1


def test_each_replica_draws_its_own_random_numbers(found):
    seeds = [seed for process in found for seed in process["seeds"]]
    assert len(set(seeds)) == len(seeds) == 2


def test_an_overflow_in_one_share_is_skipped_by_all_and_halves_all_scales(found):
    for process in found:
        overflow = process["overflow"]
        assert overflow["changed"] == []
        assert set(overflow["skipped"]) == {1} and overflow["metric"] == 1
        assert set(overflow["scales"]) == {INITIAL_SCALE / 2}


def test_one_replica_changes_nothing():
    value = tf.constant([1.0, 2.0])
    assert replica.mean(value) is value
    both = (value, {"more": value})
    assert replica.mean(both) is both
