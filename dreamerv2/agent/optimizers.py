"""The optimisers of the agent, as a configuration asks for them."""

from collections.abc import Mapping

import tensorflow as tf

from common.nn.optimizer import Optimizer
from dreamerv2.agent.precision import Precision


def make_optimizer(
    config, name: str, variables: Mapping[str, tf.Variable], precision: Precision
) -> Optimizer:
    """The optimiser of those of `variables` that are trained, with the settings of `config[name]`.

    Where something computes in float16, the loss is scaled and an overflow skips the step.
    """
    half = precision.uses_float16
    return Optimizer(
        {name: v for name, v in variables.items() if v.trainable},
        **config[name],
        loss_scale=config.loss_scale if half else "none",
        skip_nonfinite=half,
    )
