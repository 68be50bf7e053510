"""Counts the floating-point operations of a traced graph: matrix products and convolutions."""

import math

import tensorflow as tf

# At the sizes of `atari` and `atari small`, what the author's code does in one update [GFLOP].
REFERENCE_GFLOP = {"full": 739.0, "small": 124.0}


def count_gflop(function: tf.types.experimental.ConcreteFunction, loop_steps: int) -> float:
    """GFLOP of one call; two per multiplication and addition.

    Args:
        function: traced with static shapes.
        loop_steps: how often the body of each loop runs; our only loops run over time. (A forward
            loop makes its first step outside of its body, so that one step too many is counted.)

    Raises:
        ValueError: a product's shape is not static, so that it cannot be counted.
    """
    return _graph(function.graph, loop_steps) / 1e9


def _graph(graph, loop_steps: int) -> float:
    total = 0.0
    for op in graph.get_operations():
        if op.type in ("While", "StatelessWhile"):
            body = graph._get_function(op.get_attr("body").name).graph
            total += loop_steps * _graph(body, loop_steps)
        elif op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            total += _graph(graph._get_function(op.get_attr("f").name).graph, loop_steps)
        elif op.type in _COUNTS:
            total += 2.0 * _COUNTS[op.type](op)
    return total


def _matmul(op) -> int:
    left = _shape(op.inputs[0])
    inner = left[0] if op.get_attr("transpose_a") else left[1]
    return math.prod(_shape(op.outputs[0])) * inner


def _batch_matmul(op) -> int:
    left = _shape(op.inputs[0])
    return math.prod(_shape(op.outputs[0])) * (left[-2] if op.get_attr("adj_x") else left[-1])


def _convolution(op) -> int:
    *window, depth, _ = _shape(op.inputs[1])
    return math.prod(_shape(op.outputs[0])) * math.prod(window) * depth


def _input_gradient(op) -> int:
    *window, depth, _ = _shape(op.inputs[1])
    return math.prod(_shape(op.inputs[2])) * math.prod(window) * depth


def _filter_gradient(op) -> int:
    *window, depth, _ = _shape(op.outputs[0])
    return math.prod(_shape(op.inputs[2])) * math.prod(window) * depth


def _shape(tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"cannot count the operations of {tensor.name}: shape {tensor.shape}")
    return tensor.shape.as_list()


_COUNTS = {
    "MatMul": _matmul,
    "BatchMatMulV2": _batch_matmul,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _input_gradient,
    "Conv2DBackpropFilter": _filter_gradient,
}
