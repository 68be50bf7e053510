"""The agent's networks as functions of latents, arrays in and arrays out."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.data.spaces import is_discrete
from common.envs.minatar import BOARD
from common.nn.dists import OneHot
from common.nn.draws import Draws, Modes
from dreamerv2.agent.agent import Agent

# Rows per call of a network: 256 images of the full decoder take some 400 MB on the way.
CHUNK = 256


class Latents(NamedTuple):
    """Model states: the class of each variable, int32 `[N, K]`, and `deter`, float32 `[N, D]`."""

    classes: np.ndarray
    deter: np.ndarray

    def take(self, rows: np.ndarray) -> "Latents":
        """The states of these rows."""
        return Latents(self.classes[rows], self.deter[rows])

    def with_classes(self, classes: np.ndarray) -> "Latents":
        """Other classes `[M, K]` on the one `deter` that these states share."""
        return Latents(classes, np.repeat(self.deter[:1], len(classes), 0))


class Response(NamedTuple):
    """What the heads say about states."""

    value: np.ndarray  # [N]
    reward: np.ndarray  # [N], the most likely one on arrival, after `clip_rewards`
    policy: np.ndarray  # [N, A], probabilities of discrete actions, the mode of continuous ones


class Prior(NamedTuple):
    """The prior one step after a state."""

    classes: np.ndarray  # int32 [N, K], a sample
    log_probs: np.ndarray  # float32 [N, K, C], nats


class LatentModel:
    """A trained agent, seen through its discrete latent.

    The agent's latents are discrete. `image_key` is the decoded observation that is looked at, None
    where there is none that can be: an image, or the board of a MinAtar game (`is_board`), which is
    an image with a channel per kind of object.
    """

    def __init__(self, agent: Agent):
        self.agent = agent
        self.variables, self.classes = agent.wm.rssm.stoch_shape
        self.discrete_actions = is_discrete(agent.act_space)
        images = agent.wm.decoder.image_keys
        self.image_key = images[0] if images else None
        self.is_board = (
            agent.config.task.startswith("minatar_") and "vector" in agent.wm.decoder.keys
        )
        if self.is_board:
            self.image_key = "vector"
        compiled = functools.partial(tf.function, reduce_retracing=True)
        function = compiled if agent.config.jit else lambda f: f
        self._decode = function(self._decode_chunk)
        self._respond = function(self._respond_chunk)
        self._prior = function(self._prior_chunk)

    def decode(self, latents: Latents) -> np.ndarray:
        """The images `[N, H, W, channels]` in [0, 1] that the model sees in these states."""
        return _in_chunks(self._decode, *latents)[0]

    def frame(self, obs: Mapping[str, Any]) -> np.ndarray:
        """What `decode` should have made of an observation: uint8 `[H, W, channels]`."""
        assert self.image_key is not None
        seen = np.asarray(obs[self.image_key])
        return (255 * seen.reshape(*BOARD, -1)).astype(np.uint8) if self.is_board else seen

    def respond(self, latents: Latents) -> Response:
        """Value, reward and policy in these states."""
        return Response(*_in_chunks(self._respond, *latents))

    def prior(self, before: Latents, action: np.ndarray, is_first: np.ndarray, seed: int) -> Prior:
        """What the model expects one step after `before` under `action` `[N, A]`.

        is_first: bool `[N]`, where there was nothing before. seed: of the sample.
        """
        # A chunk draws with the number of its first row, so that no two draw alike.
        rows = np.arange(len(action), dtype=np.int64)
        arguments = (*before, action.astype(np.float32), (~is_first).astype(np.float32), rows)
        return Prior(*_in_chunks(lambda *chunk: self._prior(*chunk, np.int64(seed)), *arguments))

    def _feat(self, classes, deter):
        return self.agent.wm.feat({"stoch": self._onehot(classes), "deter": deter})

    def _onehot(self, classes):
        return tf.one_hot(classes, self.classes)

    def _decode_chunk(self, classes, deter):
        seen = self.agent.wm.decoder(self._feat(classes, deter))[self.image_key].mode()
        seen = tf.cast(seen, tf.float32)
        if self.is_board:
            seen = tf.reshape(seen, [-1, *BOARD, seen.shape[-1] // np.prod(BOARD)])
        else:
            seen = seen + 0.5
        return (tf.clip_by_value(seen, 0, 1),)

    def _respond_chunk(self, classes, deter):
        feat, behavior = self._feat(classes, deter), self.agent.behavior
        actor = behavior.actor(feat, Modes())
        policy = actor.probs if isinstance(actor, OneHot) else actor.mode()
        return behavior.critic(feat).mode(), self.agent.wm.reward(feat), policy

    def _prior_chunk(self, classes, deter, action, keep, rows, seed):
        rssm = self.agent.wm.rssm
        draws = Draws(tf.stack([seed, rows[0]]))
        before = {"stoch": self._onehot(classes) * keep[:, None, None]}
        before["deter"] = deter * keep[:, None]
        state = rssm.img_step(before, action * keep[:, None], draws)
        classes = tf.argmax(state["stoch"], -1, tf.int32)
        return classes, tf.nn.log_softmax(state["logit"])


def _in_chunks(function: Callable, *arrays: np.ndarray) -> list[np.ndarray]:
    """The function's outputs for rows of `arrays`, joined."""
    starts = range(0, len(arrays[0]), CHUNK)
    outputs = [function(*(array[i : i + CHUNK] for array in arrays)) for i in starts]
    return [np.concatenate([np.asarray(x) for x in xs]) for xs in zip(*outputs, strict=True)]
