"""The audit: shares, windows and errors by hand, and the whole of it on a tiny run."""

import json
import re
import shutil

import numpy as np
import pytest
import saved
import tensorflow as tf
from driving import finish_episodes

from common.data.driver import Driver, batched, random_policy
from common.data.replay import Replay
from dreamerv2 import compare
from dreamerv2.play.episodes import AgentPolicy, episode_seed
from dreamerv2.precision import ages, audit, audit_report, batches
from dreamerv2.run import restore
from dreamerv2.run.environments import configured_env

SETTINGS = {"dataset__batch": 2, "dataset__length": 4, "replay__minlen": 4}


def names(*modules, value=1.0, size=4):
    """Gradients of one variable in each module."""
    paths = {"rssm/gru": "rssm/gru/dense/kernel", "heads": "reward/dense0/kernel"}
    return {paths.get(m, f"{m}/dense0/kernel"): np.full(size, value, np.float32) for m in modules}


# By hand


@pytest.mark.parametrize(
    ("variable", "module", "optimizer"),
    [
        ("encoder/conv0/kernel", "encoder", "model"),
        ("rssm/img_in/bias", "rssm", "model"),
        ("rssm/gru/norm/gamma", "rssm/gru", "model"),
        ("discount/out/out/kernel", "heads", "model"),
        ("actor/dense1/bias", "actor", "actor"),
        ("critic/dense1/bias", "critic", "critic"),
    ],
)
def test_every_variable_belongs_to_a_module_and_its_optimizer(variable, module, optimizer):
    assert audit.module_of(variable) == module
    assert audit.optimizer_of(module) == optimizer


def test_errors_are_relative_to_the_gradients_of_the_module():
    reference = names(*audit.MODULES, value=2.0)
    ours = names(*audit.MODULES, value=2.0)
    ours["actor/dense0/kernel"][0] = 3.0
    ours["critic/dense0/kernel"][1] = np.inf
    errors = audit.gradient_errors(reference, ours)
    assert errors.pop("actor") == pytest.approx(1 / 4)
    assert errors.pop("critic") == np.inf
    assert set(errors.values()) == {0.0}


def test_what_is_not_finite_is_counted_and_left_out_of_the_median():
    value = np.ones(4, np.float32)
    broken = value * np.array([1, np.nan, 1, 1], np.float32)
    errors = [audit.activation_errors({"x": value}, {"x": x}) for x in (broken, 2 * value, value)]
    assert [error["x"] for error in errors] == [np.inf, 1, 0]
    assert audit._median(errors, "x") == 0.5 and audit._infinite(errors, "x") == 1
    assert audit._median(errors[:1], "x") is None


def test_zeros_count_where_float32_has_a_number_and_infinities_everywhere():
    reference, ours = names(*audit.MODULES), names(*audit.MODULES)
    reference["actor/dense0/kernel"][:] = [0, 1, 1, 1]
    ours["actor/dense0/kernel"][:] = [0, 0, 1, np.nan]
    shares = audit.module_shares([(reference, ours)])
    assert shares["actor"] == {"zero": pytest.approx(1 / 3), "not_finite": pytest.approx(1 / 4)}
    assert shares["encoder"] == {"zero": 0, "not_finite": 0}


def test_the_window_ends_at_underflow_and_at_overflow():
    zero = [0.5, 0.02, 0.012, 0.005, 0.003] + [0.003] * 20
    bad = [0.0] * 9 + [0.1] * 16
    assert audit.usable_window(zero, bad) == [2, 8]
    assert audit.usable_window(zero, [0.1] * 25) == []
    shares = {m: {"zero": zero, "not_finite": [0.0] * 25} for m in audit.MODULES}
    shares["decoder"]["not_finite"] = bad
    found = [audit.largest_finite(shares, name) for name in audit.OPTIMIZERS]
    assert found == [8, 24, 24]


def test_tensors_are_listed_by_when_they_overflow_with_their_own_limit():
    grads = [{"a": np.array([0.5, -4.0]), "b": np.array([1000.0]), "c": np.zeros(1)}]
    rows = audit.overflowing_tensors({"a": 10, "b": 6, "c": 12}, grads)
    assert [(row["name"], row["exponent"], row["own_exponent"]) for row in rows] == [
        ("b", 6, 7),  # 65504 / 1000 is more than 2^6: the overflow came from upstream
        ("a", 10, 14),
        ("c", 12, None),
    ]


# On a tiny run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of an untrained agent and random episodes."""
    logdir = tmp_path_factory.mktemp("run")
    agent = saved.save(logdir, **SETTINGS)
    env = configured_env(agent.config, "train", 0)
    driver, replay = Driver([env]), Replay(logdir / "train_episodes", 0)
    driver.on_step(replay.add_step)
    driver.on_reset(replay.add_step)
    finish_episodes(driver, batched(random_policy(env.act_space, 0)), 2)
    return logdir


@pytest.fixture(scope="module")
def subject(run):
    return audit.Subject(restore.read(run), "16")


@pytest.fixture(scope="module")
def batch(run):
    found = restore.read(run)
    return batches.from_run(run, found, found.agent(), 1)[0]


@pytest.fixture
def eagerly():
    """Without graphs, whose making takes longer than a few updates."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eagerly")
def test_an_update_of_the_audit_changes_nothing_and_repeats_itself(subject, batch):
    scales = dict.fromkeys(audit.OPTIMIZERS, 4.0)
    first, second = (subject.update(batch, 3, scales) for _ in range(2))
    assert all(np.array_equal(first.grads[k], second.grads[k]) for k in first.grads)
    other = subject.update(batch, 4, scales)
    assert any(not np.array_equal(first.grads[k], other.grads[k]) for k in first.grads)
    for name, variable in subject.agent.wm.named_variables().items():
        assert np.array_equal(variable, subject._variables[f"wm/{name}"]), name


@pytest.mark.usefixtures("eagerly")
def test_the_loss_scale_of_a_subject_is_the_one_asked_for(subject, batch):
    huge = subject.update(batch, 0, dict.fromkeys(audit.OPTIMIZERS, 2.0**40))
    assert not all(np.isfinite(g).all() for g in huge.grads.values())
    assert subject.scales()["model"] == 2.0**39
    small, usual = (
        subject.update(batch, 0, dict.fromkeys(audit.OPTIMIZERS, scale)) for scale in (2e-6, 4.0)
    )
    zeros, fewer = (sum(np.sum(g == 0) for g in r.grads.values()) for r in (small, usual))
    assert zeros > 2 * fewer


@pytest.mark.usefixtures("eagerly")
def test_running_statistics_have_no_gradient_and_are_left_out(tmp_path, batch):
    nets = {"encoder__image_net": "mlp", "encoder__image_stats": True}
    saved.save(tmp_path, **SETTINGS, **nets)
    updated = audit.Subject(restore.read(tmp_path), "32").update(batch, 0)
    model = audit.Subject(restore.read(tmp_path), "32").agent.wm.named_variables()
    statistics = {name for name, variable in model.items() if not variable.trainable}
    assert len(statistics) == 3
    assert model.keys() - updated.grads.keys() == statistics


@pytest.mark.usefixtures("eagerly")
def test_a_reference_compared_with_itself_has_no_error(run, batch):
    reference = audit.Subject(restore.read(run), "32")
    result = reference.update(batch, 0)
    assert set(audit.gradient_errors(result.grads, result.grads).values()) == {0.0}
    outputs = reference.activations(batch, result.outputs)
    assert {name.split(":")[0] for name in outputs} == set(audit.MODULES)
    assert set(audit.activation_errors(outputs, outputs).values()) == {0.0}
    assert audit.other_class(result.outputs, result.outputs) == 0.0
    # Every module gets what float32 computed: in the reference these are its own outputs.
    flat = result.outputs["post_deter"].reshape(outputs["rssm/gru: state"].shape)
    assert outputs["rssm/gru: state"] == pytest.approx(flat, abs=1e-5)


def test_the_command_writes_a_report_that_can_be_read(run, capsys):
    words = f"--audit {run} --updates 1 --precision_overrides.layernorm 16"
    assert compare.main(words.split()) == 0
    assert "Inside an update of atari_breakout" in capsys.readouterr().out
    content = json.loads((run / "audit" / "report.json").read_text())
    assert list(content["precisions"]) == ["16", "bfloat16"]
    half, brain = content["precisions"]["16"], content["precisions"]["bfloat16"]
    assert len(half["sweep"]["modules"]["encoder"]["zero"]) == 25
    assert "sweep" in brain  # layernorm 16 makes it a float16 agent, too
    errors = [found["activation_error"]["encoder: embedding"] for found in (half, brain)]
    assert 0 < errors[0] < 0.02 and errors[0] < errors[1] < 0.1
    text = (run / "audit" / "report.md").read_text()
    assert words in text and "2^15" in text
    assert (run / "audit" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_several_checkpoints_are_audited_and_compared(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    saved.save(tmp_path / "run", agent_steps=40, seed=1, **SETTINGS)
    rows = [{"step": 4 * steps, "train_return": value} for steps, value in ((39, 1), (41, 3))]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = f"--audit {tmp_path / 'run'} --checkpoints 100 40 --updates 1 --precisions bfloat16"
    assert compare.main(words.split()) == 0
    assert "at each of 2 ages of one run, from agent step 40 to 100" in capsys.readouterr().out
    directory = tmp_path / "run" / "audit"
    found = json.loads((directory / "report.json").read_text())["ages"]
    assert [age["agent_steps"] for age in found] == [40, 100]
    assert [age["train_return"] for age in found] == [1, 2]
    for age in found:  # each is what the audit of this checkpoint alone says
        alone = json.loads((directory / str(age["agent_steps"]) / "report.json").read_text())
        assert alone["precisions"] == age["precisions"]
    assert found[0]["precisions"] != found[1]["precisions"]
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "[40](40/report.md), [100](100/report.md)" in (directory / "report.md").read_text()


def test_schedules_are_those_of_the_age_also_where_an_agent_is_used_again(tmp_path, batch):
    schedule = {"actor_ent": "linear(1,0.01,100)"}
    saved.save(tmp_path, agent_steps=1, **SETTINGS, **schedule)
    saved.save(tmp_path, agent_steps=90, **SETTINGS, **schedule)
    young, old = restore.read(tmp_path, 1), restore.read(tmp_path, 90)
    subject = audit.Subject(young, "32")
    first = subject.update(batch, 0).grads
    subject.start_from(old)
    again, alone = subject.update(batch, 0).grads, audit.Subject(old, "32").update(batch, 0).grads
    name = next(name for name in alone if name.startswith("actor/"))
    np.testing.assert_allclose(again[name], alone[name], rtol=1e-5)
    assert not np.allclose(again[name], first[name], rtol=1e-3)


def test_an_agent_plays_what_a_driver_would_record(run, tmp_path):
    found = restore.read(run)
    said: list[str] = []
    drawn, played = batches.from_play(found, found.agent(), 50, 2, said.append)
    again, _ = batches.from_play(found, found.agent(), 50, 2, said.append)
    assert all(np.array_equal(a[k], b[k]) for a, b in zip(drawn, again, strict=True) for k in a)
    assert played["agent_steps"] == 60 and played["episodes"] == 2  # time_limit 30
    assert said[1].startswith("played 60 of 50 agent steps")

    short = found._replace(config=found.config.update({"replay.minlen": 40}))
    with pytest.raises(ValueError, match="none of 1 episodes has 40 agent steps"):
        batches.from_play(short, found.agent(), 9, 1, said.append)

    policy, episodes = AgentPolicy(found.agent(), "train"), []
    for index in range(2):
        seed = episode_seed(found.config.seed, index)
        play = policy.episode(seed)

        def alone(obs, state, play=play):
            action, state = play({key: value[0] for key, value in obs.items()}, state)
            return action[None], state

        driver = Driver([configured_env(found.config, "train", seed)])
        driver.on_episode(episodes.append)
        driver(alone, 30)
    assert played["mean_return"] == np.mean([episode["reward"].sum() for episode in episodes])
    rows = {
        (e["image"][i].tobytes(), e["action"][i].tobytes()) for e in episodes for i in range(31)
    }
    for batch in drawn:
        pairs = zip(
            batch["image"].reshape(-1, 64 * 64), batch["action"].reshape(-1, 4), strict=True
        )
        assert all((i.tobytes(), a.tobytes()) in rows for i, a in pairs)


def test_a_run_without_episodes_is_audited_on_what_its_agent_plays(run, tmp_path, capsys):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    saved.save(tmp_path, agent_steps=40, seed=1, **SETTINGS)
    words = f"--audit {tmp_path} --checkpoints 40 100 --play 20 --updates 1 --precisions bfloat16"
    assert compare.main(words.split()) == 0
    assert "played 30 of 20 agent steps" in capsys.readouterr().out
    text = (tmp_path / "audit" / "report.md").read_text()
    assert "| mean return of the episodes played" in text and "of that age played" in text
    alone = (tmp_path / "audit" / "40" / "report.md").read_text()
    assert "for this audit: episodes 1, 30 agent steps, mean return" in alone
    assert not (tmp_path / "train_episodes").exists()


def audited(agent_steps, error, noise=0.5, largest=None):
    """An audit of one age, with the error of the critic's gradients and of all others 0.1."""
    at = {
        "gradient_error": dict.fromkeys(audit.MODULES, 0.1) | {"critic": error},
        "latents_of_other_class": 0.02,
    }
    if largest is not None:
        modules = {m: {"zero": [0.05, 0.02]} for m in audit.MODULES} | {
            "heads": {"zero": [0.4, 0.1]}
        }
        at["sweep"] = {"largest": {"model": largest}, "modules": modules}
    noises = dict.fromkeys(audit.MODULES, noise)
    found = {"agent_steps": agent_steps, "train_return": None, "sampling_noise": noises}
    found["played"] = None
    return found | {"precisions": {"16": at}}


def test_a_module_without_a_finite_gradient_is_the_first_thing_that_is_said():
    noise = {"decoder": 0.1, "actor": 0.2}
    text = audit_report.against_noise({"decoder": None, "actor": 0.1}, noise)
    assert text.startswith("**no finite gradient** in decoder; gradients are off by up to 10 %")
    assert text.endswith("in every other module")
    whole = audit_report.against_noise({"decoder": 0.05, "actor": 0.1}, noise)
    assert whole.endswith("less than other noise changes them in every module")
    broken = {"gradient_error": {"decoder": None, "actor": 0.1}}
    age = {"precisions": {"16": broken}, "sampling_noise": noise, "agent_steps": 7}
    assert ages._against_noise([age], "16") == (
        "**no finite gradient** in decoder at 1 of 1 ages; gradients are off by less than other "
        "noise wherever they are finite"
    )


def test_ages_say_where_a_precision_is_worse_than_noise_and_how_the_scale_moves():
    three = [audited(10, 2.0, largest=12), audited(90, 1.0, largest=15), audited(99, None)]
    assert ages.largest_scales(three) == {"model": [12, 15]}
    content = {"ages": three, "task": "t", "updates": 1, "device": "d"}
    text = ages.verdict(content)
    assert "critic at 2 of 3 ages (4 times at most, at agent step 10)." in text[-3]
    assert text[-2].endswith("by age: 30 % (heads), 30 % (heads).")
    assert text[-1].endswith("model: from 2^12 to 2^15; by age 2^12, 2^15.")
    calm = [audited(10, 0.4, largest=14), audited(90, 0.1, largest=14)]
    # With layer norms at float16, bfloat16 has loss scales as well: the first precision's are told.
    for age in calm:
        age["precisions"]["bfloat16"] = age["precisions"]["16"]
    assert ages.largest_scales(calm) == {"model": [14, 14]}
    assert {len(row) for row in ages.age_rows(calm)} == {3}
    text = ages.verdict(content | {"ages": calm})
    assert "less than other noise in every module at every age" in text[-3]
    assert text[-1].endswith("model: 2^14 at every age.")


def test_the_training_return_of_an_age_is_that_of_the_last_20_episodes_before_it():
    rows = [{"step": i, "train_return": i} for i in range(40)] + [{"step": 41, "actor_loss": 1}]
    assert ages.training_return(rows, 29) == pytest.approx(np.mean(range(10, 30)))
    assert ages.training_return(rows[-1:], 50) is None


def test_a_float16_sum_of_a_likelihood_is_off_and_a_float32_sum_is_not():
    class Decoder:
        image_keys = ("image",)

        def __call__(self, feat):
            mean = audit.ImageNormal(tf.zeros([*feat.shape[:2], 64, 64, 1]))
            return {"image": mean}

    class World:
        decoder = Decoder()

    class Agent:
        wm = World()

    class Reference:
        agent = Agent()

    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (2, 3, 64, 64, 1), np.uint8)}
    result = audit.Result({}, {"feat": np.zeros((2, 3, 5), np.float32)})
    found = audit.likelihood_errors(Reference(), [batch], [result])["image"]
    constant = 0.5 * np.log(2 * np.pi) * 64 * 64
    assert found["mean_log_likelihood"] == pytest.approx(-constant - found["mean_signal"])
    assert found["spacing_of_float16"] == 2.0
    assert found["float16_sum_largest_error"] > 0.5
    assert found["float32_sum_mean_absolute_error"] < 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--audit {run}/nothing", "no checkpoint here"),
        ("--audit {run} --checkpoints 100 7", "checkpoint"),
        ("--logdir {run} --checkpoints 100", "--checkpoints goes with --audit alone"),
        ("--logdir {run} --play 100", "--play goes with --audit alone"),
        ("--audit {run} --rssm.deter 9", "saved variables do not match the agent"),
        ("--audit {run} --precision_overrides.nose 16", "unknown key precision_overrides.nose"),
    ],
)
def test_mistakes_are_one_line(run, words, message, capsys):
    with pytest.raises(SystemExit) as error:
        compare.main(words.format(run=run).split())
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_run_without_episodes_cannot_be_audited(tmp_path):
    saved.save(tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="an audit needs the episodes"):
        audit.audit(tmp_path, [], ["16"], 1, None, [], "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": None}, "action is absent, expected float32 [4]"),
        ({"image": np.zeros((9, 8, 8, 1), np.uint8)}, "image is uint8 [8, 8, 1], expected uint8"),
    ],
)
def test_episodes_that_the_agent_was_not_trained_on_are_one_line(run, tmp_path, change, message):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "train_episodes").mkdir()
    with np.load(next((run / "train_episodes").glob("*.npz"))) as file:
        rows = {key: file[key][:9] for key in file.files} | change
    path = tmp_path / "train_episodes" / "20260101T000000-ab-8.npz"
    np.savez(path, **{key: value for key, value in rows.items() if value is not None})
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        audit.audit(tmp_path, [], ["16"], 1, None, [], "")


def test_an_audit_without_float16_has_no_picture():
    noise = dict.fromkeys(audit.MODULES, 0.5)
    names = [f"{module}: x" for module in audit.MODULES if module != "decoder"]
    brain = {
        # An agent may have no decoder; of the actor nothing was finite.
        "activation_error": dict.fromkeys(names, 0.01) | {"actor: x": None},
        "activations_not_finite": dict.fromkeys(names, 0) | {"actor: x": 2},
        "gradient_error": noise | {"critic": 0.6, "actor": None},
        "gradients_not_finite": dict.fromkeys(audit.MODULES, 0) | {"actor": 2},
        "latents_of_other_class": 0.001,
        "loss_scale": [],
    }
    content = {
        **{"command": "-", "device": "a test", "task": "t", "checkpoint": "c", "updates": 2},
        **{"trained_at": "32", "sampling_noise": noise, "precisions": {"bfloat16": brain}},
        "played": None,
    }
    text = audit_report.markdown(content)
    assert "off by up to 60 % (critic); more than other noise in critic" in text
    assert text.count("- (2 x not finite)") == 2 and "report.png" not in text
