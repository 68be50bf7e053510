"""What a precision does inside one update: `python -m dreamerv2.compare --audit RUN`.

Every update starts from the weights of the checkpoint, with learning rate 0: all precisions see the
same weights, batches and noise, and only a latent whose class falls differently sets them apart.

Shape letters: B batch, T time.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.config import split_flags
from common.device import setup_device, use_tensor_float_32
from common.files import check_writable
from common.log.metrics import read_metrics
from common.nn.draws import Draws, Modes
from dreamerv2.agent.pixels import ImageNormal
from dreamerv2.precision import ages, audit_report, batches
from dreamerv2.run import restore
from dreamerv2.run.check import check
from dreamerv2.run.restore import Saved

MODULES = ("encoder", "rssm", "rssm/gru", "decoder", "heads", "actor", "critic")
OPTIMIZERS = ("model", "actor", "critic")
EXPONENTS = range(25)  # of the loss scales that are swept
SWEPT_BATCHES = 3  # each takes as many float16 updates as there are exponents
LARGEST = float(np.finfo(np.float16).max)
OTHER_DRAWS = 10**9  # added to the number of an update: other noise for the same batch
ALLOWED_ZEROS = 0.01  # beyond the share that no scale avoids, where a scale is called usable

Arrays = dict[str, np.ndarray]


class Result(NamedTuple):
    """One update: true (unscaled) gradients by variable, and what the world model computed."""

    grads: Arrays
    outputs: Arrays


def audit(
    logdir: Path,
    checkpoints: Sequence[int],
    precisions: Sequence[str],
    updates: int,
    play: int | None,
    flags: Sequence[str],
    command: str,
) -> None:
    """Audits checkpoints of a run and writes RUN/audit/report.md, .png and .json.

    checkpoints: by their agent steps; none: the latest. Of several, each has its report in
        RUN/audit/AGENT_STEPS, and RUN/audit/report.md compares them (`ages`).
    play: agent steps that the agent of each checkpoint plays first, for its batches; None: they
        come from the run's episodes.
    flags: of train, applied to the lower precisions; `precision_overrides` above all.

    Raises:
        ValueError: no checkpoint, no episodes, or flags that do not fit.
    """
    show = functools.partial(print, flush=True)
    device = setup_device()
    show(device)
    overrides = split_flags(flags)
    asked = [restore.read(logdir, steps) for steps in checkpoints] or [restore.read(logdir)]
    saved = [each._replace(config=each.config.update_flags(overrides)) for each in asked]
    for each in saved:
        if each.meta.get("acting_only"):
            raise ValueError(
                f"--audit {logdir}: this agent can only act and dream; an audit needs a checkpoint "
                "of a run"
            )
        check(each.config, each.act_space, each.obs_space)
    check_writable(logdir / "audit" / "report.json")
    shared: dict[str, Any] = {
        "command": command,
        "device": device.splitlines()[0].removeprefix("Device: "),
        "task": saved[-1].config.task,
        "updates": updates,
    }
    rows = read_metrics(logdir / "metrics.jsonl")
    subjects, found = Subjects(), []
    for number, (trained, each) in enumerate(zip(asked, saved, strict=True), 1):
        show(f"checkpoint {each.path.name} ({number} of {len(saved)})")
        reference = subjects.at(each, "32", overrides=False)
        played = None
        if play:
            drawn, played = batches.from_play(trained, trained.agent(), play, updates, show)
        else:
            drawn = batches.from_run(logdir, each, reference.agent, updates)
        content = {
            **shared,
            "checkpoint": each.path.name,
            "agent_steps": each.agent_steps,
            "train_return": ages.training_return(rows, each.env_frames),
            "trained_at": str(each.config.precision),
            "played": played,
            **measure(subjects, each, drawn, precisions),
        }
        age = str(each.agent_steps) if len(saved) > 1 else ""
        audit_report.write(logdir / "audit" / age, content)
        found.append(content)
    text = audit_report.verdict(found[-1])
    if len(found) > 1:
        content = {**shared, "ages": found}
        ages.write(logdir / "audit", content)
        text = ages.verdict(content)
    show("\n".join(text))
    show(f"\nReport: {logdir / 'audit' / 'report.md'}")


class Subject:
    """The agent of a checkpoint at one precision, for updates that leave it as it was."""

    def __init__(self, saved: Saved, precision: str, overrides: bool = True):
        changes: dict[str, Any] = {
            "precision": int(precision) if precision.isdigit() else precision,
            "loss_scale": "dynamic",
            r"(model|actor|critic)_opt\.(lr|wd)": 0.0,
        }
        if not overrides:
            changes[r"precision_overrides\..*"] = "default"
        self.agent = saved._replace(config=saved.config.update(changes)).agent()
        self.config = saved.config
        self._loss_scale = saved.config.loss_scale
        self._precision = precision
        self.start_from(saved)
        self._update = tf.function(self._run, autograph=False)
        self._activations = tf.function(self._compute_activations, autograph=False)

    def start_from(self, saved: Saved) -> None:
        """From here on updates start from this checkpoint, whose configuration is the same."""
        self._variables = saved.variables
        self._steps = tf.constant(saved.agent_steps, tf.int64)

    def initial_scales(self) -> dict[str, float]:
        """Loss scales as configured; where dynamic, what the checkpoint holds: 2^15 until a float16
        run has changed it."""
        if self._loss_scale != "dynamic":
            scale = 1.0 if self._loss_scale == "none" else self._loss_scale
            return dict.fromkeys(OPTIMIZERS, scale)
        return {k: float(self._variables[f"{k}_opt/loss_scale/scale"]) for k in OPTIMIZERS}

    def scales(self) -> dict[str, float]:
        """The loss scale of each optimiser after the last update."""
        optimizers = self.agent.optimizers
        return {k: float(optimizers[f"{k}_opt"].loss_scale.scale) for k in OPTIMIZERS}

    def update(
        self, batch: Arrays, number: int, scales: Mapping[str, float] | None = None
    ) -> Result:
        """One update on a batch; `number` decides the noise, `scales` are the loss scales."""
        arrays: dict[str, Any] = dict(self._variables)
        for name, scale in (scales or {}).items():
            arrays[f"{name}_opt/loss_scale/scale"] = np.float32(scale)
            arrays[f"{name}_opt/loss_scale/good_steps"] = np.int64(0)
        self.agent.load_state_dict(arrays)
        use_tensor_float_32(self._precision)
        draws = tf.constant(number, tf.int64)
        grads, outputs = self._update(self._tensors(batch), draws, self._steps)
        return Result(*({k: v.numpy() for k, v in group.items()} for group in (grads, outputs)))

    def activations(self, batch: Arrays, reference: Arrays) -> Arrays:
        """Outputs of each module by `MODULE: what`, every module fed with what float32 computed."""
        use_tensor_float_32(self._precision)
        return {
            name: np.asarray(value, np.float32)
            for name, value in self._activations(self._tensors(batch), reference).items()
        }

    def _tensors(self, batch):
        keys = [*self.agent.wm.input_keys, "action"]
        return {key: tf.constant(batch[key]) for key in keys}

    def _run(self, batch, number, agent_steps):
        agent = self.agent
        draws = Draws([tf.cast(agent.config.seed, tf.int64), number])
        state = agent.wm.rssm.initial(tf.shape(batch["action"])[0])
        update = agent.update(batch, state, agent_steps, draws)
        model = agent.wm.named_variables()
        variables = {
            "model": [name for name, variable in model.items() if variable.trainable],
            "actor": agent.behavior.actor.named_variables("actor/"),
            "critic": agent.behavior.critic.named_variables("critic/"),
        }
        grads = {
            name: grad
            for part, names in variables.items()
            for name, grad in zip(names, update.grads[part], strict=True)
        }
        outputs = {"embed": update.model.embed, "feat": update.model.feat}
        outputs |= {f"post_{key}": value for key, value in update.model.post.items()}
        outputs["loss"] = update.model.loss
        return grads, {k: tf.cast(v, tf.float32) for k, v in outputs.items()}

    def _compute_activations(self, batch, reference):
        wm, behavior = self.agent.wm, self.agent.behavior
        feat, post = reference["feat"], _previous(reference)
        flat = {k: tf.reshape(batch[k], [-1, *batch[k].shape[2:]]) for k in ("action", "is_first")}
        embed = tf.reshape(reference["embed"], [-1, reference["embed"].shape[-1]])
        step = wm.rssm.obs_step(post, flat["action"], embed, flat["is_first"], Modes())
        prior = wm.rssm.img_step(post, flat["action"], Modes())
        stats = [key for key in step if key not in ("stoch", "deter")]
        actor = behavior.actor(feat, Modes())
        found = {
            "encoder: embedding": wm.encoder(wm.preprocess(batch)),
            "rssm/gru: state": step["deter"],
            **{f"rssm: posterior {k}": step[k] for k in stats},
            **{f"rssm: prior {k}": prior[k] for k in stats},
            **{f"decoder: {k}": dist.mode() for k, dist in wm.decoder(feat).items()},
            **{f"heads: {k}": head(feat).mean() for k, head in wm.heads.items()},
            # The mode of a one-hot action is one-hot: its logits say more.
            "actor: policy": actor.logits if hasattr(actor, "logits") else actor.mode(),
            "critic: value": behavior.critic(feat).mode(),
        }
        return {name: tf.cast(value, tf.float32) for name, value in found.items()}


class Subjects:
    """The agents of one run, each built once for all checkpoints with the same configuration."""

    def __init__(self) -> None:
        self._built: dict[tuple[str, bool], Subject] = {}

    def at(self, saved: Saved, precision: str, overrides: bool = True) -> Subject:
        """The agent of a checkpoint at one precision; another checkpoint's is no longer usable."""
        subject = self._built.get((precision, overrides))
        if subject is None or subject.config != saved.config:
            subject = self._built[precision, overrides] = Subject(saved, precision, overrides)
        subject.start_from(saved)
        return subject


def _previous(reference: Arrays) -> dict[str, tf.Tensor]:
    """The posterior before each row, `[B T, ...]`: zeros, then all rows but the last."""
    found = {}
    for key, value in reference.items():
        if key.startswith("post_"):
            shifted = tf.concat([tf.zeros_like(value[:, :1]), value[:, :-1]], 1)
            found[key.removeprefix("post_")] = tf.reshape(shifted, [-1, *value.shape[2:]])
    return found


def module_of(variable: str) -> str:
    """The module, as `precision_overrides` names it, that a variable belongs to."""
    parts = variable.split("/")
    if parts[:2] == ["rssm", "gru"]:
        return "rssm/gru"
    return "heads" if parts[0] in ("reward", "discount") else parts[0]


def optimizer_of(module: str) -> str:
    """The optimiser, and so the loss scale, of a module."""
    return module if module in OPTIMIZERS else "model"


# Measuring


def measure(
    subjects: Subjects, saved: Saved, batches: Sequence[Arrays], precisions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Everything that the report says about the batches."""
    reference = subjects.at(saved, "32", overrides=False)
    results = [reference.update(batch, i) for i, batch in enumerate(batches)]
    print(f"float32: {len(batches)} updates", flush=True)
    redrawn = [reference.update(batch, i + OTHER_DRAWS) for i, batch in enumerate(batches)]
    noise = [gradient_errors(a.grads, b.grads) for a, b in zip(results, redrawn, strict=True)]
    found: dict[str, Any] = {
        "sampling_noise": {module: _median(noise, module) for module in MODULES},
        "precisions": {},
    }
    for precision in precisions:
        subject = subjects.at(saved, precision)
        found["precisions"][precision] = follow(subject, reference, batches, results)
        print(f"{precision}: {len(batches)} updates", flush=True)
        if subject.agent.precision.uses_float16:
            swept = list(zip(batches, results, strict=True))[:SWEPT_BATCHES]
            found["precisions"][precision]["sweep"] = sweep(subject, swept)
    # Of a Normal, whose sum over pixels has a large constant; a Bernoulli's has none.
    normal = saved.config.decoder.image_dist == "mse"
    if normal and reference.agent.wm.decoder.image_keys:
        found["image_likelihood"] = likelihood_errors(reference, batches, results)
    return found


def follow(
    subject: Subject, reference: Subject, batches: Sequence[Arrays], results: Sequence[Result]
) -> dict[str, Any]:
    """Errors of a precision against float32; its loss scale goes where dynamic scaling takes it."""
    scales = subject.initial_scales()
    trajectory, activations, gradients, flipped = [scales], [], [], []
    for i, (batch, result) in enumerate(zip(batches, results, strict=True)):
        ours = subject.update(batch, i, scales)
        gradients.append(gradient_errors(result.grads, ours.grads))
        outputs = (s.activations(batch, result.outputs) for s in (reference, subject))
        activations.append(activation_errors(*outputs))
        flipped.append(other_class(result.outputs, ours.outputs))
        scales = subject.scales()
        trajectory.append(scales)
    return {
        "activation_error": {name: _median(activations, name) for name in activations[0]},
        "activations_not_finite": {name: _infinite(activations, name) for name in activations[0]},
        "gradient_error": {module: _median(gradients, module) for module in MODULES},
        "gradients_not_finite": {module: _infinite(gradients, module) for module in MODULES},
        "latents_of_other_class": float(np.mean(flipped)),
        "loss_scale": trajectory if subject.agent.precision.uses_float16 else [],
    }


def gradient_errors(reference: Arrays, ours: Arrays) -> dict[str, float]:
    """Per module, `||ours - reference|| / ||reference||` over all its gradients; infinite where
    one is not finite."""
    errors = {}
    for module in MODULES:
        names = [name for name in reference if module_of(name) == module]
        difference = _norm(ours[name] - reference[name] for name in names)
        errors[module] = _relative(difference, _norm(reference[name] for name in names))
    return errors


def activation_errors(reference: Arrays, ours: Arrays) -> dict[str, float]:
    """The relative error of each output of a module; infinite where one is not finite."""
    return {
        name: _relative(_norm([ours[name] - value]), _norm([value]))
        for name, value in reference.items()
    }


def _relative(difference: float, size: float) -> float:
    error = difference / max(size, 1e-30)
    return error if np.isfinite(error) else np.inf


def other_class(reference: Arrays, ours: Arrays) -> float:
    """Share of discrete latents that fell on another class than at float32; 0 for Gaussian ones."""
    if "post_logit" not in reference:
        return 0.0
    classes = (r["post_stoch"].argmax(-1) for r in (reference, ours))
    return float(np.mean(np.not_equal(*classes)))


def sweep(subject: Subject, swept: Sequence[tuple[Arrays, Result]]) -> dict[str, Any]:
    """Gradients at every loss scale 2^k, compared with float32.

    Returns:
        `modules`: per module, by exponent, the `zero` share (float32 has another number there) and
        the `not_finite` share of entries, the `window` of usable exponents, and the `optimizer`
        that has the scale; `tensors`: those that overflow, at the lowest exponent first;
        `largest`: per optimiser, the largest exponent at which all is finite, where dynamic
        scaling hovers.
    """
    shares: dict[str, dict[str, list]] = {
        module: {"zero": [], "not_finite": []} for module in MODULES
    }
    first_overflow: dict[str, int] = {}
    for exponent in EXPONENTS:
        scales = dict.fromkeys(OPTIMIZERS, 2.0**exponent)
        grads = [subject.update(batch, i, scales).grads for i, (batch, _) in enumerate(swept)]
        pairs = [(result.grads, ours) for (_, result), ours in zip(swept, grads, strict=True)]
        for module, share in module_shares(pairs).items():
            for kind, value in share.items():
                shares[module][kind].append(value)
        for name in swept[0][1].grads:
            if not all(np.isfinite(ours[name]).all() for ours in grads):
                first_overflow.setdefault(name, exponent)
        print(f"float16: loss scale 2^{exponent}", flush=True)
    return {
        "exponents": list(EXPONENTS),
        "updates": len(swept),
        "modules": {
            module: {
                **share,
                "window": usable_window(**share),
                "optimizer": optimizer_of(module),
            }
            for module, share in shares.items()
        },
        "tensors": overflowing_tensors(first_overflow, [result.grads for _, result in swept]),
        "largest": {name: largest_finite(shares, name) for name in OPTIMIZERS},
    }


def module_shares(pairs: Sequence[tuple[Arrays, Arrays]]) -> dict[str, dict[str, float]]:
    """Shares of gradient entries, from pairs of float32's gradients and ours."""
    shares = {}
    for module in MODULES:
        names = [name for name in pairs[0][0] if module_of(name) == module]
        entries = there = zero = bad = 0
        for reference, ours in pairs:
            for name in names:
                nonzero = reference[name] != 0
                entries += nonzero.size
                there += int(np.count_nonzero(nonzero))
                zero += int(np.count_nonzero(nonzero & (ours[name] == 0)))
                bad += int(np.count_nonzero(~np.isfinite(ours[name])))
        shares[module] = {"zero": zero / max(there, 1), "not_finite": bad / max(entries, 1)}
    return shares


def usable_window(zero: Sequence[float], not_finite: Sequence[float]) -> list[int]:
    """Lowest and highest exponent without overflow and with hardly more zeros than at the best."""
    finite = [e for e in EXPONENTS if not not_finite[e]]
    least = min((zero[e] for e in finite), default=0.0)
    usable = [e for e in finite if zero[e] <= least + ALLOWED_ZEROS]
    return [usable[0], usable[-1]] if usable else []


def largest_finite(shares: Mapping[str, Mapping[str, list[float]]], optimizer: str) -> int | None:
    """The largest exponent at which no module of an optimiser overflows."""
    parts = [share for module, share in shares.items() if optimizer_of(module) == optimizer]
    finite = [e for e in EXPONENTS if not any(share["not_finite"][e] for share in parts)]
    return max(finite, default=None)


def overflowing_tensors(
    first_overflow: Mapping[str, int], grads: Sequence[Arrays]
) -> list[dict[str, Any]]:
    """Parameters whose gradient overflowed: at which exponent, and at which one its own largest
    entry leaves float16. Where the second is higher, the overflow was upstream of the gradient."""
    rows = []
    for name, exponent in first_overflow.items():
        largest = max(float(np.abs(g[name]).max()) for g in grads)
        own = int(np.ceil(np.log2(LARGEST / largest))) if largest else None
        rows.append(
            {"name": name, "exponent": exponent, "own_exponent": own, "largest_gradient": largest}
        )
    return sorted(rows, key=lambda row: (row["exponent"], row["own_exponent"] or 99))


def likelihood_errors(
    reference: Subject, batches: Sequence[Arrays], results: Sequence[Result]
) -> dict[str, dict[str, float | None]]:
    """Per image key: how far float16 puts the log-likelihood of an image from its true value, when
    terms and sum are float16 as in the author's code, and when only the decoder's output is.

    `signal` is the part that depends on the prediction: half the squared error, summed.
    """
    found = {}
    for key in reference.agent.wm.decoder.image_keys:
        sums: dict[str, list[np.ndarray]] = {"half": [], "float": [], "signal": [], "true": []}
        for batch, result in zip(batches, results, strict=True):
            mean = reference.agent.wm.decoder(tf.constant(result.outputs["feat"]))[key].mode()
            image = tf.constant(batch[key])
            exact = np.asarray(image, np.float64) / 255 - 0.5
            signal = 0.5 * np.square(exact - mean.numpy()).sum((-3, -2, -1))
            true = -signal - 0.5 * np.log(2 * np.pi) * np.prod(mean.shape[-3:])
            half_mean = tf.cast(mean, tf.float16)
            half_image = tf.cast(image, tf.float16) / 255 - 0.5
            as_float = ImageNormal(tf.cast(half_mean, tf.float32))
            sums["half"].append(ImageNormal(half_mean).log_prob(half_image).numpy() - true)
            sums["float"].append(as_float.log_prob(tf.cast(half_image, tf.float32)).numpy() - true)
            sums["signal"].append(signal)
            sums["true"].append(true)
        half, single, signal, true = (np.concatenate(values, None) for values in sums.values())
        numbers = {
            "mean_log_likelihood": float(true.mean()),
            "mean_signal": float(signal.mean()),
            "signal_std": float(signal.std()),
            "float16_sum_mean_error": float(half.mean()),
            "float16_sum_mean_absolute_error": float(np.abs(half).mean()),
            "float16_sum_largest_error": float(np.abs(half).max()),
            "float32_sum_mean_absolute_error": float(np.abs(single).mean()),
            "spacing_of_float16": float(np.spacing(np.float16(-true.mean()))),
        }
        # Beyond 65,504 nats the sum itself overflows.
        found[key] = {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    return found


def _norm(arrays) -> float:
    """Euclidean norm of all entries together, in float64."""
    return float(np.sqrt(sum(np.square(a.astype(np.float64)).sum() for a in arrays)))


def _median(errors: Sequence[Mapping[str, float]], name: str) -> float | None:
    """The median of the finite ones; None where there is none."""
    values = [error[name] for error in errors if np.isfinite(error[name])]
    return float(np.median(values)) if values else None


def _infinite(errors: Sequence[Mapping[str, float]], name: str) -> int:
    return sum(not np.isfinite(error[name]) for error in errors)
