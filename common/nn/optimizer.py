"""One optimiser per part of the agent: clip, weight decay, update rule, loss scale.

The update rules are TensorFlow's own kernels (one fused pass over variable and moments), because
their exact order of operations is what golden numbers pin down: Adam adds epsilon to `sqrt(v)`
before the bias correction is folded into the step size.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.nn import replica
from common.nn.layers import Module

BETA1, BETA2 = 0.9, 0.999
INITIAL_SCALE = 2.0**15
GOOD_STEPS_TO_DOUBLE = 2000


class Minimized(NamedTuple):
    """One step on a loss: true gradients before clipping, by variable, and scalars to log."""

    grads: list[tf.Tensor]
    metrics: dict[str, tf.Tensor]


class Applied(NamedTuple):
    """What one step did. `norm` is the global norm before clipping, float32 scalar."""

    norm: tf.Tensor
    skipped: tf.Tensor  # bool scalar


class LossScale(Module):
    """The factor on a loss that keeps its float16 gradients from underflowing.

    The state of dynamic scaling exists at every setting, untouched, so that a checkpoint goes on at
    another precision or setting.

    Args:
        setting: `dynamic`: starts at 2^15, doubles after 2000 good steps in a row and halves on a
            gradient that is not finite; a number: that scale always; `none`: no scale.

    Raises:
        ValueError: any other setting.
    """

    def __init__(self, setting: str | float = "none"):
        self.dynamic = setting == "dynamic"
        self._fixed = 1.0 if setting == "none" or self.dynamic else _positive(setting)
        self.scale = tf.Variable(INITIAL_SCALE, dtype=tf.float32, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def value(self) -> tf.Tensor:
        """The factor of the next step, float32 scalar."""
        return self.scale.read_value() if self.dynamic else tf.constant(self._fixed, tf.float32)

    def update(self, finite: tf.Tensor, curable: tf.Tensor | bool = True) -> None:
        """Accounts for one step whose gradients were all finite, or not.

        curable: whether a smaller scale can help. Where the loss itself is not finite none does: a
        few broken values would bring the scale down to 1 for thousands of updates.
        """
        if not self.dynamic:
            return
        good = tf.where(finite, self.good_steps + 1, tf.zeros_like(self.good_steps))
        double = good >= GOOD_STEPS_TO_DOUBLE
        # The largest power of two that float32 holds twice over; a scale of infinity would stay.
        raised = tf.minimum(self.scale * 2, 2.0**126)
        halved = tf.where(curable, tf.maximum(self.scale / 2, 1.0), self.scale)
        kept = tf.where(double, raised, self.scale)
        self.scale.assign(tf.where(finite, kept, halved))
        self.good_steps.assign(tf.where(double, tf.zeros_like(good), good))


def _positive(setting) -> float:
    try:
        value = float(setting)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < np.inf:
        raise ValueError(
            f"loss_scale: got {setting!r}, expected dynamic, none or a positive number"
        )
    return value


class Optimizer(Module):
    """Updates `variables` (path to variable) with one rule.

    Args:
        variables: all that the modules own; each gets weight decay, and slots at once.
        opt: adam, nadam, adamax, sgd or momentum.
        lr, eps: step size and the epsilon of the Adam family.
        clip: global norm that gradients are scaled down to; 0 for none.
        wd: every step multiplies every variable by `1 - wd` before the rule is applied.
        loss_scale: see `LossScale`.
        skip_nonfinite: leave everything untouched when a gradient is not finite, and count it.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(
        self,
        variables: dict[str, tf.Variable],
        *,
        opt: str,
        lr: float,
        eps: float,
        clip: float,
        wd: float,
        loss_scale: str | float = "none",
        skip_nonfinite: bool = False,
    ):
        if opt not in RULES:
            raise ValueError(f"opt: got {opt!r}, expected one of {', '.join(RULES)}")
        self._rule, slots = RULES[opt]
        self._lr, self._eps, self._clip, self._wd = lr, eps, clip, wd
        self._skip = skip_nonfinite
        self._names = list(variables)
        self._variables = list(variables.values())
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.loss_scale = LossScale(loss_scale)
        self.moments = {
            f"{slot}/{name}": tf.Variable(tf.zeros_like(variable), trainable=False)
            for slot in slots
            for name, variable in variables.items()
        }
        self._slots = slots
        if opt == "nadam":
            self.schedule = tf.Variable(1.0, trainable=False)

    @property
    def owned(self) -> list[tf.Variable]:
        """The variables that this optimiser updates."""
        return self._variables

    def minimize(self, loss: tf.Tensor, tape: tf.GradientTape, name: str) -> Minimized:
        """Differentiates the scalar `loss`, which `tape` recorded, and makes one step.

        The gradient of the loss times the loss scale is what computes; `name` is the first word of
        the metrics. Replicas average gradients and loss first: they clip, skip and step alike.
        """
        grads = self.unscale(tape.gradient(loss, self.owned, self.loss_scale.value))
        grads, loss = replica.mean((grads, loss))
        applied = self.apply(grads, loss)
        metrics = {f"{name}_loss": loss, f"{name}_grad_norm": applied.norm}
        if self._skip:
            metrics[f"{name}_loss_scale"] = self.loss_scale.value
            metrics[f"{name}_skipped"] = self.skipped.read_value()
        return Minimized(grads, metrics)

    def unscale(self, grads: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        """True gradients; zeros for a variable that the loss does not depend on."""
        factor = 1 / self.loss_scale.value
        return [
            tf.zeros_like(v) if g is None else tf.cast(g, tf.float32) * factor
            for v, g in zip(self._variables, grads, strict=True)
        ]

    def apply(self, grads: Sequence[tf.Tensor], loss: tf.Tensor | float = 0.0) -> Applied:
        """One step from true (unscaled) gradients, aligned with `owned`.

        loss: what they are the gradients of; the loss scale stays where that is not finite.
        """
        norm = tf.linalg.global_norm(grads)
        if not self._skip:
            self._step(grads, norm)
            return Applied(norm, tf.constant(False))
        finite = tf.math.is_finite(norm)
        self.loss_scale.update(finite, tf.math.is_finite(loss))
        self.skipped.assign_add(tf.cast(~finite, tf.int64))
        tf.cond(finite, lambda: self._step(grads, norm), lambda: None)
        return Applied(norm, ~finite)

    def _step(self, grads, norm):
        if self._clip:
            factor = self._clip / tf.maximum(norm, self._clip)
            grads = [g * factor for g in grads]
        step = self.steps.assign_add(1)
        context = self._context(tf.cast(step, tf.float32))
        for name, variable, grad in zip(self._names, self._variables, grads, strict=True):
            if self._wd:
                variable.assign(variable * (1 - self._wd))
            moments = [self.moments[f"{slot}/{name}"] for slot in self._slots]
            self._rule(context, variable, grad, *moments)

    def _context(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        context = {
            "lr": self._lr,
            "eps": self._eps,
            "beta1_power": tf.pow(BETA1, step),
            "beta2_power": tf.pow(BETA2, step),
        }
        if hasattr(self, "schedule"):
            now, following = (BETA1 * (1 - 0.5 * tf.pow(0.96, 0.004 * (step + k))) for k in (0, 1))
            product = self.schedule.assign(self.schedule * now)
            context |= {"now": now, "following": following, "product": product}
        return context


# Update rules: (context, variable, gradient, *moments)


def _adam(context, variable, grad, m, v):
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=context["beta1_power"],
        beta2_power=context["beta2_power"],
        lr=context["lr"],
        beta1=BETA1,
        beta2=BETA2,
        epsilon=context["eps"],
        grad=grad,
    )


def _nadam(context, variable, grad, m, v):
    """Nesterov momentum with the warming schedule of Dozat (2016), as TensorFlow 2 has it."""
    product, following = context["product"], context["following"]
    m_new = m.assign(BETA1 * m + (1 - BETA1) * grad)
    v_new = v.assign(BETA2 * v + (1 - BETA2) * tf.square(grad))
    m_hat = m_new / (1 - product * following)
    v_hat = v_new / (1 - context["beta2_power"])
    step = (1 - context["now"]) * grad / (1 - product) + following * m_hat
    variable.assign_sub(context["lr"] * step / (tf.sqrt(v_hat) + context["eps"]))


def _adamax(context, variable, grad, m, v):
    tf.raw_ops.ResourceApplyAdaMax(
        var=variable.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=context["beta1_power"],
        lr=context["lr"],
        beta1=BETA1,
        beta2=BETA2,
        epsilon=context["eps"],
        grad=grad,
    )


def _sgd(context, variable, grad):
    variable.assign_sub(context["lr"] * grad)


def _momentum(context, variable, grad, m):
    variable.assign_add(m.assign(0.9 * m - context["lr"] * grad))


# Name: (rule, its moments)
RULES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "adam": (_adam, ("m", "v")),
    "nadam": (_nadam, ("m", "v")),
    "adamax": (_adamax, ("m", "v")),
    "sgd": (_sgd, ()),
    "momentum": (_momentum, ("m",)),
}
