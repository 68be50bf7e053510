"""Means over the replicas that share one update of `tf.distribute`; with one, the identity.

Each of N replicas computes on an equal share of the batch. A mean over the batch is the mean of the
shares' means, so that gradients of such means are averaged once, before they are clipped. `mean` is
needed earlier only where what follows is not linear: the free nats of a KL, running statistics.
"""

from typing import Any, TypeVar

import tensorflow as tf

Tensors = TypeVar("Tensors")


def mean(values: Tensors) -> Tensors:
    """A tensor, or tensors of one dtype in any structure, each averaged over all replicas.

    All replicas must call it, in the same order. The gradient passes unchanged: it is that of this
    replica's share, and the average of the gradients over the replicas is that of the mean.
    """
    if tf.distribute.get_replica_context().num_replicas_in_sync == 1:
        return values
    averaged = _mean(*tf.nest.flatten(values))
    return tf.nest.pack_sequence_as(values, tf.nest.flatten(averaged))


def smallest(value: tf.Tensor) -> tf.Tensor:
    """The smallest over all replicas, entry by entry; no gradient. All replicas must call it."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    return tf.reduce_min(context.all_gather(tf.stop_gradient(value)[None], 0), 0)


@tf.custom_gradient
def _mean(*values: tf.Tensor) -> Any:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values)), lambda *above: above
