"""What an agent imagines from what it has seen, decoded to what it would see.

Shape letters: T rows of an episode, F features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from common.nn.draws import Draws
from dreamerv2.agent.nets import MLP
from dreamerv2.agent.rssm import State
from dreamerv2.agent.world_model import WorldModel

# Rows that the decoder works on at once: enough to be fast, few enough for memory.
CHUNK = 256


def dream_after(
    wm: WorldModel,
    actor: MLP,
    observations: Sequence[Mapping] | Mapping,
    steps: int,
    seed: int,
) -> np.ndarray:
    """`Agent.dream`: actions are sampled from `actor`; the same `seed`, the same dream."""
    images = wm.decoder.image_keys
    if not images:
        raise ValueError("dream: this agent's decoder predicts no image (decoder.cnn_keys)")
    if steps < 1:
        raise ValueError(f"dream: got {steps} steps, expected at least 1")
    rows = _rows(wm, observations)
    data = wm.normalize({key: tf.convert_to_tensor(v)[None] for key, v in rows.items()})
    draws = Draws([seed, 0])
    embed = wm.encoder(data)
    post, _ = wm.rssm.observe(embed, data["action"], data["is_first"], None, draws)
    start = {key: value[:, -1:] for key, value in post.items()}
    never = tf.zeros([1, 1], tf.bool)

    def policy(feat, _, draws):
        return actor.evaluate(feat, draws)

    seq, _ = wm.imagine(policy, start, never, steps, draws)
    return decode(wm, seq["feat"][1:, 0], images[0])


def _rows(wm: WorldModel, observations: Sequence[Mapping] | Mapping) -> dict[str, np.ndarray]:
    """What the encoder reads, `action` and `is_first`, each `[T, ...]`."""
    keys = [*wm.encoder.keys, "action"]
    if isinstance(observations, Mapping):
        parts = [observations]
    else:
        # Nothing led to the first row: its action may be left out.
        zero = {"action": np.zeros(wm.action_size, np.float32)}
        parts = [{**zero, **row} if i == 0 else row for i, row in enumerate(observations)]
    missing = [key for part in parts for key in keys if key not in part]
    if missing or not parts:
        raise ValueError(
            f"dream: observations without {(missing or ['rows'])[0]!r}; each row needs "
            f"{', '.join(keys)}, where action is the one that led to it"
        )
    if isinstance(observations, Mapping):
        rows = {key: np.asarray(observations[key]) for key in keys}
    else:
        rows = {key: np.stack([part[key] for part in parts]) for key in keys}
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


def rows_at(latents: State, rows) -> State:
    """The states of some rows."""
    return {key: tf.gather(value, rows) for key, value in latents.items()}
