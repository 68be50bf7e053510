"""The agent: acts, learns from batches of rows, and has state that can be saved.

Shape letters: B batch, T time, H horizon, N = B*T imagination starts, A action.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from common.data.spaces import is_discrete
from common.envs.observations import as_row
from common.nn import dists
from common.nn.draws import Draws, Modes
from common.nn.layers import Module
from common.seeds import derive_seed
from dreamerv2.agent.behavior import Behavior, Learned
from dreamerv2.agent.dreams import Dreamer
from dreamerv2.agent.exploration import Explorer, make_exploration
from dreamerv2.agent.optimizers import make_optimizer
from dreamerv2.agent.precision import Precision
from dreamerv2.agent.rssm import State
from dreamerv2.agent.world_model import WorldModel, WorldModelLoss

PolicyState = tuple[State, tf.Tensor]  # latent, previous action


class Update(NamedTuple):
    """What one update computed; `train` returns the first two, parity looks at the rest."""

    state: State
    metrics: dict[str, tf.Tensor]
    model: WorldModelLoss
    grads: dict[str, list[tf.Tensor]]  # per optimiser, before clipping
    task: Learned
    exploring: Learned | None  # of the behaviour that explores, where one learns


class Agent(Module):
    """DreamerV2 (arXiv 2010.02193). Every variable exists after construction.

    Args:
        config: the resolved configuration.
        obs_space: observation key to space.
        act_space: `OneHot`, or a Box in [-1, 1] of rank 1.

    Raises:
        ValueError: the configuration does not fit the spaces.
    """

    devices: Sequence[str] = ("",)  # of this process, on which an update computes; "" is any

    def __init__(
        self,
        config,
        obs_space: Mapping[str, gymnasium.spaces.Box],
        act_space: gymnasium.spaces.Box,
    ):
        self.config = config
        self.agent_steps = 0  # that it has learned from; known for an agent that was loaded
        self.obs_space, self.act_space = dict(obs_space), act_space
        self.precision = Precision(config.precision, config.precision_overrides)
        # Training draws from the seed itself; nothing else may draw what some seed's training does.
        self._seeds = {p: derive_seed(config.seed, p) for p in ("policy", "report", "dream")}
        self._seeds["train"] = config.seed
        rng = np.random.default_rng(config.seed)
        self._action_size = act_space.shape[0]
        self.wm = WorldModel(config, obs_space, self._action_size, self.precision, rng)
        self.behavior = Behavior(config, self.wm.feat_size, act_space, self.precision, rng)
        self.expl = make_exploration(config, self.wm, act_space, self.precision, rng)
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.policy_calls = tf.Variable(0, dtype=tf.int64, trainable=False)
        owners = {
            "model_opt": self.wm,
            "actor_opt": self.behavior.actor,
            "critic_opt": self.behavior.critic,
        }
        self.optimizers = {
            name: make_optimizer(config, name, owner.named_variables(), self.precision)
            for name, owner in owners.items()
        }
        self._dreamer = Dreamer(self.wm, self.behavior.actor, config.jit)
        if config.jit:
            options = {"autograph": False, "reduce_retracing": True}
            self._train = tf.function(self._train, jit_compile=config.xla, **options)
            self._policy = tf.function(self._policy, jit_compile=config.xla, **options)
            # It reads the sizes of its batch: each has a graph of its own.
            self._report = tf.function(self._report, autograph=False)

    # Acting

    def initial_policy_state(self, batch: int) -> PolicyState:
        """Zeros: the latent and the action before an episode."""
        return self.wm.rssm.initial(batch), tf.zeros([batch, self._action_size])

    def policy(
        self, obs: Mapping[str, np.ndarray], state: PolicyState | None = None, mode: str = "train"
    ) -> tuple[dict[str, tf.Tensor], PolicyState]:
        """Actions for a batch of observations.

        Args:
            obs: rows `[B, ...]`, `is_first` among them.
            state: what the call before returned; None at first.
            mode: `train` samples actions, `explore` does so from the behaviour that explores, if
                there is one, and `eval` takes the mode.

        An observation that float16 cannot hold is forgotten: its row gets the first action (zeros
        where actions are continuous), and its state starts over.

        Returns:
            (outputs, state): outputs holds `action` `[B, A]`.

        Raises:
            ValueError: an unknown mode.
        """
        if mode not in ("train", "eval", "explore"):
            raise ValueError(f"mode: got {mode!r}, expected train, eval or explore")
        keys = [*self.wm.encoder.keys, "is_first"]
        obs = {key: tf.convert_to_tensor(obs[key]) for key in keys}
        if state is None:
            state = self.initial_policy_state(obs["is_first"].shape[0])
        return self._policy(obs, state, mode)

    def _policy(self, obs, state, mode):
        draws = Draws([self._seeds["policy"], self.policy_calls.assign_add(1)])
        outputs, (latent, action) = self.policy_step(obs, state, mode, draws)
        if self.precision.uses_float16:
            latent, action = self._without_overflow(latent, action)
        return {**outputs, "action": action}, (latent, action)

    def _without_overflow(self, latent: State, action: tf.Tensor) -> PolicyState:
        """Rows in which all is finite stay as they are; the others have seen and done nothing."""
        finite = tf.constant(True)
        for x in (action, *latent.values()):
            finite &= tf.reduce_all(tf.math.is_finite(x), range(1, x.shape.rank))

        def choose(x, other):
            return tf.where(tf.reshape(finite, [-1] + [1] * (x.shape.rank - 1)), x, other)

        size = self._action_size
        first = tf.one_hot(0, size) if is_discrete(self.act_space) else tf.zeros(size)
        return {k: choose(x, tf.zeros_like(x)) for k, x in latent.items()}, choose(action, first)

    def policy_step(
        self, obs: Mapping[str, tf.Tensor], state: PolicyState, mode: str, draws: Draws | Modes
    ) -> tuple[dict[str, tf.Tensor], PolicyState]:
        """`policy` with explicit draws, inside a graph or not."""
        latent, action = state
        embed = self.wm.encoder(self.wm.normalize(obs))
        means = self.config.eval_state_mean and mode != "train"
        latent = self.wm.rssm.obs_step(
            latent, action, embed, obs["is_first"], Modes() if means else draws
        )
        explorer = self.expl if mode == "explore" else None
        actor: Any = self.behavior.actor
        noise = self.config.expl_noise
        if explorer is not None:
            actor, noise = explorer.actor, explorer.noise
        dist = actor(self.wm.feat(latent), draws)
        if mode == "eval":
            action, noise = dist.mode(), self.config.eval_noise
        else:
            action = dists.sample(dist, draws)
        action = self._add_noise(action, noise, draws)
        return {"action": action}, (latent, action)

    def _add_noise(self, action, amount, draws):
        """Mixes the uniform distribution into a one-hot action, or adds clipped Normal noise."""
        if not amount:
            return action
        if is_discrete(self.act_space):
            probs = amount / self._action_size + (1 - amount) * action
            return dists.sample(dists.OneHot(tf.math.log(probs)), draws)
        return tf.clip_by_value(action + amount * draws.normal(tf.shape(action)), -1, 1)

    def act(
        self,
        obs: Any,
        state: PolicyState | None = None,
        mode: str = "eval",
    ) -> tuple[np.ndarray, PolicyState]:
        """One action `[A]` for one observation; the state starts as None.

        obs: a row of an environment of ours, or what Gymnasium's `reset` or `step` returned, whole
            or the observation alone. Alone, it begins an episode where the state is None.

        Raises:
            ValueError: the observation is not one of the agent's observation space.
        """
        row = as_row(self.obs_space, obs, first=state is None)
        keys = [*self.wm.encoder.keys, "is_first"]
        outputs, state = self.policy({k: np.asarray(row[k])[None] for k in keys}, state, mode)
        return outputs["action"].numpy()[0], state

    def dream(
        self,
        observations: Sequence[Mapping[str, np.ndarray]] | Mapping[str, np.ndarray],
        steps: int,
    ) -> np.ndarray:
        """What the agent imagines to see when it goes on without observations.

        Args:
            observations: the rows of an episode so far, as a list of dicts or as arrays `[T, ...]`,
                with `action` in each: the one that led to it.
            steps: how far to imagine, actions sampled from the policy.

        Returns:
            Frames uint8 `[steps, H, W, C]`, the same for the same observations.

        Raises:
            ValueError: the decoder has no images, or the rows lack something.
        """
        return self._dreamer(observations, steps, self._seeds["dream"])

    # Learning

    def train(
        self, batch: Mapping[str, np.ndarray], state: State | None = None, agent_steps: int = 0
    ) -> tuple[State, dict[str, tf.Tensor]]:
        """One update of world model, actor and critic, and of what explores.

        Args:
            batch: rows `[B, T, ...]` as replay gives them.
            state: carried from the batch before; None at first.
            agent_steps: where the schedules stand.

        Returns:
            (state, metrics): the posterior after the last row; scalars.
        """
        return self._train(*self.train_inputs(batch, state, agent_steps))

    def train_inputs(
        self, batch: Mapping[str, np.ndarray], state: State | None = None, agent_steps: int = 0
    ) -> tuple[dict[str, tf.Tensor], State, tf.Tensor]:
        """The arguments of `train` as tensors: only the keys that are read, and a state."""
        keys = [*self.wm.input_keys, "action"]
        batch = {key: tf.convert_to_tensor(batch[key]) for key in keys}
        if state is None:
            state = self.wm.rssm.initial(batch["action"].shape[0])
        return batch, state, tf.constant(agent_steps, tf.int64)

    def _train(self, batch, state, agent_steps):
        draws = Draws([self._seeds["train"], self.updates])
        update = self.update(batch, state, agent_steps, draws)
        return update.state, update.metrics

    def update(
        self,
        batch: Mapping[str, tf.Tensor],
        state: State,
        agent_steps: tf.Tensor,
        draws: Draws | Modes,
    ) -> Update:
        """World model first; the behaviours learn in the world model that this made."""
        data, optimizers = self.wm.preprocess(batch), self.optimizers
        model, step = self.wm.learn(data, state, draws, optimizers["model_opt"], agent_steps)
        task = self.behavior.learn(
            self.wm, model.post, data["is_terminal"], agent_steps, draws, optimizers
        )
        self.behavior.update_slow_critic()
        exploring = None
        if isinstance(self.expl, Explorer):
            exploring = self.expl.learn(self.wm, model, data, agent_steps, draws)
        self.updates.assign_add(1)
        metrics = model.metrics | step.metrics | task.metrics
        grads = {"model": step.grads} | task.grads
        if exploring:
            metrics, grads = metrics | exploring.metrics, grads | exploring.grads
        return Update(model.final_state(), metrics, model, grads, task, exploring)

    # Looking inside

    def report(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Open-loop predictions of up to 6 sequences after 5 rows of context.

        Returns:
            `openl_KEY` per decoded image: `[T, 3 H, B W, C]` in [0, 1], with truth, model and error
            one above the other and the sequences side by side.
        """
        keys = [*self.wm.input_keys, "action"]
        batch = {key: tf.convert_to_tensor(batch[key][:6]) for key in keys}
        videos = self._report(batch)
        return {k: np.clip(v.numpy(), 0, 1) for k, v in videos.items()}

    def _report(self, batch):
        draws = Draws([self._seeds["report"], self.updates])
        return self.open_loop_videos(batch, draws)

    def open_loop_videos(
        self, batch: Mapping[str, tf.Tensor], draws: Draws | Modes, context: int = 5
    ) -> dict[str, tf.Tensor]:
        """`report` with explicit draws, not clipped."""
        data = self.wm.preprocess(batch)
        videos = {}
        for key in self.wm.decoder.image_keys:
            truth = tf.cast(data[key], tf.float32) + 0.5
            model = self.wm.open_loop(data, key, context, draws)
            error = (model - truth + 1) / 2
            video = tf.concat([truth, model, error], 2)  # [B, T, 3 H, W, C]
            batch_size, steps, height, width, channels = video.shape
            video = tf.transpose(video, [1, 2, 0, 3, 4])
            videos[f"openl_{key}"] = tf.reshape(
                video, [steps, height, batch_size * width, channels]
            )
        return videos

    # State

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that has state, by name: networks, moments, loss scales, counters."""
        return {name: v.numpy() for name, v in self.named_variables().items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores `state_dict`.

        Raises:
            ValueError: names or shapes differ; nothing is changed then.
        """
        assign_all(self.named_variables(), arrays)

    def nonfinite(self) -> str | None:
        """The name of the first variable that holds a NaN or an infinity."""
        for name, variable in self.named_variables().items():
            if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
                return name
        return None


def assign_all(variables: Mapping[str, tf.Variable], arrays: Mapping[str, np.ndarray]) -> None:
    """Assigns arrays to variables of the same names and shapes, all or none.

    Raises:
        ValueError: names the first few variables that are missing, left over or of another shape.
    """
    problems = [f"{name} is missing" for name in variables if name not in arrays]
    problems += [f"{name} is not part of this agent" for name in arrays if name not in variables]
    for name, variable in variables.items():
        if name in arrays and tuple(variable.shape) != np.shape(arrays[name]):
            expected, found = tuple(variable.shape), np.shape(arrays[name])
            problems.append(f"{name} has shape {found}, expected {expected}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            "saved variables do not match the agent: " + "; ".join(problems[:3]) + more
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
