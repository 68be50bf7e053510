"""That the agent learns: minutes of training, on two cores, of the committed block.

An agent with one wrong index still lowers its losses; it does not balance a pole.
"""

import json

import pytest

from dreamerv2 import evaluate, train

GOAL = 450  # of 500, greedy actions; random ones get about 22


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0])
def test_the_vector_block_balances_the_pole(tmp_path, seed):
    logdir, report = str(tmp_path / "run"), tmp_path / "report.json"
    assert train.main(["--logdir", logdir, "--configs", "vector", "--seed", str(seed)]) == 0
    words = ["--logdir", logdir, "--episodes", "20", "--mode", "eval", "--json", str(report)]
    assert evaluate.main(words) == 0
    assert json.loads(report.read_text())["greedy"]["mean"] >= GOAL
