"""The command that a run's values come to gives these values again."""

import shlex

import pytest

from dreamerv2.run import blocks
from dreamerv2.run.origin import command, origin

RUNS = [
    (["atari"], {}),
    (["night"], {"seed": 3}),
    (["atari", "small", "discretized"], {"encoder.mlp_keys": ".*", "precision": "bfloat16"}),
    (["vector", "pendulum"], {"actor_ent": "linear(5e-3,1e-3,4000)", "log_keys_video": []}),
    (["vector"], {"loss_scales.vector": 1000.0, "loss_scales.other": 2.0}),
    (["custom", "debug"], {"env": "hover:make", "task": "own_hover.make"}),
    ([], {"rssm.discrete": False, "encoder.mlp_layers": [7, 5]}),
]


@pytest.mark.parametrize("names, changes", RUNS)
def test_the_command_gives_the_same_configuration_with_no_more_than_was_said(names, changes):
    config = blocks.make_config(names, {"logdir": "runs/a b", **changes})
    found = origin(config.flat)
    words = shlex.split(command(config.flat, found))
    assert words[:3] == ["python", "-m", "dreamerv2.train"]
    assert blocks.parse_args(words[3:]).config.flat == config.flat
    assert len(found.changes) <= len(changes)


def test_a_scale_that_a_block_sets_and_the_run_lacks_is_a_change():
    settings = dict(blocks.make_config(["vector"]).flat)
    del settings["loss_scales.vector"]
    assert origin(settings).changes == {"loss_scales.vector": 1.0}


def test_keys_of_other_versions_are_passed_over():
    settings = dict(blocks.make_config(["minatar"]).flat) | {"gone": 5}
    del settings["save_every"]
    assert origin(settings) == (("minatar",), {})
