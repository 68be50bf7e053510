import json
import math

import pytest

from dreamerv2.run import monitor as lib


def test_averages_are_of_finite_values_and_counters_are_last():
    averages = lib.Averages()
    for norm, skipped in ((1.0, 0), (math.inf, 1), (3.0, 1)):
        averages.add({"model_grad_norm": norm, "model_skipped": skipped})
    averages.add({"kl_loss": math.nan})
    taken = averages.take()
    assert taken["model_grad_norm"] == 2.0 and taken["model_skipped"] == 1
    assert math.isnan(taken["kl_loss"])
    assert averages.take() == {}


def test_averages_go_on_from_their_state():
    first, second = lib.Averages(), lib.Averages()
    first.add({"a": 1.0})
    second.load_state(json.loads(json.dumps(first.state())))
    second.add({"a": 2.0})
    assert second.take() == {"a": 1.5}


def test_guard_names_the_first_bad_tensor():
    metrics = {"kl_loss": 1.0, "image_loss": math.nan, "model_loss": math.nan}
    assert lib.Guard().bad(metrics) == "image_loss"
    assert lib.Guard().bad({"model_loss": 1.0, "model_grad_norm": math.inf}) == "model_grad_norm"
    assert lib.Guard().bad({"model_loss": 1.0, "anything": math.nan}) is None


def skip(guard, updates, before=0, loss=1.0):
    bad = None
    for update in range(updates):
        bad = guard.bad({"actor_loss": loss, "actor_skipped": before + update + 1.0})
    return bad


def test_guard_tolerates_skipped_updates_until_there_are_too_many_in_a_row():
    guard = lib.Guard()
    assert skip(guard, lib.SKIPPED_IN_A_ROW - 1) is None
    assert guard.bad({"actor_skipped": lib.SKIPPED_IN_A_ROW - 1.0}) is None
    assert skip(guard, lib.SKIPPED_IN_A_ROW - 1, before=lib.SKIPPED_IN_A_ROW) is None
    assert "actor gradient" in skip(guard, 1, before=2 * lib.SKIPPED_IN_A_ROW)


def test_guard_bears_a_loss_that_is_not_finite_for_longer_since_replay_grows(monkeypatch):
    monkeypatch.setattr(lib, "BROKEN_IN_A_ROW", 200)
    guard = lib.Guard()
    for first in (0, 200):
        assert skip(guard, 199, first, math.nan) is None
        assert guard.bad({"actor_skipped": first + 199.0}) is None  # a good one
    assert skip(guard, 150, 400, math.nan) is None
    resumed = lib.Guard()
    resumed.load_state(json.loads(json.dumps(guard.state())))
    assert skip(resumed, 49, 550, math.nan) is None
    assert "actor gradient (200 updates" in skip(resumed, 1, 599, math.nan)
    del (old := guard.state())["broken_in_a_row"]  # of an earlier version
    lib.Guard().load_state(old)


@pytest.mark.parametrize("first", [0, 20, lib.SKIPPED_IN_A_ROW - 1])
def test_guard_counts_over_a_resume(first):
    before, after = lib.Guard(), lib.Guard()
    skip(before, first)
    after.load_state(json.loads(json.dumps(before.state())))
    assert skip(after, lib.SKIPPED_IN_A_ROW - first - 1, before=first) is None
    assert skip(after, 1, before=lib.SKIPPED_IN_A_ROW) is not None


def test_the_score_is_the_geometric_mean_of_one_plus_the_rate():
    assert lib.crafter_score([3.0]) == pytest.approx(3)
    assert lib.crafter_score([0.0, 99.0]) == pytest.approx(9)
    assert lib.crafter_score([0.0] * 22) == 0
