import json
import time

import numpy as np
import pytest
from tensorboard.plugins.hparams import plugin_data_pb2

from common.log import logger as lib
from common.log.tensorboard import TensorBoardOutput
from dreamerv2.run.metric_groups import metric_group

METRICS = ("train_return", "eval_return")


class Collect:
    def __init__(self):
        self.rows = []

    def write(self, step, scalars, clips):
        self.rows.append((step, dict(scalars), dict(clips)))

    def close(self):
        self.rows.append("closed")


def rows_of(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_rows_carry_environment_frames_and_are_emptied():
    output = Collect()
    logger = lib.Logger([output], multiplier=4)
    logger.agent_steps = 25
    logger.add({"return": 3, "clip": np.zeros((2, 4, 4, 3))}, prefix="train")
    logger.scalar("updates", np.float32(7))
    logger.write()
    logger.write()
    assert len(output.rows) == 1
    step, scalars, clips = output.rows[0]
    assert step == 100
    assert scalars == {"train_return": 3.0, "updates": 7.0}
    assert list(clips) == ["train_clip"]


def test_of_a_stack_of_frames_the_newest_is_the_clip():
    output = Collect()
    logger = lib.Logger([output], multiplier=1)
    frames = np.random.default_rng(0).random((2, 4, 4, 5))
    logger.video("clip", frames)
    logger.write()
    np.testing.assert_array_equal(output.rows[0][2]["clip"], frames[..., -1:])


def test_a_vector_is_refused_by_name():
    with pytest.raises(ValueError, match="'train_x'"):
        lib.Logger([]).add({"x": np.zeros(3)}, prefix="train")


def test_fps_counts_frames_since_last_asked(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    output = Collect()
    logger = lib.Logger([output], multiplier=4)
    logger.write(fps=True)
    now[0], logger.agent_steps = 110.0, 50
    logger.write(fps=True)
    assert [row[1]["fps"] for row in output.rows] == [0.0, 20.0]


def test_clocks_resume_without_the_pause(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first = lib.Logger([])
    first.write(fps=True)
    now[0] = 105.0
    state = json.loads(json.dumps(first.state()))
    now[0] = 5000.0
    output = Collect()
    second = lib.Logger([output])
    second.load_state(state)
    second.agent_steps = 100
    now[0] = 5005.0
    second.write(fps=True)
    assert output.rows[0][1]["fps"] == 10.0
    assert second.seconds == 10.0


def test_jsonl_has_one_valid_object_per_row(tmp_path):
    logger = lib.Logger([lib.JSONLOutput(tmp_path)], multiplier=2)
    logger.agent_steps = 3
    logger.add({"a": 1.5, "b": float("nan"), "c": float("inf")})
    logger.write()
    logger.video("only_a_clip", np.zeros((1, 2, 2, 3)))
    logger.write()
    assert rows_of(tmp_path) == [{"step": 6, "a": 1.5, "b": None, "c": None}]
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step": 6,')


def test_jsonl_goes_on_after_half_a_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    lib.JSONLOutput(tmp_path).write(3, {"a": 1.0}, {})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 1}
    assert json.loads(lines[2]) == {"step": 3, "a": 1.0}


def test_jsonl_adds_nothing_to_a_whole_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    lib.JSONLOutput(tmp_path).write(3, {"a": 1.0}, {})
    assert len(rows_of(tmp_path)) == 2


def test_terminal_shows_a_handful_in_one_line():
    lines = []
    output = lib.TerminalOutput(lines.append, METRICS)
    output.write(1234, {f"metric{i}": i for i in range(100)} | {"train_return": 2.5}, {})
    assert lines == ["[1,234] train_return 2.5"]


def test_terminal_is_silent_about_rows_without_a_chosen_metric():
    lines = []
    lib.TerminalOutput(lines.append, METRICS).write(1, {"other": 1.0}, {})
    assert lines == []


def test_terminal_merges_rows_that_come_too_fast():
    lines = []
    output = lib.TerminalOutput(lines.append, METRICS, interval=1000)
    for step in range(50):
        output.write(step, {"train_return": step}, {})
    output.write(50, {"eval_return": 7.0}, {})
    output.close()
    output.close()
    assert lines == ["[0] train_return 0", "[50] train_return 49 | eval_return 7"]


@pytest.mark.parametrize(
    "value, text",
    [(1234567.0, "1,234,567"), (3.14159, "3.14"), (0.00012, "0.00012"), (float("nan"), "nan")],
)
def test_numbers_are_compact(value, text):
    assert lib.compact(value) == text


def test_an_output_that_failed_is_closed_before_another_is_made(tmp_path):
    class Broken:
        closed = 0

        def write(self, *_):
            raise OSError("disk full")

        def close(self):
            Broken.closed += 1
            raise OSError("disk full")

    output = lib.Tolerant("it", Broken, warn=lambda text: None, retry=lambda: True)
    for step in range(3):
        output.write(step, {"a": 1.0}, {})
    assert Broken.closed == 3


def test_cpu_seconds_of_a_run_are_its_own_where_a_process_makes_several(monkeypatch):
    now = [5.0]  # importing
    monkeypatch.setattr(lib.time, "process_time", lambda: now[0])
    monkeypatch.setattr(lib.Logger, "_cpu_of_others", 0.0)
    first = lib.Logger([])
    now[0] = 60.0
    state = first.state()
    assert first.cpu_seconds == 60  # the start of its process counts
    first.close()
    second, resumed = lib.Logger([]), lib.Logger([])
    resumed.load_state(state)
    now[0] = 70.0
    assert (second.cpu_seconds, resumed.cpu_seconds) == (10, 70)


def test_gif_output_names_step_and_clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    lib.GIFOutput(tmp_path / "videos").write(80, {}, {"eval_policy": frames})
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["000000000080-eval_policy.gif"]


def test_a_failed_gif_is_a_warning(tmp_path):
    clips = {"bad": np.zeros((2, 8, 8, 7)), "good": np.zeros((2, 8, 8, 3))}
    output = TensorBoardOutput(tmp_path / "events")
    for target in (lib.GIFOutput(tmp_path / "videos"), output):
        with pytest.warns(RuntimeWarning, match="bad"):
            target.write(1, {"a": 1.0}, clips)
    output.close()
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["000000000001-good.gif"]


def test_tensorboard_reads_scalars_clips_configuration_and_hyperparameters(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 6, 1)).astype(np.uint8)
    settings = {"group": lambda name: name[:5], "texts": {"configuration": "seed: 1"}}
    output = TensorBoardOutput(tmp_path, fps=10, hparams={"lr": 0.5, "keys": (1, 2)}, **settings)
    output.write(40, {"train_return": 2.0}, {"openl": frames})
    output.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (scalar,) = events.Scalars("train/train_return")
    assert (scalar.step, scalar.value) == (40, 2.0)
    (image,) = events.Images("openl")
    assert (image.step, image.width, image.height) == (40, 6, 8)
    text = events.Tensors("configuration")[0].tensor_proto
    assert b"seed: 1" in text.string_val[0]
    (content,) = events.PluginTagToContent("hparams").values()
    plain = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert plain["lr"].number_value == 0.5
    assert plain["keys"].string_value == "(1, 2)"


@pytest.mark.parametrize(
    "name, group",
    [
        ("eval_return", "return"),
        ("success_train_log_achievement_wake_up", "episode"),
        ("score_train", "episode"),
        ("unlocked_eval", "episode"),
        ("train_memory_bytes", "replay"),
        ("updates_per_second", "time"),
        ("advantage_std", "actor"),
        ("critic_loss", "critic"),
        ("kl_loss", "latent"),
        ("reward_loss", "model"),
        ("expl_actor_loss", "exploration"),
    ],
)
def test_metrics_have_a_section(name, group):
    assert metric_group(name) == group


def test_wandb_gets_rows_and_clips_offline_and_goes_on_with_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from common.log.weights_and_biases import WandbOutput

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (10, 20):
        output = WandbOutput("tests", tmp_path, metric_group, {"seed": 1})
        output.write(step, {"train_return": 0.25}, {"film": np.zeros((2, 8, 8, 3), np.uint8)})
        output.close()
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({path.name for path in files}) == 1
    assert any(b"return/train_return" in path.read_bytes() for path in files)
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/videos/clips/*.gif"))) == 2


def test_a_clip_that_wandb_cannot_show_does_not_end_a_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from common.log.weights_and_biases import WandbOutput

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    output = WandbOutput("tests", tmp_path, metric_group, {})
    with pytest.warns(RuntimeWarning, match=r"The clip 000000000010-film.gif was not written"):
        output.write(10, {"train_return": 0.25}, {"film": np.zeros((2, 8, 8, 2), np.uint8)})
    output.close()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"return/train_return" in file.read_bytes()
