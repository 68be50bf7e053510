"""What an agent imagines from what it has seen, decoded to what it would see.

Shape letters: T rows of an episode, F features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from common.nn import dists
from common.nn.draws import Draws
from dreamerv2.agent.nets import MLP
from dreamerv2.agent.rssm import State
from dreamerv2.agent.world_model import WorldModel

# Rows that the decoder works on at once: enough to be fast, few enough for memory.
CHUNK = 256


class Dreamer:
    """Goes on with episodes in imagination; the same seed, the same dream.

    Compiled twice at most, whatever the number of rows and of steps.
    """

    def __init__(self, wm: WorldModel, actor: MLP, jit: bool):
        self._wm, self._actor = wm, actor
        if jit:
            options = {"autograph": False, "reduce_retracing": True}
            self._observe = tf.function(self._observe, **options)
            self._step = tf.function(self._step, **options)

    def __call__(
        self, observations: Sequence[Mapping] | Mapping, steps: int, seed: int
    ) -> np.ndarray:
        """See `Agent.dream`."""
        images = self._wm.decoder.image_keys
        if not images:
            raise ValueError("dream: this agent's decoder predicts no image (decoder.cnn_keys)")
        if steps < 1:
            raise ValueError(f"dream: got {steps} steps, expected at least 1")
        rows = _rows(self._wm, observations)
        data = {key: tf.convert_to_tensor(value)[None] for key, value in rows.items()}
        state, feats = self._observe(data, tf.constant([seed, 0])), []
        for number in range(1, steps + 1):
            state, feat = self._step(state, tf.constant([seed, number]))
            feats.append(feat)
        return decode(self._wm, tf.concat(feats, 0), images[0])

    def _observe(self, data, seed) -> State:
        """The posterior `[1, ...]` after the last row."""
        wm = self._wm
        data = wm.normalize(data)
        embed = wm.encoder(data)
        post, _ = wm.rssm.observe(embed, data["action"], data["is_first"], None, Draws(seed))
        return {key: value[:, -1] for key, value in post.items()}

    def _step(self, state, seed) -> tuple[State, tf.Tensor]:
        """The next state under an action of the actor, and its features `[1, F]`."""
        wm, draws = self._wm, Draws(seed)
        action = dists.sample(self._actor(wm.feat(state), draws), draws)
        state = wm.rssm.img_step(state, action, draws)
        return state, wm.feat(state)


def _rows(wm: WorldModel, observations: Sequence[Mapping] | Mapping) -> dict[str, np.ndarray]:
    """What the encoder reads, `action` and `is_first`, each `[T, ...]`."""
    keys = [*wm.encoder.keys, "action"]
    if isinstance(observations, Mapping):
        given = [observations]
    else:
        # Nothing led to the first row: its action may be left out.
        zero = {"action": np.zeros(wm.action_size, np.float32)}
        given = [{**zero, **row} if i == 0 else row for i, row in enumerate(observations)]
    missing = [key for row in given for key in keys if key not in row]
    if missing or not given:
        raise ValueError(
            f"dream: observations without {(missing or ['rows'])[0]!r}; each row needs "
            f"{', '.join(keys)}, where action is the one that led to it"
        )
    if isinstance(observations, Mapping):
        rows = {key: np.asarray(observations[key]) for key in keys}
    else:
        rows = {key: np.stack([row[key] for row in given]) for key in keys}
    return rows | {"is_first": np.arange(len(rows["action"])) == 0}


def decode(wm: WorldModel, feat: tf.Tensor, key: str) -> np.ndarray:
    """What the decoder expects at `[N, F]`: images uint8 `[N, H, W, C]`, or vectors float32."""
    chunks = [feat[i : i + CHUNK] for i in range(0, len(feat), CHUNK)]
    seen = np.concatenate([wm.decoder(chunk)[key].mode().numpy() for chunk in chunks])
    if key not in wm.decoder.image_keys:
        return seen.astype(np.float32)
    return (np.clip(seen.astype(np.float32) + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8)


def shown_key(wm: WorldModel) -> str:
    """The observation to show: a decoded image if there is one, else what the agent reads first."""
    decoder = wm.decoder
    return next(iter([*decoder.image_keys, *decoder.keys, *wm.encoder.keys]))


def shown_keys(wm: WorldModel) -> list[str]:
    """The observations to show together: an image alone, or every vector that is decoded."""
    decoder = wm.decoder
    return [shown_key(wm)] if decoder.image_keys or not decoder.keys else list(decoder.keys)


def rows_at(latents: State, rows) -> State:
    """The states of some rows."""
    return {key: tf.gather(value, rows) for key, value in latents.items()}
