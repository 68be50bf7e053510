"""One agent's networks as three compiled functions that every session shares: arrays in and out.

Shape letters: K latent variables, C classes, S Gaussian latents, D deterministic, A action.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common.nn.dists import Gaussian, OneHot
from common.nn.draws import Draws
from dreamerv2.agent.agent import Agent
from dreamerv2.agent.dreams import shown_key

FREE = -1  # in place of a class: the variable is drawn


class Latent(NamedTuple):
    """A model state, without the classes that a person holds."""

    deter: np.ndarray  # [D]
    stats: np.ndarray  # float32, what was drawn from: probabilities [K, C], or mean and std [2, S]
    drawn: np.ndarray  # the classes, int32 [K]; Gaussian: the values, float32 [S]


class Glance(NamedTuple):
    """What the networks make of a model state with the held classes in it."""

    # Decoded observation, float32: an image around 0, or a vector. None where it was not kept.
    seen: np.ndarray | None
    value: float
    reward: float  # most likely one on arrival, as it was clipped for learning
    discount: float  # expected, in which the discount factor is contained
    policy: np.ndarray  # [A], probabilities of discrete actions, else the most likely action
    choice: np.ndarray  # [A], the most likely action


class Draw(NamedTuple):
    """How a latent is drawn: the same `seed` and `number` give the same one."""

    seed: int
    number: int  # of the draw
    temperature: float = 1.0  # divides the logits; multiplies a Gaussian's std
    likely: bool = False  # the most likely class instead


class Engine:
    """The networks of `agent`; ValueError where its decoder predicts no observation."""

    def __init__(self, agent: Agent):
        self._agent, self._wm = agent, agent.wm
        self.key = shown_key(agent.wm)
        if self.key not in agent.wm.decoder.keys:
            raise ValueError(
                "this agent's model predicts no observation, so its dream has no picture "
                "(decoder.cnn_keys and decoder.mlp_keys match nothing)"
            )
        self.inputs = tuple(agent.wm.encoder.keys)
        self.shows_image = self.key in agent.wm.decoder.image_keys
        self.discrete = len(agent.wm.rssm.stoch_shape) == 2
        self.stoch_shape = tuple(agent.wm.rssm.stoch_shape)
        self.variables = self.stoch_shape[0] if self.discrete else 0  # that can be held
        options = {"autograph": False, "reduce_retracing": True}
        self._imagine = tf.function(self._imagine_step, **options)
        self._observe = tf.function(self._observe_step, **options)
        self._look = tf.function(self._look_at, **options)

    def initial(self) -> Latent:
        """The state before an episode: zeros."""
        state = self._wm.rssm.initial(1)
        stats = np.zeros(self.stoch_shape if self.discrete else (2, *self.stoch_shape), np.float32)
        drawn = np.zeros(self.stoch_shape[:1], np.int32 if self.discrete else np.float32)
        return Latent(state["deter"].numpy()[0], stats, drawn)

    def imagine(
        self, latent: Latent, action: np.ndarray, held: np.ndarray, draw: Draw
    ) -> tuple[Latent, Glance]:
        """One step of the dream under `action` `[A]`.

        held: int32 `[variables]`, the class of each held variable, else `FREE`. It counts in the
        state that is left and in the one that is reached.
        """
        return self._arrays(self._imagine(*_state(latent), action, held, *_how(draw)))

    def observe(
        self,
        latent: Latent,
        action: np.ndarray,
        held: np.ndarray,
        draw: Draw,
        obs: Mapping[str, np.ndarray],
    ) -> tuple[Latent, Glance]:
        """The state after an observation that `action` led to; `held` as for `imagine`."""
        row = {key: np.asarray(obs[key]) for key in (*self.inputs, "is_first")}
        return self._arrays(self._observe(*_state(latent), action, held, *_how(draw), row))

    def look(self, latent: Latent, held: np.ndarray) -> Glance:
        """What the networks make of a state with other classes held in it."""
        return _glance(self._look(*_state(latent), held))

    def _imagine_step(self, deter, drawn, action, held, key, temperature, likely):
        draws = Draws(key)
        state = self._wm.rssm.img_step(self._stoch(deter, drawn, held), action[None], draws)
        return self._outcome(state, draws, held, temperature, likely)

    def _observe_step(self, deter, drawn, action, held, key, temperature, likely, obs):
        draws = Draws(key)
        embed = self._wm.encoder(self._wm.normalize({k: v[None] for k, v in obs.items()}))
        before = self._stoch(deter, drawn, held)
        state = self._wm.rssm.obs_step(before, action[None], embed, obs["is_first"][None], draws)
        return self._outcome(state, draws, held, temperature, likely)

    def _outcome(self, state, draws, held, temperature, likely):
        """Draws again from the state's statistics, with the temperature that was asked for."""
        if self.discrete:
            classes = OneHot(state["logit"] / temperature)
            stats = classes.probs
            onehot = classes.sample_with(draws.uniform([1, self.variables]))
            drawn = tf.argmax(tf.where(likely, classes.mode(), onehot), -1, tf.int32)
        else:
            values = Gaussian(state["mean"], state["std"] * temperature)
            stats = tf.stack([values.mean, values.std], 1)
            sample = values.sample_with(draws.normal(tf.shape(values.mean)))
            drawn = tf.where(likely, values.mode(), sample)
        deter = state["deter"][0]
        return (deter, stats[0], drawn[0]), self._look_at(deter, drawn[0], held)

    def _stoch(self, deter, drawn, held):
        """The state as a batch of one, with the held classes in place of the drawn ones."""
        if self.discrete:
            chosen = tf.where(held == FREE, drawn, held)
            drawn = tf.one_hot(chosen, self.stoch_shape[1])
        return {"stoch": drawn[None], "deter": deter[None]}

    def _look_at(self, deter, drawn, held):
        wm, behavior = self._wm, self._agent.behavior
        feat = wm.feat(self._stoch(deter, drawn, held))
        actor = behavior.actor(feat, Draws([0, 0]))
        choice = actor.mode()
        policy = actor.probs if isinstance(actor, OneHot) else choice
        if "discount" in wm.heads:
            discount = wm.heads["discount"](feat).mean()
        else:
            discount = tf.constant([self._agent.config.discount])
        seen = wm.decoder(feat)[self.key].mode()
        values = (seen, behavior.critic(feat).mode(), wm.reward(feat), discount, policy, choice)
        return tuple(tf.cast(value[0], tf.float32) for value in values)

    def _arrays(self, outputs) -> tuple[Latent, Glance]:
        latent, glance = outputs
        return Latent(*(value.numpy() for value in latent)), _glance(glance)


def _state(latent: Latent) -> tuple[np.ndarray, np.ndarray]:
    return latent.deter, latent.drawn


def _how(draw: Draw) -> tuple[np.ndarray, np.float32, np.bool_]:
    key = np.array([draw.seed, draw.number], np.int64)
    return key, np.float32(draw.temperature), np.bool_(draw.likely)


def _glance(values) -> Glance:
    seen, value, reward, discount, policy, choice = (v.numpy() for v in values)
    return Glance(seen, float(value), float(reward), float(discount), policy, choice)
