"""Behaviours that explore: what they predict, what rewards them, who learns, and who acts."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.nn.draws import Draws, Modes
from common.nn.returns import discount_weights
from dreamerv2.agent.exploration import Random
from dreamerv2.agent.imagined import Imagined
from dreamerv2.film.insight import Insight

PLAN = {"expl_behavior": "Plan2Explore", "disag_models": 3, "dataset__length": 4}
IMAGE = {"image": tiny.IMAGE}


class FakeDist:
    """Its log-probability is `10 * first input + first number of the event`."""

    def __init__(self, value, mode):
        self._value, self._mode = value, mode

    def log_prob(self, event):
        return 10 * self._value + event[..., 0]

    def mode(self):
        return self._mode


def fake_head(scale):
    return lambda x, draws=None: FakeDist(x[..., 0], scale * x)


def model_of(agent, data):
    return agent.wm.loss(agent.wm.preprocess(data), None, Modes())


def by_hand(agent, steps=4):
    """A batch whose features, targets and actions tell their row."""
    model = model_of(agent, tiny.tensors(tiny.batch(agent, steps=steps)))
    t = tf.cast(tf.range(steps), tf.float32)[None, :, None]
    return model._replace(
        feat=tf.tile(t, [2, 1, agent.wm.feat_size]),
        embed=tf.tile(100 * t, [2, 1, agent.wm.encoder.embed_size]),
        kl=tf.tile(7 + t[..., 0], [2, 1]),
    ), {"action": tf.tile(1000 * t, [2, 1, 4])}


# Plan2Explore


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_an_ensemble_predicts_the_target_of_the_row_that_follows_by_the_offset(offset):
    agent = tiny.agent(**PLAN, disag_offset=offset, disag_target="embed")
    agent.expl.heads = {name: fake_head(1) for name in ("a", "b")}
    loss = agent.expl.head_loss(*by_hand(agent))
    likes = [10 * t + 100 * (t + offset) for t in range(4 - offset)]
    np.testing.assert_allclose(loss, -2 * np.mean(likes))


@pytest.mark.parametrize("target", ["stoch", "deter", "embed", "feat"])
@pytest.mark.parametrize("discrete", [3, False])
def test_every_target_has_its_size(target, discrete):
    obs = IMAGE if target == "embed" else None
    agent = tiny.agent(obs, **PLAN, disag_target=target, rssm__discrete=discrete)
    data = tiny.tensors(tiny.batch(agent))
    model = model_of(agent, data)
    expected = {
        "stoch": np.reshape(model.post["stoch"], [2, 4, -1]),
        "deter": model.post["deter"],
        "embed": model.embed,
        "feat": model.feat,
    }[target]
    head = next(iter(agent.expl.heads.values()))
    inputs = tf.concat([model.feat, data["action"]], -1)[:, :-1]
    error = np.square(expected[:, 1:] - head(inputs).mode()).sum(-1)
    nll = 0.5 * error + expected.shape[-1] * 0.5 * np.log(2 * np.pi)
    agent.expl.heads = {"disag0": head}
    np.testing.assert_allclose(agent.expl.head_loss(model, data), nll.mean(), rtol=1e-5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("cond", [False, True])
def test_disagreement_is_the_mean_standard_deviation_of_the_predictions(log, cond):
    agent = tiny.agent(**PLAN, disag_log=log, disag_action_cond=cond)
    rng = np.random.default_rng(0)
    feat, action = (rng.normal(size=[5, 2, n]).astype(np.float32) for n in (agent.wm.feat_size, 4))
    found = agent.expl.disagreement(Imagined({"feat": tf.constant(feat), "action": action}))
    inputs = np.concatenate([feat, action], -1) if cond else feat
    modes = [head(tf.constant(inputs)).mode().numpy() for head in agent.expl.heads.values()]
    expected = np.std(modes, 0).mean(-1)
    np.testing.assert_allclose(found, np.log(expected) if log else expected, rtol=1e-4)


def test_members_that_agree_give_no_gradient_instead_of_nan():
    agent = tiny.agent(**PLAN, disag_action_cond=False)
    feat = tf.random.normal([3, 2, agent.wm.feat_size])
    agent.expl.heads = {name: fake_head(1) for name in ("a", "b")}
    with tf.GradientTape() as tape:
        tape.watch(feat)
        found = agent.expl.disagreement(Imagined({"feat": feat}))
    np.testing.assert_array_equal(found, np.zeros([3, 2]))
    np.testing.assert_array_equal(tape.gradient(found, feat), np.zeros(feat.shape))


def test_both_rewards_are_divided_by_their_own_magnitudes_and_weighted():
    norm = {"momentum": 0.75, "scale": 2.0, "eps": 1e-12}
    settings = {f"expl_reward_norm__{key}": value for key, value in norm.items()}
    agent = tiny.agent(**PLAN, **settings, expl_intr_scale=0.5, expl_extr_scale=3.0)
    disagreement, reward = np.float32([[1.0, 3.0]]), np.float32([[-4.0, 8.0]])
    agent.expl.disagreement = lambda seq: tf.constant(disagreement)
    agent.wm.imagined_reward = lambda seq: tf.constant(reward)
    found = agent.expl.reward(agent.wm, Imagined({}))
    magnitudes = 0.75 + 0.25 * 2, 0.75 + 0.25 * 6
    expected = 0.5 * 2 * disagreement / magnitudes[0] + 3 * 2 * reward / magnitudes[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# ModelLoss


@pytest.mark.parametrize("name", ["kl", "reward", "vector"])
def test_the_head_predicts_the_loss_of_its_own_row(name):
    agent = tiny.agent(expl_behavior="ModelLoss", expl_model_loss=name)
    model, data = by_hand(agent)
    target = model.kl.numpy() if name == "kl" else -model.likes[name].numpy()
    predicted = agent.expl.heads["head"](model.feat).mode().numpy()
    nll = 0.5 * np.square(target - predicted) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(agent.expl.head_loss(model, data), nll.mean(), rtol=1e-5)


def test_the_predicted_loss_and_the_reward_are_weighted():
    settings = {"expl_intr_scale": 0.5, "expl_extr_scale": 3.0}
    agent = tiny.agent(expl_behavior="ModelLoss", **settings)
    feat = tf.random.normal([3, 2, agent.wm.feat_size])
    found = agent.expl.reward(agent.wm, Imagined({"feat": feat}))
    head = agent.expl.heads["head"](feat).mode()
    np.testing.assert_allclose(found, 0.5 * head + 3 * agent.wm.reward(feat), rtol=1e-5)


# One update

VARIANTS = {
    "Plan2Explore": PLAN,
    "in a graph": PLAN | {"jit": True},
    "continuous": PLAN | {"act_space": tiny.ACTION},
    "Gaussian": PLAN | {"rssm__discrete": False},
    "no action": PLAN | {"disag_action_cond": False, "disag_log": True},
    "features without deter": PLAN | {"features": "discrete", "disag_target": "feat"},
    "with the reward": PLAN | {"expl_extr_scale": 0.5, "expl_reward_norm__momentum": 0.9},
    "no slow critic": PLAN | {"slow_target": False},
    "float16": PLAN | {"precision": 16, "loss_scale": 64},
    "bfloat16, continuous": PLAN | {"precision": "bfloat16", "act_space": tiny.ACTION},
    "ModelLoss": {"expl_behavior": "ModelLoss"},
    "ModelLoss, continuous": {"expl_behavior": "ModelLoss", "act_space": tiny.ACTION},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns_with_all_it_has(name):
    settings = {r".*_opt\.wd": 0.0} | VARIANTS[name]  # so that only a gradient changes anything
    agent = tiny.agent(None, settings.pop("act_space", None), **settings)
    networks = {k: v for k, v in agent.expl.named_variables().items() if "_opt/" not in k}
    before = {k: v.numpy() for k, v in networks.items()}
    state, _ = agent.train(tiny.batch(agent))
    _, metrics = agent.train(tiny.batch(agent, seed=1), state)
    assert all(np.isfinite(value) for value in metrics.values())
    still = {k for k, v in networks.items() if (v.numpy() == before[k]).all()}
    assert {k for k in still if not k.endswith("_norm/mag")} == set()
    expected = {"expl_loss", "expl_grad_norm", "actor_loss", "critic_loss", "reward_mean"}
    assert {f"expl_{key}" for key in expected} <= set(metrics)


@pytest.mark.parametrize("settings", [PLAN, {"expl_behavior": "ModelLoss"}])
def test_world_model_and_task_learn_as_without_exploration(settings):
    greedy, explores = tiny.agent(), tiny.agent(**settings)
    (_, alone), (_, beside) = (agent.train(tiny.batch(agent)) for agent in (greedy, explores))
    for name, value in alone.items():
        assert float(beside[name]) == float(value), name
    theirs = explores.state_dict()
    for name, value in greedy.state_dict().items():
        np.testing.assert_array_equal(theirs[name], value, name)


def test_the_exploring_behaviour_sees_its_own_imagination_and_reward():
    agent = tiny.agent(**PLAN)
    data = tiny.tensors(tiny.batch(agent))
    agent.expl.behavior.actor.out.layers["out"].bias.assign([0.0, 0.0, 0.0, 50.0])
    state = agent.wm.rssm.initial(2)
    result = agent.update(data, state, tf.constant(0, tf.int64), Modes())
    seq = result.exploring.seq
    assert (np.argmax(seq["action"][1:], -1) == 3).all()
    assert (np.argmax(result.task.seq["action"][1:], -1) != 3).any()
    np.testing.assert_array_equal(seq["weight"], discount_weights(seq["discount"]))
    assert (seq["reward"].numpy() > 0).all(), "a disagreement, not the predicted reward"


@pytest.mark.parametrize("settings", [PLAN, PLAN | {"precision": 16}])
def test_saved_and_loaded_on_the_way_it_learns_the_same_bit_for_bit(settings):
    whole, resumed = (tiny.agent(**settings) for _ in range(2))
    batches = [tiny.batch(whole, seed=seed) for seed in range(3)]

    def train(agent, batches, state=None):
        for batch in batches:
            state, _ = agent.train(batch, state, 7)
            agent.policy({k: v[:, 0] for k, v in batch.items()}, None, "explore")
        return state

    state = train(whole, batches[:1])
    resumed.load_state_dict(whole.state_dict())
    train(resumed, batches[1:], state)
    train(whole, batches[1:], state)
    theirs = whole.state_dict()
    assert any(name.startswith("expl/expl_opt/") for name in theirs)
    for name, value in resumed.state_dict().items():
        np.testing.assert_array_equal(value, theirs[name], name)


# Acting


def acted(agent, mode, count=400):
    obs = {k: np.repeat(v[:1, 0], count, 0) for k, v in tiny.batch(agent).items()}
    return agent.policy(obs, None, mode)[0]["action"].numpy()


def test_only_explore_asks_the_behaviour_that_explores():
    agent = tiny.agent(**PLAN)
    agent.behavior.actor.out.layers["out"].bias.assign([50.0, 0.0, 0.0, 0.0])
    agent.expl.behavior.actor.out.layers["out"].bias.assign([0.0, 50.0, 0.0, 0.0])
    for mode, chosen in (("train", 0), ("eval", 0), ("explore", 1)):
        np.testing.assert_array_equal(acted(agent, mode).mean(0).round(5), np.eye(4)[chosen], mode)
    noisy = tiny.agent(**PLAN, expl_noise=0.4)
    noisy.expl.behavior.actor.out.layers["out"].bias.assign([0.0, 50.0, 0.0, 0.0])
    share = acted(noisy, "explore", 2000).mean(0)
    np.testing.assert_allclose(share, [0.1, 0.7, 0.1, 0.1], atol=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_random_actions_are_uniform_and_nothing_is_learned_for_them(noise):
    agent = tiny.agent(expl_behavior="Random", expl_noise=noise)
    assert isinstance(agent.expl, Random) and agent.expl.variables == []
    np.testing.assert_allclose(acted(agent, "explore", 4000).mean(0), [0.25] * 4, atol=0.03)
    _, metrics = agent.train(tiny.batch(agent))
    assert not [name for name in metrics if name.startswith("expl_")]
    continuous = tiny.agent(None, tiny.ACTION, expl_behavior="Random", expl_noise=noise)
    action = acted(continuous, "explore", 4000)
    counts, _ = np.histogram(action, 10, (-1, 1))
    np.testing.assert_allclose(counts / action.size, [0.1] * 10, atol=0.02)


def test_random_actions_have_a_mode_for_exact_comparisons():
    for space, expected in ((None, [1, 0, 0, 0]), (tiny.ACTION, [0, 0])):
        agent = tiny.agent(None, space, expl_behavior="Random")
        obs = {k: tf.constant(v[:, 0]) for k, v in tiny.batch(agent).items()}
        state = agent.initial_policy_state(2)
        action = agent.policy_step(obs, state, "explore", Modes())[0]["action"]
        np.testing.assert_allclose(action, [expected] * 2, atol=1e-6)
        drawn = agent.policy_step(obs, state, "explore", Draws([0, 1]))[0]["action"]
        assert drawn.shape == action.shape


# Mistakes


@pytest.mark.parametrize(
    "settings, match",
    [
        (PLAN | {"disag_offset": 4}, r"disag_offset: got 4, expected less than dataset.length \(4"),
        (
            {"expl_behavior": "ModelLoss", "expl_model_loss": "image"},
            "expl_model_loss: got 'image', expected one of kl, reward, discount, vector",
        ),
    ],
)
def test_what_does_not_fit_is_said(settings, match):
    with pytest.raises(ValueError, match=match):
        tiny.agent(**settings)


@pytest.mark.parametrize(
    "settings, match",
    [
        (
            {"expl_behavior": "curious"},
            "expl_behavior.*'curious'.*greedy or Random or",
        ),
        ({"disag_models": 1}, "disag_models: 1 .*from 2"),
        ({"disag_models": 0}, "disag_models: 0 .*from 2"),
        ({"disag_target": "image"}, "disag_target.*stoch or deter or embed or feat"),
    ],
)
def test_a_value_that_no_key_accepts_is_said(settings, match):
    with pytest.raises(ValueError, match=match):
        tiny.config(**settings)


def test_names_may_be_written_in_lower_case():
    assert tiny.config(expl_behavior="plan2explore").expl_behavior == "Plan2Explore"
    assert tiny.config(expl_behavior="modelloss").expl_behavior == "ModelLoss"
    assert tiny.config(expl_behavior="RANDOM").expl_behavior == "Random"


# The film


def test_the_film_asks_the_ensemble_about_the_action_that_led_to_each_row():
    agent = tiny.agent(**PLAN)
    latents = {k: v[0].numpy() for k, v in model_of(agent, data_of(agent)).post.items()}
    actions = np.eye(4, dtype=np.float32)[[3, 1, 2, 0]]
    found = Insight(agent, greedy=True, seed=0).opinion(latents, actions).disagreement
    led = np.concatenate([np.zeros([1, 4], np.float32), actions[:3]])
    feat = agent.wm.feat({k: tf.constant(v) for k, v in latents.items()})
    expected = agent.expl.disagreement(Imagined({"feat": feat, "action": tf.constant(led)}))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    greedy = Insight(tiny.agent(), greedy=True, seed=0).opinion(latents, actions)
    assert greedy.disagreement is None


def data_of(agent):
    return tiny.tensors(tiny.batch(agent))
