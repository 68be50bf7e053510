"""TensorFloat-32 is off unless it is asked for; a GPU is found, or its loss is said."""

import _ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import saved
import tensorflow as tf
import tiny

from common import device
from common.device import load_cusolver, setup_device
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


@pytest.mark.parametrize("gpu, xla, said", [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_run_on_a_gpu_says_what_xla_would_save(tmp_path, monkeypatch, capsys, gpu, xla, said):
    monkeypatch.setattr(factory, "on_gpu", lambda: gpu)
    agent = saved.save(tmp_path, task="gym_CartPole-v1", jit=True, xla=xla)
    capsys.readouterr()
    factory.make_agent(agent.config, agent.obs_space, agent.act_space)
    assert capsys.readouterr().out.count("--xla true") == said


def test_parity_is_measured_with_exact_products(project):
    file = str(project / "tests" / "golden" / "nothing.npz")
    with pytest.raises(parity.ParityError):
        parity.judge(file, {"precision": 32}, 1e-3)
    assert not switched_on()


def test_tf32_computes_in_float32_and_says_what_it_is_on_a_cpu():
    assert tiny.agent(precision="tf32").precision.compute == tf.float32
    said = setup_device("tf32")
    assert "GPU" in said.splitlines()[0] or "on a CPU it is the same as 32" in said


def test_a_library_that_tensorflow_would_not_find_is_loaded_for_it(tmp_path, monkeypatch):
    folder = tmp_path / "nvidia" / "cusolver" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcusolver.so.10").write_text("damaged: passed over")
    library = shutil.copy(_ctypes.__file__, folder / "libcusolver.so.11")
    load_cusolver()
    assert str(library) not in Path("/proc/self/maps").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    load_cusolver()
    assert str(library) in Path("/proc/self/maps").read_text()


def test_a_gpu_that_is_not_used_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *kind: [])
    monkeypatch.setattr(device, "NVIDIA_GPU", tmp_path)
    assert "does not use the NVIDIA GPU" in setup_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "NVIDIA" not in setup_device()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device, "NVIDIA_GPU", tmp_path / "none")
    assert "NVIDIA" not in setup_device()


def test_cores_are_those_that_a_process_may_use():
    script = "import os; os.sched_setaffinity(0, {0}); from common.device import usable_cores as n"
    found = subprocess.run(
        [sys.executable, "-c", f"{script}; print(n())"], capture_output=True, text=True, check=True
    )
    assert found.stdout == "1\n"
