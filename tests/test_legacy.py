"""The packages that came before: gym and atari-py. `make test-legacy` installs them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from common import checkpoint
from dreamerv2 import api
from dreamerv2.run import restore

gym = pytest.importorskip("gym", reason="gym is not installed (extra `legacy`)")
pytest.importorskip("atari_py", reason="atari-py is not installed (extra `legacy`)")


class Corridor(gym.Env):
    """With the interface before gym 0.26: `reset` gives the observation alone, `step` four values.

    The right end is the goal; after 30 steps the time is up, which `info` says.
    """

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def seed(self, seed=None):
        self.random = np.random.default_rng(seed)

    def reset(self):
        self.place, self.steps = int(self.random.integers(3)), 0
        return self._obs()

    def step(self, action):
        self.place = min(max(self.place + 2 * action - 1, 0), 3)
        self.steps += 1
        late = self.steps == 30 and self.place != 3
        info = {"TimeLimit.truncated": True} if late else {}
        return self._obs(), float(self.place == 3), late or self.place == 3, info

    def _obs(self):
        return np.eye(4, dtype=np.float32)[self.place]


def test_an_environment_of_the_old_gym_trains_through_the_api(tmp_path):
    settings = {"logdir": str(tmp_path), "prefill": 60, "steps": 200, "replay.minlen": 2}
    config = api.make_config(["vector", "debug"], {**settings, "time_limit": 0})
    api.train(Corridor(), config, Corridor())
    ends = []
    for path in (tmp_path / "train_episodes").glob("*.npz"):
        with np.load(path) as episode:
            at_goal = episode["vector"][-1, 3] == 1
            assert episode["is_last"][-1] and episode["is_terminal"][-1] == at_goal
            assert episode["reward"].sum() == at_goal
            ends.append(bool(at_goal))
    assert any(ends)
    assert restore.read(tmp_path).agent_steps >= 200


def run(logdir, *flags):
    command = [sys.executable, "-m", "dreamerv2.train", "--logdir", str(logdir)]
    done = subprocess.run([*command, *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("first, second", [("ale", "atari_py"), ("atari_py", "ale")])
def test_a_run_begun_on_one_backend_resumes_on_the_other(tmp_path, first, second):
    run(tmp_path, "--configs", "atari", "debug", "--steps", 240, "--atari_backend", first)
    out = run(tmp_path, "--steps", 320, "--atari_backend", second)
    assert "Resuming at agent step 240" in out
    assert f"atari_backend: {first} -> {second}" in out
    _, meta = checkpoint.load(sorted((tmp_path / "checkpoints").glob("*.npz"))[-1])
    assert meta["agent_steps"] == 320
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 320 * 4
