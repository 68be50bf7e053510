"""Environments of one's own: from the page in docs/, by function, as an object, and refused."""

import contextlib
import importlib
import io
import re
import runpy
import shlex
import threading
import types

import gymnasium
import numpy as np
import pytest
from tiny import config as tiny_config

from common.envs import make_env
from dreamerv2 import api
from dreamerv2.run import blocks, environments, factory, own, restore
from dreamerv2.run.reading import who_reads

PAGE = "docs/own_environment.md"


class Steps(gymnasium.Env):
    """Ends after a few steps; the observation is a vector and an image."""

    observation_space = gymnasium.spaces.Dict(
        camera=gymnasium.spaces.Box(0, 255, (20, 30, 3), np.uint8),
        arm=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    )
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length=7):
        self.length, self.closed, self.seeds = length, False, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 1.0, False, self.steps == self.length, {}

    def close(self):
        self.closed = True


def page_blocks(project, language):
    text = (project / PAGE).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [match[2] for match in found if match[1] == language]


def page_file(project, name):
    return next(c for c in page_blocks(project, "python") if c.startswith(f"# {name}\n"))


@pytest.fixture(scope="module")
def hover(project, tmp_path_factory):
    """The folder of the first example after its commands, in the smallest form; their outputs.

    They run in this process, which has TensorFlow already.
    """
    folder = tmp_path_factory.mktemp("hover")
    (folder / "hover.py").write_text(page_file(project, "hover.py"))
    (commands,) = (c for c in page_blocks(project, "") if "--env hover:make" in c)
    outputs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))  # as `python -m` does
        for line in commands.splitlines():
            line = line.replace("custom", "custom debug").replace("--steps 10000", "--steps 200")
            _, _, module, *words = shlex.split(line)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                assert importlib.import_module(module).main(words) == 0
            outputs.append(said.getvalue())
    return folder, outputs


def test_the_vector_example_of_the_page_runs(hover):
    folder, (train, evaluate, _) = hover
    assert "  vector  float32 [2]  encoder and decoder\n" in train
    assert "own_hover.make after 200 env frames" in evaluate
    assert (folder / "hover.gif").stat().st_size > 1000


def test_a_run_says_that_it_is_one_of_an_own_environment(hover, monkeypatch):
    folder, _ = hover
    config = blocks.load_config(folder / "runs/hover/config.yaml")
    assert (config.task, config.env) == ("own_hover.make", "hover:make")
    saved = restore.read(folder / "runs/hover")
    assert saved.config.task == "own_hover.make"
    monkeypatch.syspath_prepend(str(folder))
    env = saved.env(0)
    assert env.reset()["vector"].shape == (2,)
    with pytest.raises(ValueError, match=f"{__name__}:Steps is not what this agent was trained on"):
        saved.with_env(f"{__name__}:Steps").env(0)


def test_the_image_example_of_the_page_runs(project, tmp_path, monkeypatch, capsys):
    code = page_file(project, "orchard.py")
    code = code.replace('["custom"]', '["custom", "debug"]').replace("50_000", "200")
    (tmp_path / "orchard.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("orchard.py", run_name="__main__")  # as `python orchard.py` does
    said = capsys.readouterr().out
    for line in page_blocks(project, ""):
        if line.startswith("Observations:"):
            assert line in said
    assert (tmp_path / "orchard.gif").stat().st_size > 1000
    config = blocks.load_config(tmp_path / "runs/orchard/config.yaml")
    assert (config.task, config.env) == ("own_Orchard", "object __main__.Orchard")


def test_the_wrapper_of_the_page_numbers_the_combinations(project):
    scope = {}
    exec(page_file(project, "wrapped.py"), scope)

    class Two(Steps):
        action_space = gymnasium.spaces.MultiDiscrete([2, 3])

        def step(self, action):
            self.got = action
            return super().step(action)

    inner = Two()
    env = make_env(scope["numbered"](inner))
    assert env.act_space.shape == (6,)
    env.reset()
    seen = []
    for number in range(6):
        env.step(np.eye(6, dtype=np.float32)[number])
        seen.append(tuple(int(part) for part in inner.got))
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def small_agent(**settings):
    config = own.of_object(tiny_config(**settings), Steps())
    env = environments.prepared_envs(config, Steps(), "eval", [0])[0]
    return factory.make_agent(config, env.obs_space, env.act_space), config


def test_the_start_says_who_reads_what_and_which_pattern_excludes_it():
    agent, config = small_agent(encoder__mlp_keys="$^", decoder__cnn_keys="other")
    text = who_reads(config, agent.obs_space, agent)
    assert text.splitlines() == [
        "Observations:",
        "  camera  uint8 [64, 64, 3]  encoder (decoder.cnn_keys other excludes it)",
        "  arm     float32 [2]        decoder (encoder.mlp_keys $^ excludes it)",
    ]


def test_what_is_only_logged_takes_one_line_at_the_start():
    agent, config = small_agent()
    counts = {f"log_{name}": agent.obs_space["reward"] for name in ("coal", "wood", "stone")}
    lines = who_reads(config, {**agent.obs_space, **counts}, agent).splitlines()
    assert lines[:-1] == who_reads(config, agent.obs_space, agent).splitlines()
    assert lines[-1] == "  and 3 that are only logged: log_coal, log_wood, log_stone"


def test_evaluate_plays_seeded_episodes_and_leaves_the_environment_open():
    agent, _ = small_agent()
    env, lines = Steps(), []
    result = api.evaluate(agent, env, episodes=3, seed=4, show=lines.append)
    assert result.returns == [7, 7, 7] and result.lengths == [7, 7, 7]
    assert len(lines) == 3 and not env.closed
    again = Steps()
    api.evaluate(agent, again, episodes=3, seed=4, show=lines.append)
    assert env.seeds == again.seeds and len(set(env.seeds)) == 3
    with pytest.raises(ValueError, match="did not end within 5 agent steps"):
        api.evaluate(agent, Steps(), max_steps=5)
    with pytest.raises(ValueError, match="trained on: observation 'camera' was .* nothing"):
        api.evaluate(agent, gymnasium.make("CartPole-v1"))


def test_act_takes_what_gymnasium_returns():
    agent, config = small_agent(eval_state_mean=True)
    env = Steps()
    whole = env.reset()
    row = environments.prepared_envs(config, Steps(), "eval", [0])[0]
    assert set(row.reset()) > set(whole[0])
    actions = [agent.act(obs)[0] for obs in (whole, whole[0])]
    np.testing.assert_array_equal(*actions)
    _, state = agent.act(whole)
    step = env.step(0)
    one, _ = agent.act(step, state)
    other, _ = agent.act(step[0], state)
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"expected the keys \['camera', 'arm'\], got \['arm'\]"):
        agent.act({"arm": whole[0]["arm"]})


def test_an_object_that_no_command_can_make_is_said_to_be_one():
    config = own.of_object(tiny_config(), Steps())
    assert (config.task, config.env) == ("own_Steps", f"object {__name__}.Steps")
    with pytest.raises(ValueError, match=f"object .{__name__}.Steps.*--env MODULE:FUNCTION"):
        environments.configured_env(config, "eval", 0)
    named = own.of_object(tiny_config(task="own_garden"), Steps())
    assert named.task == "own_garden"
    registered = own.of_object(tiny_config(), gymnasium.make("CartPole-v1"))
    assert registered.task == "own_CartPole-v1"
    assert registered.env.endswith("cartpole.CartPoleEnv")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("nowhere:make", "no module nowhere"),
        ("json:nothing", "json has no nothing"),
        ("json:__name__", "expected a function"),
        ("json:loads", "expected a function without arguments"),
        (".json:loads", "no module .json"),
        ("time:time", "the function returned"),
    ],
)
def test_a_function_that_makes_no_environment_is_named(spec, message):
    with pytest.raises(ValueError, match=f"env {spec}: .*{message}"):
        own.make(spec)


def test_env_and_task_exclude_each_other_and_the_last_wins_on_resume(tmp_path):
    argv = ["--logdir", str(tmp_path), "--configs", "custom"]
    with pytest.raises(ValueError, match="--env and --task exclude each other"):
        blocks.parse_args([*argv, "--env", "a:b", "--task", "gym_Acrobot-v1"])
    config = blocks.parse_args([*argv, "--env", "a.b:c"]).config
    assert (config.task, config.env) == ("own_a.b.c", "a.b:c")
    config.save(tmp_path / "config.yaml")
    config = blocks.parse_args(["--logdir", str(tmp_path), "--task", "gym_Acrobot-v1"]).config
    assert (config.task, config.env) == ("gym_Acrobot-v1", "")


class Locked(Steps):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_a_function_makes_its_environment_in_each_process_anew():
    config = tiny_config(envs=2, env=f"{__name__}:Locked")
    envs = environments.configured_envs(config, "train", [1, 2])
    try:
        assert all(env.reset()["is_first"] for env in envs)
    finally:
        for env in envs:
            env.close()


@pytest.mark.parametrize("wrapped", [False, True])
def test_training_and_evaluation_in_one_environment_is_refused(tmp_path, wrapped):
    env = Steps()
    other = gymnasium.wrappers.TimeLimit(env, 3) if wrapped else env
    config = api.make_config(["custom", "debug"], {"logdir": str(tmp_path / "run")})
    with pytest.raises(ValueError, match="eval_env is the same environment as env"):
        api.train(env, config, eval_env=other)
    assert not (tmp_path / "run").exists()


def test_train_says_whether_it_is_done_and_closes_nothing_of_the_caller(tmp_path):
    env, other = Steps(), Steps()
    changes = {"logdir": str(tmp_path / "run"), "steps": 80, "prefill": 70, "replay.minlen": 5}
    config = api.make_config(["custom", "debug"], {**changes, "dataset.length": 5})
    assert api.train(env, config, eval_env=other) is True
    assert not env.closed and not other.closed
    assert api.train(env, config, eval_env=other) is True  # done already


def test_an_environment_that_lacks_a_space_is_one_line_and_one_without_close_is_fine():
    bare = types.SimpleNamespace(reset=None, step=None, observation_space=Steps.observation_space)
    with pytest.raises(ValueError, match="the environment SimpleNamespace has no action_space"):
        make_env(bare)
    bare.action_space = Steps.action_space
    make_env(bare).close()
