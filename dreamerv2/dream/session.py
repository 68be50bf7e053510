"""What one person does on the page: a timeline of moments in the game and in the dream."""

from typing import Any, NamedTuple, TypeVar

import numpy as np

from common.envs.base import Env
from dreamerv2.dream import pictures
from dreamerv2.dream.engine import Draw, Glance, Latent
from dreamerv2.dream.episodes import context
from dreamerv2.dream.parting import Parting
from dreamerv2.dream.pictures import Packed
from dreamerv2.dream.world import Start, World

Value = TypeVar("Value")
PLACES = ("dream", "game", "both")
ACTORS = ("you", "policy", "nobody")
MAX_STEPS = 3000  # of a timeline; docs/dream.md says what one takes
CONTEXT = 50  # rows of a stored episode that the model sees before the dream starts


class Settings(NamedTuple):
    """What a person sets, as it was when a moment was left."""

    where: str = "dream"
    seed: int = 0  # of the draws
    temperature: float = 1.0
    likely: bool = False
    hold: tuple[tuple[int, int], ...] = ()  # (variable, class), in the order of the variables


class View(NamedTuple):
    """A model state and what is made of it."""

    latent: Latent
    glance: Glance  # without `seen`: the picture says the same in a quarter of the memory
    picture: np.ndarray


class Moment(NamedTuple):
    """One step of the timeline. What a step did not touch is that of the moment before."""

    settings: Settings
    game: View | None
    dream: View | None
    action: np.ndarray | None = None  # that led here
    screen: Packed | None = None
    reward: float = 0.0  # of the game, on arrival
    score: float = 0.0  # sum of the rewards of the timeline, true ones and predicted ones
    over: bool = False  # the game's episode has ended
    synced: bool = False  # the dream starts here, from what the model saw of the game
    parting: Parting = Parting()

    @property
    def view(self) -> View:
        """That of the model state which the panels show and classes are held in."""
        return _present(self.game if self.settings.where == "game" else self.dream)

    @property
    def actor(self) -> View:
        """That which the policy looks at."""
        return _present(self.dream if self.settings.where == "dream" else self.game)


def _present(value: Value | None) -> Value:
    """`where` is never a place of which there is no view, and no view is made of nothing seen."""
    assert value is not None
    return value


class Played(NamedTuple):
    """A step of a recorded timeline: how a moment was left, and by which action."""

    settings: Settings
    synced: bool
    action: np.ndarray | None  # None: the last moment


class SessionError(ValueError):
    """Something that the page can ask for, and that does not go; it says why."""


class Session:
    """The state of one page. Not for several threads at once, except `held_action`."""

    def __init__(self, world: World):
        self._world = world
        self.who = "you"
        self.held_action: np.ndarray | None = None  # what the person holds down
        self.replay: list[Played] = []  # what a link still has to do
        self._env: Env | None = None
        self.moments: list[Moment] = []
        self.cursor = 0
        self.fresh_from = 0  # the first moment that has changed since the page was told
        self.start(world.first_start)

    def close(self) -> None:
        """Frees the environment; the session is not to be used afterwards."""
        if self._env is not None:
            self._env.close()
        self._env = None
        self.moments = []

    @property
    def discrete(self) -> bool:
        """Whether latents are classes that can be held."""
        return self._world.engine.discrete

    def action_name(self, action: np.ndarray) -> str:
        controls = self._world.controls
        if controls.discrete:
            return controls.names[action.argmax()]
        return " ".join(f"{value:+.2f}" for value in action)

    # Where a timeline starts

    def start(self, start: Start, where: str | None = None) -> None:
        """A new timeline; without `where` in the place of the one before.

        Raises SessionError when the stored episode is not there, or the game cannot be played.
        """
        settings = self.now.settings if self.moments else Settings(seed=self._world.seed)
        settings = settings._replace(where=where or settings.where, hold=())
        if start.episode is None and self._world.game_problem:
            raise SessionError(self._world.game_problem)
        if start.episode is None:
            first = self._from_reset(start, settings)
        else:
            first = self._from_episode(start.episode, start.row, settings._replace(where="dream"))
        self.origin, self.moments, self.cursor = start, [first], 0
        self.replay, self.fresh_from = [], 0

    def _from_reset(self, start: Start, settings: Settings) -> Moment:
        self._drop_env()
        self._env = self._world.env(start.seed)
        obs = self._env.reset()
        world, zero = self._world, np.zeros(self._world.controls.size, np.float32)
        latent, glance = world.engine.observe(
            world.engine.initial(), zero, world.free, Draw(0, 0), obs
        )
        view = self._view(latent, glance)
        return Moment(settings, view, view, screen=self._screen(obs), synced=True)

    def _from_episode(self, name: str, number: int, settings: Settings) -> Moment:
        world = self._world
        try:
            rows = world.episodes.read(name)
        except ValueError as error:
            raise SessionError(str(error)) from None
        if number >= len(rows["action"]):
            raise SessionError(f"row {number}: this episode has {len(rows['action'])}")
        self._drop_env()
        latent = world.engine.initial()
        for count, row in enumerate(context(rows, number, CONTEXT)):
            draw = Draw(0, 2 * count)
            latent, glance = world.engine.observe(latent, row["action"], world.free, draw, row)
        picture = pictures.pack(world.painter.observed(rows[world.engine.key][number]))
        view = self._view(latent, glance)
        return Moment(settings, None, view, screen=picture)

    # The timeline

    @property
    def now(self) -> Moment:
        return self.moments[self.cursor]

    def step(self) -> bool:
        """One step from the current moment; the moments after it are forgotten.

        Returns False where there is none: the game is over, or the timeline is full.
        """
        played = self.replay.pop(0) if self.replay else None
        if played:
            self._set_as(played)
            if played.action is None:
                return False
        now = self.now
        if self.cursor >= MAX_STEPS or (now.over and now.settings.where != "dream"):
            self.replay = []
            return False
        action = self._action() if played is None else played.action
        assert action is not None  # that of a last moment has returned
        following = self._following(now, action)
        self._forget_what_follows()
        self.moments.append(following)
        self.cursor += 1
        return True

    def follow(self, start: Start, played: list[Played]) -> None:
        """A new timeline that goes the way of a recorded one, step by step."""
        where = played[0].settings.where if played else None
        self.start(start, where)
        self.replay = list(played)

    def rewind(self, to: int) -> None:
        """Goes to a moment of the timeline, back or forth again; nothing is forgotten yet."""
        if to >= len(self.moments):
            raise SessionError(f"rewind to {to}: the timeline has {len(self.moments)} moments")
        self.replay = []
        self.cursor = to
        self._drop_env()

    def _following(self, now: Moment, action: np.ndarray) -> Moment:
        where = now.settings.where
        seen: np.ndarray | None = None
        following = now._replace(action=action, synced=False, reward=0.0)
        if where != "dream":
            following, seen = self._played_on(now, following, action)
        if where == "game":
            return following
        latent, glance = self._world.engine.imagine(
            _present(now.dream).latent, action, self._held(now.settings), self._draw(1)
        )
        dream = self._view(latent, glance)
        if where == "dream":
            return following._replace(dream=dream, score=now.score + glance.reward)
        both = _present(seen), _present(glance.seen)
        parting = now.parting.after(*map(self._world.painter.scaled, both))
        return following._replace(dream=dream, parting=parting)

    def _played_on(
        self, now: Moment, following: Moment, action: np.ndarray
    ) -> tuple[Moment, np.ndarray | None]:
        """`following` with one step of the game, and what the decoder makes of it."""
        obs = self._ready_env().step(action)
        held = self._held(now.settings) if now.settings.where == "game" else self._world.free
        latent, reward = _present(now.game).latent, float(obs["reward"])
        latent, glance = self._world.engine.observe(latent, action, held, self._draw(0), obs)
        following = following._replace(
            game=self._view(latent, glance),
            screen=self._screen(obs),
            reward=reward,
            score=now.score + reward,
            over=bool(obs["is_last"]),
        )
        return following, glance.seen

    def _action(self) -> np.ndarray:
        controls = self._world.controls
        if self.who == "policy":
            action = self.now.actor.glance.choice
        elif self.who == "you" and self.held_action is not None:
            action = self.held_action
        else:
            action = controls.nothing(self.now.action)
        return controls.vector(controls.plain(action))

    # What a person sets

    def take_over(self, who: str) -> None:
        """`who` acts from now on; what a link still has to do is dropped."""
        self.who, self.replay = who, []

    def change(self, **values: Any) -> None:
        """Changes `where`, `seed`, `temperature`, `likely` or `hold` at the current moment.

        What came after the moment is forgotten: it came about otherwise. Raises SessionError where
        there is no game to go to.
        """
        self.replay = []
        if "hold" in values:
            values["hold"] = tuple(sorted(dict(values["hold"]).items()))
        self._change(self.now.settings._replace(**values))

    def _change(self, settings: Settings) -> None:
        now, before = self.now, self.now.settings
        if settings == before:
            return
        if settings.where != "dream" and now.game is None:
            raise SessionError(
                self._world.game_problem
                or "the game cannot start from a stored moment: only its frames were stored"
            )
        self._forget_what_follows()
        moment = now._replace(settings=settings)
        # Only from "both" to "dream" does a dream go on that has begun.
        if settings.where != before.where and (before.where, settings.where) != ("both", "dream"):
            moment = moment if settings.where == "game" else _synced(moment)
        self.moments[self.cursor] = self._looked_again(moment)

    def sync(self) -> None:
        """Starts the dream again, from what the model sees of the game at this moment."""
        if self.now.game is None:
            raise SessionError("there is no game here to start the dream from")
        self.replay = []
        self._forget_what_follows()
        self.moments[self.cursor] = self._looked_again(_synced(self.now))

    def _looked_again(self, moment: Moment) -> Moment:
        """With held classes in the view that they count in, and in no other."""
        where, held, free = moment.settings.where, self._held(moment.settings), self._world.free
        game = self._looked(moment.game, held if where == "game" else free)
        return moment._replace(
            game=game, dream=self._looked(moment.dream, free if where == "game" else held)
        )

    def _looked(self, view: View | None, held: np.ndarray) -> View | None:
        if view is None:
            return None
        return self._view(view.latent, self._world.engine.look(view.latent, held))

    def _set_as(self, played: Played) -> None:
        self._change(played.settings)
        if played.synced and not self.now.synced:
            self.moments[self.cursor] = self._looked_again(_synced(self.now))

    def played(self) -> list[Played]:
        """The timeline up to the current moment, as a link carries it."""
        path = self.moments[: self.cursor + 1]
        actions = [*(moment.action for moment in path[1:]), None]
        return [
            Played(m.settings, m.synced, action) for m, action in zip(path, actions, strict=True)
        ]

    # Helpers

    def _forget_what_follows(self) -> None:
        del self.moments[self.cursor + 1 :]
        self.fresh_from = min(self.fresh_from, self.cursor)

    def _view(self, latent: Latent, glance: Glance) -> View:
        picture = self._world.painter.decoded(_present(glance.seen))
        return View(latent, glance._replace(seen=None), picture)

    def _held(self, settings: Settings) -> np.ndarray:
        held = self._world.free
        for variable, chosen in settings.hold:
            held[variable] = chosen
        return held

    def _draw(self, part: int) -> Draw:
        """For the step that leaves the current moment; game (0) and dream (1) draw apart."""
        settings, count = self.now.settings, 2 * (self.cursor + 1) + part
        return Draw(settings.seed, count, settings.temperature, settings.likely)

    def _screen(self, obs: dict[str, np.ndarray]) -> Packed:
        """The game's own screen, or where it draws none what the agent is given."""
        try:
            return pictures.pack(pictures.shrunk(self._ready_env().render()))
        except (ValueError, ImportError):
            return pictures.pack(self._world.painter.observed(obs[self._world.engine.key]))

    def _ready_env(self) -> Env:
        """The environment at the current moment: played anew after a rewind."""
        if self._env is None:
            self._env = self._world.env(self.origin.seed)
            self._env.reset()
            for before, moment in zip(
                self.moments, self.moments[1 : self.cursor + 1], strict=False
            ):
                if before.settings.where != "dream":
                    self._env.step(moment.action)
        return self._env

    def _drop_env(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None


def _synced(moment: Moment) -> Moment:
    return moment._replace(dream=moment.game, synced=True, parting=Parting())
