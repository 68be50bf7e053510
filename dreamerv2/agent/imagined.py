"""Imagined states, and how networks look at them.

Shape letters: N imagined sequences, H horizon, F features, K variables, C classes.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from common.device import on_gpu
from common.nn import onehot
from common.nn.draws import Draws, Modes


class Imagined(dict):
    """States by name, with their features `feat`: a step `[N, ...]` or a sequence `[H+1, N, ...]`.

    Networks look at the features through `evaluate`. This class computes; `Remembered` gives the
    same sooner.
    """

    outputs: Sequence[tf.Tensor] = ()  # what the layers gave in the last call, if it is kept

    def __init__(self, tensors: Mapping[str, tf.Tensor], policy=None, given: Sequence = ()):
        super().__init__(tensors)

    def evaluate(self, network, feat: tf.Tensor, draws: Draws | Modes | None = None, beside=None):
        """The distribution that `network` gives at `feat`, joined with `beside` if there is that.

        `feat` and `beside` are rows of all steps or of the first few; `feat` is `self["feat"]`,
        with its gradient or without.
        """
        return network(joined(feat, beside), draws)


class Remembered(Imagined):
    """An `Imagined` that avoids work.

    - Where the state has `columns`, the latent is one-hot there: the first layer of a network adds
      up rows of its kernel.
    - `given` is, step by step, what the layers of `policy` gave when it was asked for actions. Its
      loss looks at the same features again, and only the gradient is new.
    """

    def __init__(self, tensors: Mapping[str, tf.Tensor], policy=None, given: Sequence = ()):
        super().__init__(tensors)
        self._policy, self._given = policy, given

    def evaluate(self, network, feat: tf.Tensor, draws: Draws | Modes | None = None, beside=None):
        """See `Imagined`."""
        steps = feat.shape[0]
        if network is self._policy and steps <= len(self._given):
            given = [tf.concat(outputs, 0) for outputs in zip(*self._given[:steps], strict=True)]
            apply = _replay(given)
        elif "columns" in self:
            apply = _select(self._rows(feat, steps, beside).flat())
        else:
            apply = None
        dist, self.outputs = network.evaluate(joined(feat, beside), draws, apply)
        return dist

    def _rows(self, feat, steps, beside) -> onehot.Rows:
        """What the rows of `feat` and `beside` hold: the latent, `deter` if that is a feature."""
        variables, classes = self["stoch"].shape[-2:]
        others = self["deter"][:steps][..., : feat.shape[-1] - variables * classes]
        return onehot.Rows(self["columns"][:steps], joined(others, beside))


def joined(feat: tf.Tensor, beside: tf.Tensor | None) -> tf.Tensor:
    """`feat` `[..., F]`, then `beside` `[..., M]` if that is given, in the dtype of `feat`."""
    return feat if beside is None else tf.concat([feat, tf.cast(beside, feat.dtype)], -1)


def columns(state: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """`columns`, int32 `[..., K]`: where the flat latent of a drawn state is one.

    Empty where that saves nothing: for Gaussian latents, and on a GPU, where it was not measured.
    """
    if "logit" not in state or on_gpu():
        return {}
    return {"columns": onehot.columns_of(state["stoch"])}


def _replay(given: Sequence[tf.Tensor]):
    return lambda i, layer, x: layer.replay(x, given[i])


def _select(rows: onehot.Rows):
    return lambda i, layer, x: layer(x) if i else layer.select(x, rows)
