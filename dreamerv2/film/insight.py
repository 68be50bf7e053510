"""What an agent's networks make of an episode that was played: all steps at once, arrays out.

Shape letters: T rows of the episode, S rows to start from, K latent variables, C classes, A action.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from common.nn import dists
from common.nn.draws import Draws
from dreamerv2.agent.dreams import decode, rows_at, shown_keys
from dreamerv2.agent.exploration import Plan2Explore
from dreamerv2.agent.imagined import Imagined
from dreamerv2.agent.rssm import State

if TYPE_CHECKING:
    from dreamerv2.agent.agent import Agent


class Opinion(NamedTuple):
    """What the heads say at every row, float32."""

    policy: np.ndarray  # [T, A]: probabilities of discrete actions, else the most likely action
    value: np.ndarray  # [T], of the critic
    reward: np.ndarray  # [T], most likely one on arrival at the row, as it was clipped for learning
    discount: np.ndarray  # [T], expected, in which the discount factor is contained
    disagreement: np.ndarray | None = None  # [T], of the ensemble that explores, if there is one


class Forecast(NamedTuple):
    """What the model expects to see, and since when it sees nothing."""

    seen: np.ndarray  # uint8 [T, H, W, C], or float32 [T, D] of a vector
    age: np.ndarray  # int [T], agent steps since the last observation


class Insight:
    """The model's view of the observations in `keys`: an image, or vectors side by side.

    greedy: the most likely actions in dreams, instead of sampled ones. seed: of latents and actions
    that are sampled.
    """

    def __init__(self, agent: "Agent", greedy: bool, seed: int):
        self._agent, self._greedy = agent, greedy
        self._seed = seed
        self.keys = shown_keys(agent.wm)

    @property
    def decodes(self) -> bool:
        """Whether the model predicts what the agent sees."""
        return self.keys[0] in self._agent.wm.decoder.keys

    def reconstruct(self, latents: State) -> np.ndarray:
        """What the decoder makes of every latent `[T, ...]`."""
        return self._decode(self._feat(latents))

    def opinion(self, latents: State, actions: np.ndarray) -> Opinion:
        """What the heads say at every latent `[T, ...]`.

        actions: `[T, A]`, row t what was done there.
        """
        wm, behavior = self._agent.wm, self._agent.behavior
        feat = self._feat(latents)
        actor = behavior.actor(feat, Draws([self._seed, 0]))
        policy = actor.probs if isinstance(actor, dists.OneHot) else actor.mode()
        if "discount" in wm.heads:
            discount = wm.heads["discount"](feat).mean()
        else:
            discount = tf.fill(feat.shape[:1], float(self._agent.config.discount))
        values = [policy, behavior.critic(feat).mode(), wm.reward(feat), discount]
        explorer = self._agent.expl
        if isinstance(explorer, Plan2Explore):
            led = np.concatenate([np.zeros_like(actions[:1]), actions[:-1]])
            values.append(explorer.disagreement(Imagined({"feat": feat, "action": led})))
        return Opinion(*(np.asarray(value, np.float32) for value in values))

    def open_loop(self, latents: State, actions: np.ndarray, ahead: int) -> Forecast:
        """Every row as it was expected `ahead` steps before, given the actions that were taken.

            t          0    1    2    3    4          ahead = 2
            from       z0   z0   z0   z1   z2         rows before `ahead` are expected from row 0
            actions    -    a0   a0a1 a1a2 a2a3
            age        0    1    2    2    2

        actions: `[T, A]`, row t what was done there.
        """
        rows = len(actions)
        draws = Draws([self._seed, 1])
        ahead = min(ahead, rows - 1)
        starts = np.arange(rows - ahead)
        state = rows_at(latents, starts)
        feats = [self._feat(rows_at(latents, [0]))]
        for step in range(ahead):
            action = tf.convert_to_tensor(actions[starts + step])
            state = self._agent.wm.rssm.img_step(state, action, draws)
            feat = self._feat(state)
            feats.append(feat if step == ahead - 1 else feat[:1])
        seen = self._decode(tf.concat(feats, 0))
        return Forecast(seen, np.minimum(np.arange(rows), ahead))

    def dream(self, latents: State, context: int, steps: int) -> Forecast:
        """Imagination under the policy, again and again from what really happened.

        Each round sees `context` rows (age 0: reconstructions), then dreams `steps` rows in which
        neither observations nor real actions come in.
        """
        rows = np.arange(len(latents["deter"]))
        phase = rows % (context + steps)
        age = np.maximum(0, phase - context + 1)
        starts = rows[phase == context - 1]
        dreamed = (
            self._imagine(rows_at(latents, starts), min(steps, age.max())) if age.any() else []
        )
        seen = self.reconstruct(latents)
        for step, images in enumerate(dreamed, 1):
            targets = starts + step
            inside = targets < len(rows)
            seen[targets[inside]] = images[inside]
        return Forecast(seen, age)

    def _imagine(self, state: State, steps: int) -> list[np.ndarray]:
        """Decoded steps 1, 2, ... of dreams from `state` `[S, ...]`."""
        agent, draws = self._agent, Draws([self._seed, 2])
        images = []
        for _ in range(steps):
            actor = agent.behavior.actor(self._feat(state), draws)
            action = actor.mode() if self._greedy else dists.sample(actor, draws)
            state = agent.wm.rssm.img_step(state, action, draws)
            images.append(self._decode(self._feat(state)))
        return images

    def _feat(self, latents: Mapping[str, np.ndarray]) -> tf.Tensor:
        return self._agent.wm.feat({k: tf.convert_to_tensor(v) for k, v in latents.items()})

    def _decode(self, feat: tf.Tensor) -> np.ndarray:
        return np.concatenate([decode(self._agent.wm, feat, key) for key in self.keys], -1)
