"""The agent as a whole: acting, one update in every variant, and its state."""

import inspect
from itertools import cycle

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.data.spaces import OneHot
from common.nn.draws import Draws, Modes
from dreamerv2.agent.agent import Agent

IMAGE = {"image": tiny.IMAGE}
BOTH = {"image": tiny.RGB, "vector": tiny.VECTOR}


def rows(agent, t, seed=0):
    """Row `t` of a random batch of 2."""
    return {key: value[:, t] for key, value in tiny.batch(agent, steps=6, seed=seed).items()}


def copies(agent, count):
    """One first row `count` times."""
    return {key: np.repeat(value[:1], count, 0) for key, value in rows(agent, 0).items()}


def weights(agent):
    """Variables of the networks and the reward normaliser; no counters, no moments."""
    named = agent.named_variables()
    return {k: v.numpy() for k, v in named.items() if k.startswith(("wm/", "behavior/"))}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], name)


# Acting


def test_acting_returns_one_hot_actions_and_carries_latent_and_action():
    agent, state = tiny.agent(BOTH), None
    for t in range(3):
        outputs, state = agent.policy(rows(agent, t), state, "train")
        action = outputs["action"].numpy().round(6)
        assert action.shape == (2, 4) and set(np.unique(action)) == {0, 1}
        latent, carried = state
        np.testing.assert_array_equal(carried, outputs["action"])
        assert latent["stoch"].shape == (2, 3, 3)


def test_acting_step_by_step_sees_what_training_sees():
    agent, state = tiny.agent(BOTH), None
    actions, latents = [], []
    state = agent.initial_policy_state(2)
    data = tiny.batch(agent, steps=6)
    data["is_first"][0, 3] = True
    for t in range(6):
        obs = {key: tf.constant(value[:, t]) for key, value in data.items()}
        outputs, state = agent.policy_step(obs, state, "eval", Modes())
        actions.append(outputs["action"])
        latents.append(state[0])
    # Row t of a batch carries the action that led to it.
    led = np.stack([np.zeros([2, 4], np.float32), *actions[:-1]], 1)
    batch = agent.wm.preprocess(tiny.tensors(data | {"action": led}))
    post = agent.wm.loss(batch, None, Modes()).post
    for key, value in post.items():
        ours = np.stack([latent[key] for latent in latents], 1)
        np.testing.assert_allclose(ours, value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_eval_takes_the_mode_and_train_samples():
    agent = tiny.agent(eval_state_mean=True)
    agent.behavior.actor.out.layers["out"].bias.assign([0.0, 0.3, 0.1, 0.2])

    def actions(mode):
        return np.argmax(agent.policy(copies(agent, 40), None, mode)[0]["action"], -1)

    assert (actions("eval") == actions("eval")[0]).all()
    for mode in ("train", "explore"):
        first, second = actions(mode), actions(mode)
        assert len(np.unique(first)) > 2
        assert (first != second).any(), "every call draws anew"


def test_the_latent_is_sampled_unless_means_are_asked_for_outside_of_training():
    def varies(mode, **settings):
        agent = tiny.agent(**settings)
        _, (latent, _) = agent.policy(copies(agent, 20), None, mode)
        return np.ptp(latent["stoch"], 0).any()

    assert varies("train") and varies("eval")
    assert varies("train", eval_state_mean=True)
    assert not varies("eval", eval_state_mean=True)
    assert not varies("explore", eval_state_mean=True)


def test_act_is_policy_for_one_observation():
    agent, same = tiny.agent(), tiny.agent()
    obs = {key: value[0] for key, value in rows(agent, 0).items()}
    action, state = agent.act(obs, None, "train")
    outputs, _ = same.policy({k: v[None] for k, v in obs.items()}, None, "train")
    assert isinstance(action, np.ndarray) and action.shape == (4,)
    np.testing.assert_array_equal(action, outputs["action"][0])
    agent.act(obs, state, "train")


def test_noise_mixes_in_the_uniform_distribution():
    agent = tiny.agent(expl_noise=0.4, eval_noise=0.0)
    agent.behavior.actor.out.layers["out"].bias.assign([0.0, 50.0, 0.0, 0.0])
    obs = copies(agent, 1000)
    share = np.mean(agent.policy(obs, None, "train")[0]["action"], 0)
    np.testing.assert_allclose(share, [0.1, 0.7, 0.1, 0.1], atol=0.05)
    np.testing.assert_array_equal(
        np.mean(agent.policy(obs, None, "eval")[0]["action"], 0), [0, 1, 0, 0]
    )


def test_noise_on_continuous_actions_is_normal_and_clipped():
    agent = tiny.agent(act_space=tiny.ACTION, eval_noise=0.5)
    obs = copies(agent, 1000)
    quiet = tiny.agent(act_space=tiny.ACTION)
    for each in (agent, quiet):
        for variable in each.behavior.actor.variables:
            variable.assign(tf.zeros_like(variable))
    assert not np.any(quiet.policy(obs, None, "eval")[0]["action"])
    noisy = agent.policy(obs, None, "eval")[0]["action"].numpy()
    assert abs(noisy).max() <= 1
    np.testing.assert_allclose([noisy.mean(), np.median(abs(noisy))], [0, 0.337], atol=0.05)


def test_an_unknown_mode_is_refused():
    agent = tiny.agent()
    with pytest.raises(ValueError, match="mode: got 'test', expected train, eval or explore"):
        agent.policy(rows(agent, 0), None, "test")


@pytest.mark.parametrize("key", ["rssm.act", "actor.act"])
def test_an_unknown_activation_is_refused_with_its_key(key):
    with pytest.raises(ValueError, match=f"{key}: 'ell' is not accepted; expected none or mish"):
        tiny.agent(**{key: "ell"})


def test_modes_cannot_be_left_on_in_what_others_call():
    for method in (Agent.policy, Agent.act, Agent.train, Agent.report):
        assert "draws" not in inspect.signature(method).parameters
    for method in (Agent.policy_step, Agent.update, Agent.open_loop_videos):
        assert inspect.signature(method).parameters["draws"].default is inspect.Parameter.empty


# One update

ACTIVATIONS = ("mish", "relu", "swish", "gelu", "tanh", "none", "leaky_relu", "softsign")
OPTIMIZERS = ("nadam", "adamax", "sgd", "momentum")
SCHEDULES = ("linear(0.1,0.4,20)", "warmup(10,0.3)", "exp(1,0.1,10)", "horizon(2,10,100)")
CLIPS = ("identity", "sign", "tanh")
# What does not touch each other shares a variant: each takes a second.
MIXED = zip(ACTIVATIONS, cycle(OPTIMIZERS), cycle(SCHEDULES), cycle(CLIPS), strict=False)
VARIANTS = {
    "defaults": {},
    **{
        f"{act}, {opt}, {schedule}, clip {clip}": {
            r".*\.act": act,
            r".*_opt\.opt": opt,
            "actor_ent": schedule,
            "actor_grad_mix": schedule,
            "actor_grad": "both",
            "clip_rewards": clip,
        }
        for act, opt, schedule, clip in MIXED
    },
    "image, decay, hardly a clip": {"obs": IMAGE, r".*_opt\.wd": 0.01, r".*_opt\.clip": 1e9},
    "RGB image and vector": {"obs": BOTH},
    "all norms": {"obs": BOTH, r".*\.norm": "layer", r".*\.cnn_depth": 2},
    **{
        f"Gaussian {act}": {"rssm__discrete": False, "rssm__std_act": act}
        for act in ("softplus", "sigmoid", "sigmoid2")
    },
    "no discount head": {"pred_discount": False, "grad_heads": ["decoder", "reward"]},
    "no grad heads, kl forward": {"grad_heads": [], "kl__forward": True},
    "grad head decoder, kl one half": {"grad_heads": ["decoder"], "kl__balance": 0.5},
    "grad head reward, free nats per element": {
        "grad_heads": ["reward"],
        "kl__free_avg": False,
        "kl__free": 0.1,
    },
    "grad head discount": {"grad_heads": ["discount"]},
    "reward norm": {"reward_norm__momentum": 0.99, "reward_norm__scale": 2.0},
    **{
        f"{kind} {grad}": {"actor_grad": grad, "act_space": space}
        for grad in ("reinforce", "dynamics", "both")
        for kind, space in (("discrete", None), ("continuous", tiny.ACTION))
    },
    "trunc_normal": {"act_space": tiny.ACTION, "actor__dist": "trunc_normal"},
    "normal, no slow critic": {
        "act_space": tiny.ACTION,
        "actor__dist": "normal",
        "slow_target": False,
    },
    "tanh_normal, slow fraction": {
        "act_space": tiny.ACTION,
        "actor__dist": "tanh_normal",
        "slow_target_fraction": 0.02,
        "slow_target_update": 1,
    },
    "tanh_normal reinforce": {
        "act_space": tiny.ACTION,
        "actor__dist": "tanh_normal",
        "actor_grad": "reinforce",
    },
    "ensemble, discrete features": {"rssm__ensemble": 2, "features": "discrete"},
    "Gaussian ensemble": {"rssm__ensemble": 2, "rssm__discrete": False},
    "float16": {"precision": 16, "loss_scale": 64, "obs": BOTH},
    "bfloat16": {"precision": "bfloat16", "obs": BOTH},
    "float16, continuous": {"precision": 16, "loss_scale": 64, "act_space": tiny.ACTION},
    "overrides": {
        "precision_overrides__rssm/gru": "bfloat16",
        "precision_overrides__image_likelihood": 16,
        "precision_overrides__critic": 16,
        "loss_scale": 64,
        "obs": BOTH,
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns(name):
    settings = {r".*_opt\.wd": 0.0} | VARIANTS[name]  # so that only a gradient changes anything
    agent = tiny.agent(settings.pop("obs", None), settings.pop("act_space", None), **settings)
    before = weights(agent)
    state, _ = agent.train(tiny.batch(agent), None, 5)
    _, metrics = agent.train(tiny.batch(agent, seed=1), state, 10)
    for key, value in metrics.items():
        assert np.isfinite(value), key
    assert agent.nonfinite() is None
    still = {key for key, value in weights(agent).items() if (value == before[key]).all()}
    assert still == (set() if name == "reward norm" else {"behavior/reward_norm/mag"})
    assert set(metrics) >= {
        *("model_loss", "kl_loss", "reward_loss", "model_kl", "prior_ent", "post_ent"),
        *("actor_loss", "actor_ent", "critic_loss", "critic", "critic_slow", "critic_target"),
        *("model_grad_norm", "actor_grad_norm", "critic_grad_norm", "reward_mean"),
    }


def learned(agent):
    """Metrics, weights and an action after two updates."""
    batch = tiny.batch(agent)
    state, _ = agent.train(batch)
    _, metrics = agent.train(batch, state)
    outputs, _ = agent.policy(rows(agent, 0), None, "train")
    return {**metrics, **weights(agent), "action": outputs["action"].numpy()}


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        atol = 1e-3 if name == "action" else 1e-4
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "settings",
    [{}, {"act_space": tiny.ACTION}, {"rssm__discrete": False, "rssm__ensemble": 2}],
    ids=["discrete", "continuous", "Gaussian"],
)
def test_a_graph_learns_what_eager_code_learns(settings):
    eager, graph = (tiny.agent(jit=jit, **settings) for jit in (False, True))
    assert_close(learned(graph), learned(eager))


def test_xla_compiles_update_and_policy_and_computes_what_eager_code_computes(monkeypatch):
    # From the same seed, XLA draws other numbers.
    monkeypatch.setattr("dreamerv2.agent.agent.Draws", lambda seed: Modes())
    agent = tiny.agent(jit=True, xla=True)
    assert_close(learned(agent), learned(tiny.agent(jit=False)))
    state = agent.initial_policy_state(2)
    for function, arguments in (
        (agent._train, agent.train_inputs(tiny.batch(agent))),
        (agent._policy, (tiny.tensors(rows(agent, 0)), state, "train")),
    ):
        function.experimental_get_compiler_ir(*arguments)  # ValueError unless XLA compiles it


def test_the_behavior_learns_in_the_world_model_that_the_update_made():
    settings = {"model_opt__opt": "sgd", "model_opt__lr": 0.1, "act_space": tiny.ACTION}
    agent, before = tiny.agent(**settings), tiny.agent(**settings)
    data = tiny.tensors(tiny.batch(agent))
    result = agent.update(data, agent.wm.rssm.initial(2), tf.constant(0, tf.int64), Modes())

    def imagined(wm):
        start = result.model.post  # of the weights before the step
        horizon = agent.config.imag_horizon
        return wm.imagine(before.behavior.actor, start, data["is_terminal"], horizon, Modes())

    stale = imagined(before.wm)
    fresh = imagined(agent.wm)
    for key, value in fresh.items():
        np.testing.assert_allclose(result.task.seq[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    assert abs(result.task.seq["deter"] - stale["deter"]).numpy().max() > 1e-3
    batch = agent.wm.preprocess(data)
    old, new = (wm.loss(batch, None, Modes()).post["deter"] for wm in (before.wm, agent.wm))
    np.testing.assert_allclose(result.model.post["deter"], old, atol=1e-5)
    assert abs(result.model.post["deter"] - new).numpy().max() > 1e-3


def test_the_state_is_carried_from_batch_to_batch():
    def loss(carried):
        agent = tiny.agent()
        data = tiny.batch(agent)
        data["is_first"][:] = False
        state, _ = agent.train(data)
        _, metrics = agent.train(data, state if carried else None)
        return float(metrics["kl_loss"])

    assert loss(True) != loss(False)


def test_schedules_follow_the_agent_step():
    agent = tiny.agent(actor_ent="linear(1,2,100)")
    for agent_steps, value in ((0, 1), (50, 1.5), (200, 2)):
        _, metrics = agent.train(tiny.batch(agent), None, agent_steps)
        np.testing.assert_allclose(metrics["actor_ent_scale"], value)


# State


def test_every_variable_exists_after_construction():
    agent = tiny.agent(BOTH, precision=16)
    names = list(agent.named_variables())
    agent.train(tiny.batch(agent))
    agent.policy(rows(agent, 0))
    agent.report(tiny.batch(agent, steps=6))
    assert list(agent.named_variables()) == names
    moments = [name for name in names if name.startswith("model_opt/m/")]
    assert len(moments) == len(agent.wm.variables)


def test_the_seed_decides_the_initial_weights():
    first, again, other = (weights(tiny.agent(seed=seed)) for seed in (3, 3, 4))
    assert_same(first, again)
    assert (first["wm/rssm/img_in/kernel"] != other["wm/rssm/img_in/kernel"]).any()


def test_the_seed_and_the_call_decide_the_draws():
    source = tiny.agent(IMAGE, expl_noise=0.5)
    batch = tiny.batch(source, steps=8)

    def drawn(seed, updates=0):
        agent = tiny.agent(IMAGE, expl_noise=0.5, seed=seed)
        agent.load_state_dict(source.state_dict())
        agent.updates.assign(updates)
        report = agent.report(batch)["openl_image"]
        action, _ = agent.policy(copies(agent, 30))
        state, metrics = agent.train(batch)
        return {
            "report": report,
            "action": action["action"].numpy(),
            "posterior": state["stoch"].numpy(),
            "actor": metrics["actor_loss"].numpy(),
        }

    first = drawn(3)
    assert_same(first, drawn(3))
    other, later = drawn(4), drawn(3, updates=1)
    for name in first:
        assert (first[name] != other[name]).any(), name
        assert (first[name] != later[name]).any() == (name != "action"), name


@pytest.mark.parametrize(
    "settings",
    [
        {"jit": True, "reward_norm__momentum": 0.9, "slow_target_update": 2},
        {"precision": 16, r".*_opt\.opt": "nadam"},
        {"act_space": tiny.ACTION, "slow_target_fraction": 0.5, "slow_target_update": 1},
    ],
    ids=["graph", "float16", "continuous"],
)
def test_k_updates_saved_and_loaded_and_the_rest_equal_all_updates_bit_for_bit(settings):
    whole, resumed = (tiny.agent(**settings) for _ in range(2))
    batches = [tiny.batch(whole, seed=seed) for seed in range(4)]

    def train(agent, batches, state=None):
        for batch in batches:
            state, metrics = agent.train(batch, state, 7)
            agent.policy(rows(agent, 0))
        return state, metrics

    state, _ = train(whole, batches[:2])
    resumed.load_state_dict(whole.state_dict())
    _, ours = train(resumed, batches[2:], {k: tf.constant(v.numpy()) for k, v in state.items()})
    _, theirs = train(whole, batches[2:], state)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert {k: float(v) for k, v in ours.items()} == {k: float(v) for k, v in theirs.items()}
    assert_same(*({"action": a.policy(rows(a, 1))[0]["action"].numpy()} for a in (resumed, whole)))
    assert whole.updates == resumed.updates == 4


def test_state_loads_into_an_agent_with_another_seed_and_precision():
    source, target = tiny.agent(seed=1), tiny.agent(seed=2, precision=16)
    source.train(tiny.batch(source))
    target.load_state_dict(source.state_dict())
    assert_same(source.state_dict(), target.state_dict())


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"rssm__deter": 9}, r"has shape \(.*expected"),
        ({"slow_target": False}, "slow_critic.* is not part of this agent"),
        ({"critic__layers": 2}, "behavior/critic/dense1/kernel is missing"),
    ],
)
def test_state_of_another_architecture_is_refused_by_name_and_changes_nothing(settings, match):
    source, target = tiny.agent(), tiny.agent(**settings, seed=1)
    before = target.state_dict()
    with pytest.raises(ValueError, match="saved variables do not match the agent") as error:
        target.load_state_dict(source.state_dict())
    assert error.match(match)
    assert_same(before, target.state_dict())


def test_the_first_variable_that_is_not_finite_is_named():
    agent = tiny.agent()
    assert agent.nonfinite() is None
    bias = agent.behavior.critic.layers["dense0"].bias
    bias.assign(tf.fill(bias.shape, np.inf))
    assert agent.nonfinite() == "behavior/critic/dense0/bias"


# Report


def test_the_report_shows_truth_model_and_error_of_six_sequences_side_by_side():
    agent = tiny.agent(BOTH | {"second": tiny.IMAGE})
    batch = tiny.batch(agent, rows=7, steps=8)
    report = agent.report(batch)
    shapes = {key: video.shape for key, video in report.items()}
    assert shapes == {"openl_image": (8, 192, 384, 3), "openl_second": (8, 192, 384, 1)}
    for key, video in report.items():
        assert video.dtype == np.float32 and video.min() >= 0 and video.max() <= 1
        panels = video.reshape(8, 3, 64, 6, 64, -1)
        truth = batch[key.removeprefix("openl_")][:6] / 255
        np.testing.assert_allclose(panels[:, 0].transpose(2, 0, 1, 3, 4), truth, atol=1e-6)
        error = (panels[:, 1] - panels[:, 0] + 1) / 2
        inside = (panels[:, 1] > 0) & (panels[:, 1] < 1)  # where the model was not clipped
        np.testing.assert_allclose(panels[:, 2][inside], error[inside], atol=1e-5)


def test_without_images_there_is_nothing_to_show():
    agent = tiny.agent()
    assert agent.report(tiny.batch(agent, steps=6)) == {}


@pytest.mark.parametrize("behavior", ["greedy", "Plan2Explore"])
def test_batches_of_any_sizes_can_be_learned_and_reported_one_after_the_other(behavior):
    spaces = {"image": tiny.IMAGE, "vector": tiny.VECTOR}
    agent = tiny.agent(spaces, jit=True, expl_behavior=behavior)
    for rows, steps in ((2, 3), (3, 3), (2, 4)):
        batch = tiny.batch(agent, rows, steps)
        _, metrics = agent.train(batch, None, 0)
        assert np.isfinite(float(metrics["model_loss"]))
        assert agent.report(batch)["openl_image"].shape == (steps, 192, 64 * rows, 1)


def test_one_action_has_a_share_of_entropy():
    agent = tiny.agent(act_space=OneHot(1))
    _, metrics = agent.train(tiny.batch(agent), None, 0)
    assert float(metrics["actor_ent_fraction"]) == 0


def test_a_report_of_a_few_rows_is_all_context():
    agent = tiny.agent(IMAGE)
    assert agent.report(tiny.batch(agent, rows=1, steps=3))["openl_image"].shape[0] == 3


def test_acting_learning_and_reporting_draw_from_seeds_of_their_own(monkeypatch):
    agent, seeds = tiny.agent(IMAGE), []

    def recorded(seed):
        seeds.append(tuple(int(value) for value in seed))
        return Draws(seed)

    monkeypatch.setattr("dreamerv2.agent.agent.Draws", recorded)
    batch = tiny.batch(agent, steps=6)
    for _ in range(2):
        agent.policy(rows(agent, 0))
        agent.train(batch)
        agent.report(batch)
    assert len(seeds) == len(set(seeds)) == 6


# Spaces


def test_other_keys_of_the_environment_make_no_difference():
    obs = {"vector": tiny.VECTOR, "ram": gymnasium.spaces.Box(0, 255, (128,), np.uint8)}
    read = {"encoder__mlp_keys": "vector", "decoder__mlp_keys": "vector"}
    more, plain = tiny.agent(obs, **read), tiny.agent()
    batch = tiny.batch(plain)
    ram = np.random.default_rng(0).integers(0, 256, (2, 4, 128), np.uint8)
    results = []
    for agent, rows in ((more, batch | {"ram": ram}), (plain, batch)):
        rows = {key: value for key, value in rows.items() if key != "is_last"}
        first = {key: value[:, 0] for key, value in rows.items()}
        metrics = {key: float(value) for key, value in agent.train(rows)[1].items()}
        results.append((metrics, agent.policy(first)[0]["action"].numpy().tolist()))
    assert results[0] == results[1]
    assert_same(more.state_dict(), plain.state_dict())
