"""The loop of a run: prefill, pretrain, then evaluation and training in turn."""

import contextlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common import checkpoint
from common.cluster import WorkerLostError
from common.config import Config
from common.data.driver import batched, random_policy
from common.data.replay import Replay
from common.envs.base import Env
from common.files import sweep_temporary
from common.log import paint, video
from common.log.logger import Logger
from common.log.metrics import read_last_rows
from common.log.progress import Progress, Stopwatch
from common.seeds import derive_seed
from common.when import Every, EverySeconds
from dreamerv2.run import begin, blocks, collector, failure, finish, restore, snapshot
from dreamerv2.run.episodes import EpisodeLog
from dreamerv2.run.errors import NonFiniteError, RunBrokenError, RunError
from dreamerv2.run.learner import Learner, next_batch
from dreamerv2.run.lock import RunLock
from dreamerv2.run.monitor import Averages
from dreamerv2.run.team import Alone

# Random steps beyond `prefill` in which one episode at least must be long enough for replay.
PREFILL_PATIENCE = 10_000
WRITTEN = ("checkpoints", "train_episodes", "eval_episodes", "videos")  # folders of a run
NOT_SAVED = "worker 0 is the one that saves"


class Runner:
    """One run in `config.logdir`, new or resumed from its latest checkpoint.

    make_envs(mode, seeds): environments for `train`, or one for `eval`; none: no evaluation.
    make_agent(obs_space, act_space): see `dreamerv2.agent.agent.Agent`.
    make_replay(mode, seed, agent): the replay buffer for `train` or `eval`.
    make_logger(show): the logger; `show(text)` prints without disturbing the progress line.
    team: of whose workers this is one; None: it is alone.

    The constructor reads, checks and builds everything before it writes anything but the folder
    itself: a mistake (ValueError, OSError) leaves the logdir as it was.
    """

    # What `_make_state` sets.
    _eval_due: int
    _evaluation: dict[str, Any] | None
    _averages: Averages
    _updates_logged: int
    _saved: tuple[int, int] | None
    _ready: bool

    def __init__(
        self,
        config: Config,
        *,
        make_envs: Callable[[str, Sequence[int]], Sequence[Env]],
        make_agent: Callable[[Mapping, Any], Any],
        make_replay: Callable[[str, int, Any], Replay],
        make_logger: Callable[[Callable[[str], None]], Logger],
        team: Alone | None = None,
    ):
        self._config = config
        self._team = team or Alone()
        self._logdir = Path(config.logdir).expanduser()
        self._folder = self._team.folder(self._logdir)
        self._lock = lock_logdir(self._folder)
        self._envs: Sequence[Env] = ()
        self._eval_envs: Sequence[Env] = ()
        try:
            self._build(make_envs, make_agent, make_replay, make_logger)
        except BaseException:
            made: list[Env] = [*self._envs, *self._eval_envs]
            for env in made:
                with contextlib.suppress(Exception):  # what went wrong first is told
                    env.close()
            self._lock.release(leave_nothing=True)
            raise

    def _build(self, make_envs, make_agent, make_replay, make_logger) -> None:
        config = self._config
        self._checkpoints = checkpoint.Checkpoints(
            self._logdir / "checkpoints", config.keep_checkpoints
        )
        arrays, meta, self._damaged = snapshot.read_latest(self._checkpoints, config.fall_back)
        start = self._start = meta.get("agent_steps", 0)
        # A resumed run must not play again the episodes that it has seen.
        self._envs = make_envs("train", self._env_seeds(start))
        self._env = self._envs[0]  # for what they have in common
        self._eval_envs = make_envs("eval", [self._seed("eval_env", start)])
        check_same(self._env, self._eval_envs)
        snapshot.seed_generators(config.seed if self._team.leads else self._seed("generators"))
        self._agent = make_agent(self._env.obs_space, self._env.act_space)
        begun = self._load_agent(arrays, meta)

        self._progress = Progress(config.steps, config.action_repeat)
        self._show = self._progress.show
        self._interrupt = self._team.interrupt
        self._save_due = self._team.clock(EverySeconds(config.save_every))
        self._stopwatch = Stopwatch(["env", "policy", "data", "train", "eval"])
        self._logger = make_logger(self._show)
        self._replay = make_replay("train", self._seed("replay"), self._agent)
        self._eval_replay = make_replay("eval", self._seed("eval_replay"), self._agent)
        share, length = config.dataset.batch // self._team.size, config.dataset.length
        self._eval_batches = self._eval_replay.batches(share, length)
        self._learner = Learner(
            self._agent,
            self._replay.batches(share, length),
            share,
            team=self._team,
            stopwatch=self._stopwatch,
            progress=self._progress,
            fail=self._fail,
        )
        self._episodes = EpisodeLog(
            config,
            self._logger,
            {"train": self._replay, "eval": self._eval_replay},
            self._progress,
            cut_after=0 if config.time_limit else collector.ENDLESS,
        )
        self._collector = collector.Collector(
            config,
            self._envs,
            self._eval_envs,
            self._agent,
            {"train": self._replay, "eval": self._eval_replay},
            episodes=self._episodes,
            logger=self._logger,
            stopwatch=self._stopwatch,
            show=self._show,
            save=self._save,
        )
        self._make_state()
        if meta:
            try:
                self._restore(arrays, meta)
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                text = failure.describe(error)
                raise RunError(
                    f"the latest checkpoint does not describe its run ({text})"
                ) from error
        parts = [self._folder / name for name in WRITTEN]
        for part in [self._folder, *parts, *self._folder.glob("failure/*")]:
            sweep_temporary(part)
        if self._team.leads:
            config.save(self._logdir / "config.yaml")
        self._progress.begin(self.step, self.updates, self._logger.seconds)
        self._show_start(meta, begun)

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes logs and checkpoints; it is where it is alone."""
        return self._team.leads

    @property
    def step(self) -> int:
        """Agent steps so far."""
        return self._logger.agent_steps

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self._learner.updates

    def run(self) -> int:
        """Run until `config.steps` or a signal; the exit code: 0, or 128 + the signal's number.

        Raises `RunError`, or `RunBrokenError` for what ended the run before its time, whose message
        says what was saved: `NonFiniteError` after a number that is not finite, and any exception
        of the environment, a full disk or a closed standard output.
        """
        try:
            with self._team.signal:
                try:
                    self._run()
                except Exception as error:
                    self._save_what_is_left(error)
        finally:
            self._close()
        if not self._interrupt:
            self._show(finish.summary(self._meta, self._config))
            return 0
        self._show(f"Saved at agent step {self.step:,}; the same command resumes.")
        return 128 + (self._interrupt.number or 0)

    def _run(self) -> None:
        if self._goes_on():
            self._prefill()
            self._pretrain()
            if (self.step, self.updates) != self._saved:
                self._save(behind=self._goes_on())
        while self._goes_on():
            if self.step >= self._eval_due and self._evaluate():
                self._eval_due = self.step + self._config.eval_every
            self._progress.phase("train", next_eval=self._eval_due)
            self._train_until(min(self._eval_due, self._config.steps))
            self._save(behind=self._goes_on())
        self._checkpoints.wait()
        if not self._interrupt:
            self._finish()

    def _goes_on(self) -> bool:
        return not self._interrupt and self.step < self._config.steps

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # said already by the save that came after it
            self._checkpoints.wait()
        for env in (*self._envs, *self._eval_envs):
            try:
                env.close()
            except Exception as error:  # of the user's own; the run is saved
                self._show(f"WARNING: an environment did not close: {failure.describe(error)}")
        try:
            self._progress.close()
            self._logger.close()
        finally:
            self._lock.release()

    # Phases

    def _prefill(self) -> None:
        """Random actions until replay has `prefill` steps and at least one episode."""
        policy = batched(random_policy(self._env.act_space, self._seed("prefill", self.step)))
        patience = self.step + max(0, self._prefill_left) + PREFILL_PATIENCE
        self._round()
        while not self._interrupt:
            if self._prefill_left <= 0 and self._ready:
                break
            if self.step >= patience:
                raise RunError(self._no_episode())
            self._progress.phase("prefill")
            before = self.step
            self._collector.play(policy)
            self._round()
            self._prefill_left -= self.step - before
            self._progress.update(self.step, self.updates)
        # The agent starts episodes of its own; what random actions began is dropped.
        self._collector.reset("train")

    def _no_episode(self) -> str:
        """Why replay has nothing to sample from after so many random steps."""
        if self._replay.stats["short_episodes"]:
            minlen = self._config.replay.minlen
            return (
                f"no episode with random actions had replay.minlen ({minlen}) steps in "
                f"{self.step:,}; lower it"
            )
        return (
            f"no episode with random actions ended in {self.step:,} steps; --time_limit N ends "
            "them after N agent steps"
        )

    def _pretrain(self) -> None:
        while not self._interrupt and self.updates < self._config.pretrain:
            self._learner.update(self.step)
            self._progress.phase("pretrain")
            self._progress.update(self.step, self.updates)
            self._round()
            if self._save_due():
                self._save(behind=True, temporary=True)

    def _evaluate(self) -> bool:
        """Of a team, worker 0 evaluates and the others wait; False if a signal cut it short."""
        self._progress.phase("eval")
        if self._team.leads:
            whole = self._play_and_predict()
        else:
            whole, self._evaluation = True, {"agent_steps": self.step, "returns": []}
        self._round()
        return whole

    def _play_and_predict(self) -> bool:
        """Play `eval_eps` episodes and predict open loop; False if a signal cut it short."""
        with self._stopwatch("eval"):
            returns: list[float] = []
            self._episodes.returns = returns
            if self._collector.evaluates:
                self._collector.reset("eval")
                while len(returns) < self._config.eval_eps and not self._team.signal:
                    self._collector.evaluate()
                    self._progress.update(self.step, self.updates)
            if self._team.signal:
                return False
            self._evaluation = {"agent_steps": self.step, "returns": returns}
            seen = self._eval_replay.stats["loaded_episodes"]
            batch = next_batch(self._eval_batches if seen else self._learner.batches)
            report = self._agent.report(batch)
            clips = {name: with_words(clip) for name, clip in report.items()}
            self._logger.add(clips, prefix="eval")
            self._logger.write()
        return True

    def _finish(self) -> None:
        """Log the last updates and evaluate the last agent, unless that was done.

        What is saved is the state before both: a run that goes on draws the same batches and
        actions, and logs the same rows, as if it had not ended here.
        """
        arrays, meta = self._state()
        if self.updates > self._updates_logged:
            self._log_updates()
        if self._collector.evaluates and not finish.is_evaluated(meta):
            if not self._evaluate():
                return
            meta["run"]["evaluation"] = self._evaluation
            if self._team.leads:
                self._checkpoints.save(self.step, arrays, meta)
        self._meta = meta

    def _train_until(self, step: int) -> None:
        while self._goes_on() and self.step < step:
            self._progress.phase("train")
            self._collector.train()
            self._round()
            while self._train_clock(self.step):
                for _ in range(self._config.train_steps):
                    self._averages.add(self._learner.update(self.step))
                    self._progress.update(self.step, self.updates)
            if self._log_clock(self.step):
                self._log_updates()
            if self._save_due():
                self._save(behind=True, temporary=True)
            self._progress.update(self.step, self.updates)

    def _round(self) -> None:
        """Counts the steps that the other workers made, and hears what they agree on."""
        ready = bool(self._replay.stats["loaded_episodes"])
        told = self._team.round(self._collector.steps, ready)
        self._logger.agent_steps += told.others_steps
        self._collector.steps, self._ready = 0, told.ready

    # Logging

    def _log_updates(self) -> None:
        logger, updates = self._logger, self.updates
        logger.add(self._averages.take())
        elapsed, shares = self._stopwatch.fractions()
        logger.add(shares, prefix="time")
        logger.scalar("updates", updates)
        logger.scalar("updates_per_second", (updates - self._updates_logged) / elapsed)
        logger.scalar("memory_gib", psutil.Process().memory_info().rss / 2**30)
        logger.scalar("hours", logger.seconds / 3600)
        if self._config.expl_behavior != "greedy":
            logger.scalar("exploring", float(self._collector.explored))
        logger.scalar("cpu_seconds", logger.cpu_seconds)
        logger.write(fps=True)
        self._updates_logged = updates
        self._learner.check_parameters()

    def _show_start(self, meta: Mapping[str, Any], begun: str) -> None:
        if begun:
            self._show(begun)
        for path, error in self._damaged if self._team.leads else ():
            path.rename(path.with_name(f"{path.name}.damaged"))
            self._show(f"WARNING: {error}; renamed to *.damaged, the one before it is used")
        if meta:
            self._show(
                f"Resuming at agent step {self.step:,} with {self.updates:,} updates "
                f"from {self._checkpoints.latest()}"
            )
            for change in blocks.config_changes(meta["config"], self._config.nested()):
                self._show(f"  changed since: {change}")
            self._log_resumed_step()
        rows = {**self._env.obs_space, "action": self._env.act_space}
        report = self._replay.capacity_report(rows)
        self._show(f"{'Replay' if report.disk_suffices else 'WARNING: replay'}: {report}")
        self._show(parameter_table(self._agent.named_variables()))

    def _log_resumed_step(self) -> None:
        """A row at the step of the checkpoint, where a killed run has logged beyond it: readers
        drop later rows that stand before an earlier one."""
        rows = read_last_rows(Path(self._config.logdir).expanduser() / "metrics.jsonl")
        if rows and rows[-1]["step"] > self._logger.step:
            self._logger.scalar("updates", self.updates)
            self._logger.write()

    # State

    def _load_agent(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
        """Loads the agent of the checkpoint, or of a new run the networks of `start_from`.

        Returns a line about these networks; empty where none were taken.
        """
        source = self._config.start_from
        if not meta:
            return begin.take_networks(self._agent, source) if source else ""
        begin.check_resumed(source, meta["config"])
        self._agent.load_state_dict(snapshot.below("agent", arrays))
        return ""

    def _seed(self, *purpose: str | int) -> int:
        if not self._team.leads:  # whose generators are in no checkpoint: they go on anew
            purpose += ("worker", self._team.index, self._start)
        return derive_seed(self._config.seed, *purpose)

    def _env_seeds(self, start: int) -> list[int]:
        """One per environment, for a run that goes on from agent step `start`."""
        others = [self._seed("env", start, number) for number in range(1, self._config.envs)]
        return [self._seed("env", start), *others]

    def _make_state(self) -> None:
        """What a checkpoint restores, as it is at the start of a run."""
        stored = self._replay.stats["total_steps"]
        settings = {key: value for key, value in self._config.flat.items() if key != "logdir"}
        checksum = zlib.crc32(repr(settings).encode())
        stored += self._team.join(self._start, self.updates, checksum, stored)
        self._logger.agent_steps = stored
        self._prefill_left = self._config.prefill - stored
        self._train_clock = Every(self._config.train_every)
        self._log_clock = Every(self._config.log_every)
        self._eval_due = 0
        self._evaluation = None
        self._averages = Averages()
        self._updates_logged = 0
        self._saved = None
        self._said_interrupt = False

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and meta of a checkpoint. An imported run has no `run` in its meta."""
        carry, learner = self._learner.state()
        arrays = {
            **snapshot.under("agent", self._agent.state_dict()),
            **snapshot.under("carry", carry),
            **snapshot.under("replay", self._replay.state()),
            **snapshot.under("eval_replay", self._eval_replay.state()),
        }
        env = self._env
        meta = snapshot.agent_meta(
            *(self.step, self.updates, self._config),
            *(env.obs_space, env.act_space, env.action_names),
        )
        meta["run"] = {
            "prefill_left": self._prefill_left,
            "eval_due": self._eval_due,
            "evaluation": self._evaluation,
            "clocks": [self._train_clock.state(), self._log_clock.state()],
            "averages": self._averages.state(),
            "successes": self._episodes.state(),
            "logger": self._logger.state(),
            "progress": self._progress.state(),
            "random": snapshot.random_state(),
            **learner,
        }
        return arrays, meta

    def _restore(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        self._logger.agent_steps = meta["agent_steps"]
        self._updates_logged = self.updates
        self._saved = (self.step, self.updates)
        self._prefill_left = 0
        run = meta.get("run")
        if not run:
            return
        self._prefill_left = int(run["prefill_left"])
        self._eval_due = min(run["eval_due"], self.step + self._config.eval_every)
        self._evaluation = run.get("evaluation")
        self._train_clock.load_state(run["clocks"][0])
        self._log_clock.load_state(run["clocks"][1])
        self._averages.load_state(run["averages"])
        self._episodes.load_state(run.get("successes", {}))
        self._logger.load_state(run["logger"])
        self._progress.load_state(run.get("progress") or {"returns": {}, "best": {}})
        leads = self._team.leads
        self._learner.load_state(snapshot.below("carry", arrays) if leads else {}, run)
        if leads:  # it is of the episodes and environments of worker 0
            self._replay.load_state(snapshot.below("replay", arrays))
            self._eval_replay.load_state(snapshot.below("eval_replay", arrays))
            snapshot.load_random_state(run["random"])

    def _save(self, behind: bool = False, temporary: bool = False) -> str:
        """behind: training goes on while it is written. temporary: by the clock.

        Returns what can be said of it.
        """
        if self._interrupt and not self._said_interrupt:
            self._said_interrupt = True
            self._show(f"{self._interrupt.name}: saving; once more ends the run at once.")
        self._learner.check_parameters()
        self._learner.forget_broken_carry()
        if self._team.leads:
            save = self._checkpoints.save_behind if behind else self._checkpoints.save
            save(self.step, *self._state(), temporary=temporary)
        self._saved = (self.step, self.updates)
        self._save_due.restart()
        return f"saved at agent step {self.step:,}" if self._team.leads else NOT_SAVED

    def _save_what_is_left(self, error: Exception) -> None:
        """After an exception in the loop: saves if it can; RunBrokenError with what to do next.

        Without one if a signal came as well: a terminal that closes sends SIGHUP and is gone.
        """
        if isinstance(error, RunError | RunBrokenError):
            raise error
        what = str(error) if isinstance(error, WorkerLostError) else failure.describe(error)
        if self._learner.half_done:
            saved = "half an update is not saved"
        elif not self._team.leads:
            saved = NOT_SAVED
        else:
            try:
                saved = self._save()
            except OSError as problem:
                saved = f"it could not be saved ({failure.describe(problem)})"
        if self._progress.lost and self._interrupt:
            return
        trace = ""
        if not isinstance(error, OSError):
            trace = failure.keep_traceback(self._folder, self.step, error)
        raise RunBrokenError(
            f"{what}, at agent step {self.step:,}; {saved}; {failure.advice(error)}the same "
            f"command goes on from {self._checkpoints.latest() or 'the episodes in replay'}{trace}"
        ) from error

    def _fail(self, name: str) -> None:
        """Put what broke aside, as it was before, and stop."""
        text = f"{name} is not finite at agent step {self.step:,}, update {self.updates:,}"
        before = self._learner.before_failure()
        if before:
            env = self._env
            meta = snapshot.agent_meta(
                *(before.agent_steps, int(self._agent.updates), self._config),
                *(env.obs_space, env.act_space, env.action_names),
            )
            try:
                folder = failure.write(self._logdir, self.step, before, meta, text)
            except OSError as error:
                text += f"; what led to it could not be kept ({failure.describe(error)})"
            else:
                text += (
                    f"; {folder} has the state before update {meta['updates'] + 1:,} and its "
                    "batch: dreamerv2.run.reproduce does it again"
                )
        latest = self._checkpoints.latest()
        raise NonFiniteError(
            f"{text}; the same command goes on from {latest or 'the episodes in replay'}; if it "
            "breaks there too, see what the batch holds, or lower the learning rates, "
            "--'.*_opt.lr'"
        )


def with_words(clip: Any) -> np.ndarray:
    """An open-loop clip of `Agent.report`, float [T, 3 H, W, C], that says which row is what."""
    clip = video.showable(np.asarray(clip))
    return paint.name_rows(video.to_uint8(clip), ("truth", "model", "error"))


def check_same(env: Env, others: Sequence[Env]) -> None:
    """ValueError where the environments of evaluation have other spaces than that of training.

    What is only logged may be missing there.
    """
    read = {key: space for key, space in env.obs_space.items() if not key.startswith("log_")}
    for other in others:
        problem = restore.difference(read, env.act_space, other)
        if problem:
            raise ValueError(f"the environment of evaluation is not that of training: {problem}")


def lock_logdir(directory: Path) -> RunLock:
    """The lock on a logdir, which is made if absent; ValueError if it cannot be written."""
    try:
        return RunLock(directory)
    except OSError as error:
        raise ValueError(f"logdir {directory} cannot be written: {error.strerror}") from error


def parameter_table(variables: Mapping[str, Any]) -> str:
    """Number of parameters per module, from variables by path; counters and moments are none."""
    counts: dict[str, int] = defaultdict(int)
    for name, variable in variables.items():
        module = "/".join(name.split("/")[:2])
        if len(variable.shape) and "_opt/" not in name:
            counts[module] += int(np.prod(variable.shape))
    width = max(map(len, counts), default=0)
    lines = [f"  {module:{width}} {count:>12,}" for module, count in counts.items()]
    return "\n".join([f"Parameters: {sum(counts.values()):,}", *lines])
