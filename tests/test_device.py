"""TensorFloat-32 is off unless it is asked for, wherever an agent is built."""

import pytest
import saved
import tensorflow as tf
import tiny

from common.device import setup_device
from dreamerv2.reference import parity
from dreamerv2.run import factory, restore

switched_on = tf.config.experimental.tensor_float_32_execution_enabled


@pytest.fixture(autouse=True)
def as_tensorflow_has_it():
    """On, which is TensorFlow's default."""
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)


@pytest.mark.parametrize("precision, on", [(32, False), (16, False), ("bfloat16", False)])
def test_products_are_exact_at_every_precision_but_tf32(precision, on):
    setup_device(precision)
    assert switched_on() is on
    setup_device("tf32")
    assert switched_on()


@pytest.mark.parametrize("precision", [32, "tf32"])
def test_an_agent_is_built_with_the_switch_where_its_precision_wants_it(tmp_path, precision):
    agent = saved.save(tmp_path, task="gym_CartPole-v1", precision=precision)
    factory.make_agent(agent.config, agent.obs_space, agent.act_space)
    assert switched_on() is (precision == "tf32")
    tf.config.experimental.enable_tensor_float_32_execution(precision != "tf32")
    restore.load(tmp_path)
    assert switched_on() is (precision == "tf32")


def test_parity_is_measured_with_exact_products(project):
    file = str(project / "tests" / "golden" / "nothing.npz")
    with pytest.raises(parity.ParityError):
        parity.judge(file, {"precision": 32}, 1e-3)
    assert not switched_on()


def test_tf32_computes_in_float32_and_says_what_it_is_on_a_cpu():
    assert tiny.agent(precision="tf32").precision.compute == tf.float32
    said = setup_device("tf32")
    assert "GPU" in said.splitlines()[0] or "on a CPU it is the same as 32" in said
