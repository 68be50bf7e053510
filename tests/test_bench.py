"""The benchmark: operation counts against hand arithmetic, and a whole run on a tiny agent."""

import json
import math

import pytest
import tensorflow as tf
import tiny

from common.nn.flops import count_gflop
from dreamerv2 import bench
from dreamerv2.measure import timing


def gflop(function, *args, loop_steps=1):
    traced = tf.function(function, autograph=False).get_concrete_function(*args)
    return count_gflop(traced, loop_steps) * 1e9


def test_products_and_convolutions_are_counted_with_their_gradients():
    x, kernel = tf.ones([7, 5]), tf.ones([5, 3])
    assert gflop(tf.matmul, x, kernel) == 2 * 7 * 5 * 3
    assert (
        gflop(lambda x, k: tf.matmul(x, k, transpose_a=True), x, tf.ones([7, 2])) == 2 * 5 * 7 * 2
    )
    image, window = tf.ones([2, 8, 8, 3]), tf.ones([4, 4, 3, 6])
    forward = 2 * (2 * 3 * 3 * 6) * (4 * 4 * 3)

    def gradients(image, window):
        with tf.GradientTape() as tape:
            tape.watch([image, window])
            out = tf.nn.conv2d(image, window, 2, "VALID")
        return tape.gradient(out, [image, window])

    assert gflop(lambda i, w: tf.nn.conv2d(i, w, 2, "VALID"), image, window) == forward
    # TensorFlow drops the forward pass, which the gradients do not need, only when it runs.
    assert gflop(gradients, image, window) == 3 * forward


def test_a_loop_counts_once_per_step():
    def power(x):
        return tf.while_loop(lambda i, _: i < 9, lambda i, y: (i + 1, tf.matmul(y, x)), (0, x))

    assert gflop(power, tf.ones([4, 4]), loop_steps=9) == 9 * 2 * 4**3


def test_a_product_of_unknown_shape_is_an_error():
    spec = tf.TensorSpec([None, 4])
    with pytest.raises(ValueError, match="cannot count"):
        gflop(lambda x: tf.matmul(x, tf.ones([4, 4])), spec)


@pytest.mark.parametrize("flags", [["--size", "nothing"], ["--precision", "8"], ["--no_key", "1"]])
def test_a_mistake_is_one_line_and_exit_code_2(flags, capsys):
    with pytest.raises(SystemExit) as error:
        bench.main(flags)
    assert error.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_the_bench_writes_every_figure(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert bench.main(["--size", "atari+debug", "--json", str(path)]) == 0
    (result,) = json.loads(path.read_text())["results"]
    for key, _ in timing._ROWS.values():
        assert math.isfinite(result[key]) and result[key] > 0, key
    assert result["fraction"] == pytest.approx(result["gflops"] / result["matmul_gflops"])
    assert sum(result["step_share"].values()) == pytest.approx(1)
    assert "one update" in capsys.readouterr().out


def test_what_an_exploring_update_costs_is_a_part_of_its_own():
    settings = {"dataset__length": 4, "disag_models": 2}
    explores = tiny.agent(expl_behavior="Plan2Explore", **settings)
    assert "exploration" in timing._parts(explores, tiny.batch(explores))
    greedy = tiny.agent()
    assert "exploration" not in timing._parts(greedy, tiny.batch(greedy))
