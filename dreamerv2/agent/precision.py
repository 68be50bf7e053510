"""The one place that decides dtypes.

Parameters are float32 at every precision. `Precision.dtype(module)` is what that module computes
in. Distributions, log-probabilities, KL, returns and losses are float32 whatever it says; only
`image_likelihood` may be lowered on purpose, to study what the reference does.
"""

from collections.abc import Mapping

import tensorflow as tf

from common.nn.precision import dtype_of

# Modules that stay float32 unless an override names them. The LayerNorm inside the GRU is not one
# of them: it is float32 by definition of the cell.
FLOAT32_MODULES = ("image_likelihood", "layernorm")
MODULES = (
    "encoder",
    "rssm",
    "rssm/gru",
    "decoder",
    "heads",
    "actor",
    "critic",
) + FLOAT32_MODULES


class Precision:
    """Maps a module's name to the dtype that it computes in.

    Args:
        compute: 16, 32, tf32 or bfloat16, for every module that no override names.
        overrides: module name (one of `MODULES`) to precision; the value `default` is no
            override. `rssm/gru` follows `rssm` unless it has an override of its own.

    Raises:
        ValueError: a module or a precision that does not exist.
    """

    def __init__(self, compute: int | str = 32, overrides: Mapping[str, int | str] | None = None):
        self.compute = dtype_of(compute)
        self.overrides = {}
        for module, precision in (overrides or {}).items():
            if module not in MODULES:
                raise ValueError(
                    f"precision_overrides: unknown module {module!r}, expected one of "
                    + ", ".join(MODULES)
                )
            if precision != "default":
                self.overrides[module] = dtype_of(precision)

    def dtype(self, module: str) -> tf.DType:
        """The dtype that `module` computes in."""
        if module not in MODULES:
            raise ValueError(f"unknown module {module!r}, expected one of {', '.join(MODULES)}")
        if module in self.overrides:
            return self.overrides[module]
        if module in FLOAT32_MODULES:
            return tf.float32
        if "/" in module:
            return self.dtype(module.split("/")[0])
        return self.compute

    @property
    def uses_float16(self) -> bool:
        """Whether gradients can underflow, so that losses want a scale."""
        return any(self.dtype(module) == tf.float16 for module in MODULES)
