"""What is kept of a failure, and what one broken value does to all that comes after it."""

import gymnasium
import numpy as np
import pytest
import tiny

from common import checkpoint
from common.data.rows import LARGEST, BadRowError, RowCheck, problem
from common.envs.scripted import Scripted
from common.nn.optimizer import INITIAL_SCALE, LossScale
from dreamerv2.run import failure, reproduce, snapshot
from dreamerv2.run.factory import make_runner


def batches(agent, count, broken_at):
    """Batches, one of them with a NaN."""
    for index in range(count):
        batch = tiny.batch(agent, seed=index)
        if index == broken_at:
            batch["vector"][1, 2, 0] = np.nan
        yield batch


@pytest.mark.parametrize("per_copy", [100, 3])
def test_the_update_that_broke_can_be_done_again(tmp_path, monkeypatch, per_copy):
    monkeypatch.setattr(failure, "UPDATES_PER_COPY", per_copy)
    agent, carry, states = tiny.agent(seed=3), None, []
    recorder = failure.Recorder()
    for index, batch in enumerate(batches(agent, 6, broken_at=4)):
        states.append(agent.state_dict())
        recorder.note(agent, carry, batch, index)
        carry, metrics = agent.train(batch, carry, index)
    # Found one update too late, as a parameter that is checked now and then.
    assert agent.nonfinite()
    before = recorder.rewind(agent)
    assert before.agent_steps == 4 and np.isnan(before.batch["vector"][1, 2, 0])
    for name, value in states[4].items():
        np.testing.assert_array_equal(before.state[name], value, err_msg=name)
        np.testing.assert_array_equal(agent.state_dict()[name], value, err_msg=name)

    meta = snapshot.agent_meta(4, 4, agent.config, agent.obs_space, agent.act_space, None)
    folder = failure.write(tmp_path, 4, before, meta, "it broke")
    again = reproduce.reproduce(folder)
    assert not np.isfinite(again["model_loss"])
    (folder / "batch.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="expected a folder of LOGDIR/failure"):
        reproduce.reproduce(folder)


SPACES = {
    "image": gymnasium.spaces.Box(0, 255, (2, 2, 1), np.uint8),
    "vector": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
}
ROW = {"image": np.zeros((2, 2, 1), np.uint8), "vector": np.zeros(3, np.float32)}


def check(float16=False, warn=print):
    return RowCheck(SPACES, lambda dtype: dtype, float16, warn)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.01 * LARGEST, -1e30])
def test_a_number_that_learning_cannot_hold_is_refused_wherever_it_stands(value):
    for place in range(3):
        row = {**ROW, "vector": np.zeros(3, np.float32)}
        row["vector"][place] = value
        with pytest.raises(BadRowError, match="vector is "):
            check()(row)
        episode = {k: np.stack([ROW[k], ROW[k], row[k]]) for k in row}
        assert problem(episode).startswith("vector is ") and problem(episode).endswith(" in row 2")
    check()({**ROW, "vector": np.float32([1e6, -LARGEST / 2, 0])})
    assert problem({k: v[None] for k, v in ROW.items()}) is None


def test_what_float16_cannot_hold_is_said_once_per_key_and_kept():
    said = []
    checked = check(True, said.append)
    for _ in range(3):
        checked({**ROW, "vector": np.float32([0, -1e6, 0])})
    assert len(said) == 1 and "vector holds 1e+06; float16 ends at 65504" in said[0]
    said.clear()
    check(False, said.append)({**ROW, "vector": np.float32([0, -1e6, 0])})
    check(True, said.append)({**ROW, "vector": np.float32([0, 6e4, 0])})
    assert said == []


def test_the_loss_scale_stays_where_the_loss_itself_is_not_finite():
    scale = LossScale("dynamic")
    for _ in range(28):
        scale.update(finite=False, curable=False)
    assert scale.value == INITIAL_SCALE
    scale.update(finite=False, curable=True)
    assert scale.value == INITIAL_SCALE / 2


def test_a_broken_batch_at_precision_16_leaves_scale_and_weights(capsys):
    agent = tiny.agent(precision=16, seed=1)
    before = agent.state_dict()
    carry, metrics = agent.train(next(batches(agent, 1, broken_at=0)), None, 0)
    assert metrics["model_skipped"] == 1 and metrics["model_loss_scale"] == INITIAL_SCALE
    kernels = [name for name in before if name.startswith("wm/")]
    assert kernels and agent.nonfinite() is None
    for name in kernels:
        np.testing.assert_array_equal(agent.state_dict()[name], before[name], err_msg=name)


@pytest.mark.parametrize("discrete", [3, False])
@pytest.mark.parametrize("act_space", [None, tiny.ACTION])
def test_at_precision_16_an_observation_too_large_is_forgotten_by_who_acts(discrete, act_space):
    agent = tiny.agent(precision=16, seed=1, rssm__discrete=discrete, act_space=act_space)
    twin = tiny.agent(precision=16, seed=1, rssm__discrete=discrete, act_space=act_space)
    obs = {"vector": np.ones((2, 3), np.float32), "is_first": np.array([True, True])}
    _, state = agent.policy(obs)
    _, expected = twin.policy(obs)
    obs = {**obs, "is_first": np.array([False, False])}
    broken = {**obs, "vector": np.float32([[1e6, 1, 1], [1, 1, 1]])}
    for mode in ("train", "eval"):
        outputs, state = agent.policy(broken, state, mode)
        good, expected = twin.policy(obs, expected, mode)
        action = outputs["action"].numpy()
        assert agent.act_space.contains(action[0]) and snapshot.finite(state[0])
        np.testing.assert_array_equal(action[1], good["action"][1])
        for key, value in state[0].items():
            assert not np.any(value[0]), "it starts over"
            np.testing.assert_array_equal(value[1], expected[0][key][1])
    _, state = agent.policy(obs, state)
    assert np.any(state[0]["stoch"][0])


class LargeOnce(Scripted):
    """One observation of 1e6, at its 70th step."""

    def __init__(self):
        super().__init__(20, size=8, continuous=True)
        self._count = 0

    def step(self, action):
        self._count += 1
        row = super().step(action)
        return {**row, "counter": np.float32([1e6, 0])} if self._count == 70 else row


@pytest.mark.parametrize("discrete", [3, False])
def test_a_run_at_precision_16_recovers_from_one_observation_of_a_million(
    tmp_path, capsys, discrete
):
    def play(steps):
        config = tiny.config(
            **{"logdir": str(tmp_path), "precision": 16, "seed": 2, "rssm__discrete": discrete},
            **{"steps": steps, "prefill": 60, "pretrain": 1, "train_every": 4, "eval_every": 500},
            **{"encoder__cnn_keys": "$^", "decoder__cnn_keys": "$^", "log_every": 50},
            **{"replay__minlen": 5, "replay__maxlen": 8, "dataset__batch": 4, "dataset__length": 8},
            reward_norm__momentum=0.9,
        )
        env = LargeOnce() if steps == 120 else Scripted(20, size=8, continuous=True)
        return make_runner(config, lambda mode, _: [env] if mode == "train" else []).run()

    learned = [0]
    for steps in (120, 136):
        assert play(steps) == 0
        arrays, meta = checkpoint.load(tmp_path / "checkpoints" / f"{steps:012d}.npz")
        assert meta["agent_steps"] == steps
        bad = [k for k, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        assert bad == []
        learned.append(int(arrays["agent/model_opt/steps"]))
    said = capsys.readouterr().out
    assert said.count("counter holds 1e+06; float16 ends at 65504") == 1
    assert "an update was skipped because" in said, said
    assert arrays["agent/model_opt/skipped"] > 0
    assert learned == sorted(set(learned)), "some updates are good, before and after"
