"""A session on the model: what is dreamed, held, rewound, and told by a link."""

import base64
import json
import pickle
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import saved
import tensorflow as tf
import tiny

from common.data.spaces import OneHot
from common.envs.minatar import CELL, MinAtar
from common.nn.draws import Draws
from dreamerv2.dream import frame, link, messages, pictures, world
from dreamerv2.dream.controls import controls
from dreamerv2.dream.engine import FREE, Draw, Engine
from dreamerv2.dream.parting import IN_A_ROW, MOST_PIXELS, Parting
from dreamerv2.dream.session import Session, SessionError
from dreamerv2.dream.world import Start
from dreamerv2.run import restore

RIGHT, LEFT = 2, 3  # of Breakout's NOOP, FIRE, RIGHT, LEFT


@pytest.fixture(scope="module")
def breakout(tmp_path_factory):
    """A tiny agent on Breakout, whose episodes end after 30 agent steps."""
    logdir = tmp_path_factory.mktemp("breakout")
    saved.save(logdir)
    return world.load(restore.read(logdir), logdir)


@pytest.fixture
def session(breakout):
    session = Session(breakout)
    yield session
    session.close()


def run(session, steps, action=None):
    """Steps, and the pictures that were seen."""
    session.held_action = action
    seen = []
    for _ in range(steps):
        assert session.step()
        seen.append(session.now.view.picture)
    return seen


def act(index):
    return np.eye(4, dtype=np.float32)[index]


# The networks


@pytest.mark.parametrize("discrete", [3, False])
def test_a_step_of_the_dream_is_the_model_s_own(discrete):
    agent = tiny.agent({"image": tiny.IMAGE}, rssm__discrete=discrete, decoder__mlp_keys="$^")
    engine, rssm = Engine(agent), agent.wm.rssm
    free = np.full(engine.variables, FREE, np.int32)
    obs = {"image": np.full((64, 64, 1), 90, np.uint8), "is_first": np.bool_(True)}
    latent, _ = engine.observe(engine.initial(), act(0), free, Draw(3, 0, likely=True), obs)
    after, glance = engine.imagine(latent, act(1), free, Draw(3, 1, likely=True))
    stoch = tf.one_hot(latent.drawn, 3) if discrete else latent.drawn
    before = {"stoch": tf.convert_to_tensor(stoch)[None], "deter": latent.deter[None]}
    state = rssm.img_step(before, act(1)[None], Draws([0, 0]))
    np.testing.assert_allclose(after.deter, state["deter"][0], atol=1e-6)
    if discrete:
        probs = tf.nn.softmax(state["logit"])[0]
        np.testing.assert_allclose(after.stats, probs, atol=1e-6)
        np.testing.assert_array_equal(after.drawn, np.argmax(probs, -1))
        state["stoch"] = tf.one_hot(after.drawn, 3)[None]
    else:
        np.testing.assert_allclose(after.stats, [state["mean"][0], state["std"][0]], atol=1e-6)
        state["stoch"] = state["mean"]
    feat = agent.wm.feat(state)
    np.testing.assert_allclose(glance.seen, agent.wm.decoder(feat)["image"].mode()[0], atol=1e-5)
    np.testing.assert_allclose(glance.value, agent.behavior.critic(feat).mode()[0], atol=1e-5)
    np.testing.assert_allclose(glance.reward, agent.wm.reward(feat)[0], atol=1e-5)
    np.testing.assert_allclose(glance.discount, agent.wm.heads["discount"](feat).mean()[0], 1e-4)
    np.testing.assert_allclose(glance.policy, agent.behavior.actor(feat, None).probs[0], 1e-4)


def test_classes_are_drawn_as_often_as_they_are_probable(breakout):
    """1000 draws: a frequency is off by more than 0.06 once in 5,000."""
    engine = breakout.engine
    latent = engine.initial()
    for temperature in (1.0, 3.0):
        counts = np.zeros(engine.stoch_shape)
        for count in range(1000):
            after, _ = engine.imagine(latent, act(0), breakout.free, Draw(1, count, temperature))
            counts[np.arange(len(counts)), after.drawn] += 1
        np.testing.assert_allclose(counts / 1000, after.stats, atol=0.06)
        if temperature == 1:
            cold = after.stats
    hot = np.log(after.stats)
    expected = np.log(cold) / 3
    np.testing.assert_allclose(
        hot - hot.mean(-1, keepdims=True), expected - expected.mean(-1, keepdims=True), atol=1e-4
    )


def test_an_agent_whose_model_predicts_no_observation_is_refused(tmp_path):
    saved.save(tmp_path, task="gym_CartPole-v1", decoder__mlp_keys="$^")
    with pytest.raises(ValueError, match="predicts no observation"):
        world.load(restore.read(tmp_path), tmp_path)


# The game


def test_the_policy_plays_the_game_as_the_agent_does(breakout, session):
    """With the modes of the latents, so that no draw counts."""
    session.who = "policy"
    session.change(where="game", likely=True)
    wm, actor = breakout.agent.wm, breakout.agent.behavior.actor
    latent, action = breakout.agent.initial_policy_state(1)
    drawn = session.now.game.latent.drawn  # of the reset, before modes were asked for
    env, actions = breakout.env(0), []
    obs = env.reset()
    while not obs["is_last"]:
        embed = wm.encoder(wm.normalize({"image": tf.constant(obs["image"][None])}))
        first = tf.constant([obs["is_first"]])
        latent = wm.rssm.obs_step(latent, action, embed, first, Draws([0, 0]))
        modes = np.argmax(latent["logit"][0], -1) if actions else drawn
        latent["stoch"] = tf.one_hot(modes, 3)[None]
        action = actor(wm.feat(latent), None).mode()
        actions.append(int(np.argmax(action)))
        obs = env.step(action.numpy()[0])
    env.close()
    run(session, len(actions))
    assert [int(m.action.argmax()) for m in session.moments[1:]] == actions
    assert session.now.over and not session.step()


def test_the_true_screen_is_the_game_s(breakout, session):
    session.change(where="game")
    run(session, 5, act(RIGHT))
    env = breakout.env(0)
    env.reset()
    for _ in range(5):
        env.step(act(RIGHT))
    np.testing.assert_array_equal(session.now.screen.unpacked(), env.render())
    env.close()


def test_the_game_goes_on_where_it_was_left_after_a_dream_and_a_rewind(breakout, session):
    session.change(where="game")
    run(session, 3, act(RIGHT))
    session.change(where="dream")
    run(session, 4, act(LEFT))
    session.rewind(5)
    session.change(where="game")
    run(session, 2, act(LEFT))
    env = breakout.env(0)
    env.reset()
    for action in (RIGHT, RIGHT, RIGHT, LEFT, LEFT):
        env.step(act(action))
    np.testing.assert_array_equal(session.now.screen.unpacked(), env.render())
    env.close()


# The timeline


def test_rewinding_gives_the_same_pictures_and_other_actions_give_others(session):
    seen = run(session, 8, act(RIGHT))
    session.rewind(3)
    np.testing.assert_array_equal(session.now.view.picture, seen[2])
    again = run(session, 5, act(RIGHT))
    np.testing.assert_array_equal(again, seen[3:])
    session.rewind(3)
    other = run(session, 5, act(LEFT))
    assert (np.asarray(other) != np.asarray(seen[3:])).any()


def test_other_luck_changes_what_follows_and_not_what_was(session):
    seen = run(session, 6, act(RIGHT))
    session.rewind(3)
    session.change(seed=1)
    np.testing.assert_array_equal(session.now.view.picture, seen[2])
    assert len(session.moments) == 4
    drawn = [m.dream.latent.drawn for m in session.moments]
    run(session, 3, act(RIGHT))
    np.testing.assert_array_equal([m.dream.latent.drawn for m in session.moments[:4]], drawn)
    assert (np.asarray(run(session, 3, act(RIGHT))) != np.asarray(seen[3:])).any()


def test_two_sessions_do_not_disturb_each_other(breakout, session):
    alone = run(session, 6, act(RIGHT))
    first, second = Session(breakout), Session(breakout)
    second.change(hold=[(0, 1)])
    seen = []
    for _ in range(6):
        seen += run(first, 1, act(RIGHT))
        run(second, 1, act(LEFT))
    np.testing.assert_array_equal(seen, alone)
    first.close()
    second.close()


def test_a_step_of_game_and_dream_is_kept_in_little_memory(session):
    """In bytes two gray pictures, two latents and the game's screen; no picture as floats."""
    session.change(where="both")
    run(session, 3, act(RIGHT))
    session.change(hold=[(0, 1)])
    moment = session.now
    assert moment.game.picture.nbytes == moment.dream.picture.nbytes == 64 * 64
    rest = len(moment.screen.data) + 2 * 64 * 64
    assert len(pickle.dumps(moment)) < rest + 6000


def test_a_full_timeline_stops_and_says_so(session, monkeypatch):
    monkeypatch.setattr("dreamerv2.dream.session.MAX_STEPS", 4)
    run(session, 4)
    assert not session.step() and session.cursor == 4
    session.rewind(2)
    assert session.step()


def test_nobody_does_nothing_and_the_policy_does_what_it_prefers(session):
    session.who, session.held_action = "nobody", act(RIGHT)
    session.step()
    assert session.now.action.argmax() == 0
    session.who = "policy"
    best = session.now.dream.glance.policy.argmax()
    session.step()
    assert session.now.action.argmax() == best


# Holding classes


def test_a_held_class_counts_at_once_and_in_every_step_until_it_is_let_go(breakout, session):
    run(session, 2, act(RIGHT))
    before = session.now.dream
    for chosen in range(3):
        session.change(hold=[(1, chosen)])
        drawn = before.latent.drawn.copy()
        drawn[1] = chosen
        expected = breakout.engine.look(before.latent._replace(drawn=drawn), breakout.free)
        picture = breakout.painter.decoded(expected.seen)
        np.testing.assert_array_equal(session.now.dream.picture, picture)
        assert session.now.dream.glance.value == expected.value
        np.testing.assert_array_equal(session.now.dream.glance.policy, expected.policy)
    free, _ = breakout.engine.imagine(
        before.latent._replace(drawn=drawn), act(RIGHT), breakout.free, Draw(0, 7)
    )
    session.step()
    np.testing.assert_array_equal(session.now.dream.latent.deter, free.deter)
    session.change(hold=[])
    session.rewind(2)
    session.change(hold=[])
    np.testing.assert_array_equal(session.now.dream.picture, before.picture)


def test_beside_the_game_classes_are_held_in_the_dream_alone(session):
    session.change(where="both")
    truth = session.now.game
    session.change(hold=[(0, 2), (1, 2), (2, 2)])
    np.testing.assert_array_equal(session.now.game.picture, truth.picture)
    assert session.now.game.glance.value == truth.glance.value
    assert session.now.dream.glance.value != truth.glance.value
    session.change(where="game")
    assert session.now.game.glance.value != truth.glance.value


# Both side by side


def test_the_dream_beside_the_game_starts_from_it_and_takes_its_actions(breakout, session):
    session.change(where="game")
    run(session, 3, act(RIGHT))
    session.change(where="both")
    assert session.now.dream is not None and session.now.parting == Parting()
    np.testing.assert_array_equal(session.now.dream.picture, session.now.game.picture)
    start = session.now.game.latent
    run(session, 1, act(LEFT))
    expected, _ = breakout.engine.imagine(start, act(LEFT), breakout.free, Draw(0, 2 * 4 + 1))
    np.testing.assert_array_equal(session.now.dream.latent.deter, expected.deter)
    assert session.now.parting.steps == 1
    session.sync()
    np.testing.assert_array_equal(session.now.dream.latent.deter, session.now.game.latent.deter)
    assert session.now.parting.steps == 0


def test_they_part_at_the_first_of_several_steps_in_a_row_that_differ():
    game = np.zeros((64, 64, 1), np.float32)
    same, few, many = game.copy(), game.copy(), game.copy()
    few[0, :MOST_PIXELS] = 1
    many[0, : MOST_PIXELS + 1] = 0.3
    parting = Parting()
    for dream in [same, few, many, many, same, few]:
        parting = parting.after(game, dream)
    assert parting.steps == 6 and parting.parted_after is None
    for _ in range(IN_A_ROW):
        assert parting.parted_after is None
        parting = parting.after(game, many)
    assert parting.parted_after == 6
    assert parting.after(game, same).parted_after == 6
    assert Parting().after(np.zeros(4), np.array([0, 0.2, 0.26, 0])).differing == 1


# Starts


def store(logdir, key="image", rows=12, shape=(64, 64, 1)):
    directory = logdir / "eval_episodes"
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    episode = {
        key: rng.integers(0, 256, (rows, *shape), np.uint8),
        "action": np.eye(4, dtype=np.float32)[rng.integers(0, 4, rows)],
        "is_first": np.arange(rows) == 0,
    }
    name = f"20261125T201224-abc123-{rows - 1}"
    np.savez(directory / f"{name}.npz", **episode)
    return f"eval_episodes/{name}", episode


def test_a_stored_moment_is_what_the_model_makes_of_the_rows_before_it(tmp_path):
    saved.save(tmp_path)
    name, episode = store(tmp_path)
    page = world.load(restore.read(tmp_path), tmp_path)
    session = Session(page)
    session.change(likely=True)
    session.start(Start(0, name, 7))
    agent = page.agent
    data = agent.wm.normalize({"image": tf.constant(episode["image"][None, :8])})
    embed = agent.wm.encoder(data)
    first = tf.constant([[True] + [False] * 7])
    action = tf.constant(episode["action"][None, :8])
    deter = session.now.dream.latent.deter
    assert deter.shape == (8,) and session.now.settings.where == "dream"
    # Deterministic parts agree where no draw has come in: after one row.
    session.start(Start(0, name, 0))
    post, _ = agent.wm.rssm.observe(embed[:, :1], action[:, :1], first[:, :1], None, Draws([0, 0]))
    np.testing.assert_allclose(session.now.dream.latent.deter, post["deter"][0, 0], atol=1e-6)
    stats = tf.nn.softmax(post["logit"][0, 0])
    np.testing.assert_allclose(session.now.dream.latent.stats, stats, atol=1e-5)
    np.testing.assert_array_equal(session.now.screen.unpacked(), episode["image"][0])
    with pytest.raises(SessionError, match="cannot start from a stored moment"):
        session.change(where="game")
    with pytest.raises(SessionError, match="row 12: this episode has 12"):
        session.start(Start(0, name, 12))
    with pytest.raises(SessionError, match="not there"):
        session.start(Start(0, "eval_episodes/../../etc/passwd", 0))
    session.close()


def test_an_episode_of_another_task_or_a_damaged_one_is_refused(tmp_path):
    saved.save(tmp_path)
    name, _ = store(tmp_path, shape=(32, 32, 1))
    page = world.load(restore.read(tmp_path), tmp_path)
    with pytest.raises(ValueError, match="image is not what this agent sees"):
        page.episodes.read(name)
    (tmp_path / f"{name}.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        page.episodes.read(name)


def test_vectors_have_their_scale_though_the_newest_episode_is_damaged(tmp_path):
    saved.save(tmp_path, task="gym_CartPole-v1")
    (tmp_path / "eval_episodes").mkdir()
    (tmp_path / "eval_episodes" / "20261125T201224-abc123-11.npz").touch()
    world.load(restore.read(tmp_path), tmp_path)


def test_without_the_game_there_are_the_stored_moments_or_one_line(tmp_path, monkeypatch):
    def no_game(self, seed):
        raise ValueError("task 'mine': no such game")

    saved.save(tmp_path)
    monkeypatch.setattr(restore.Saved, "env", no_game)
    with pytest.raises(ValueError, match="no such game"):
        world.load(restore.read(tmp_path), tmp_path)
    name, _ = store(tmp_path)
    session = Session(world.load(restore.read(tmp_path), tmp_path))
    assert session.origin.episode == name and session.now.settings.where == "dream"
    run(session, 2, act(RIGHT))
    with pytest.raises(SessionError, match="no such game"):
        session.start(Start(seed=1))
    with pytest.raises(SessionError, match="no such game"):
        session.change(where="both")
    assert session.cursor == 2
    session.close()


# Links


def test_a_link_leads_to_the_same_pictures_through_all_that_was_done(breakout, session):
    session.change(where="both")
    run(session, 3, act(RIGHT))
    session.sync()
    run(session, 2, act(LEFT))
    session.change(hold=[(2, 1)], temperature=2.0)
    run(session, 2, act(LEFT))
    session.change(where="dream", hold=[(0, 0), (2, 1)], seed=5, likely=True)
    run(session, 3, act(RIGHT))
    session.change(where="game")
    run(session, 1, act(RIGHT))
    session.change(hold=[(1, 1)])
    text = link.encode(breakout, session.origin, session.played())
    other = Session(breakout)
    found = link.decode(breakout, text)
    other.follow(found.start, found.played)
    assert found.note is None
    while other.step():
        pass
    assert other.cursor == session.cursor == 11 and not other.replay
    for mine, theirs in zip(session.moments, other.moments, strict=True):
        assert mine.settings == theirs.settings
        for name in ("game", "dream"):
            a, b = getattr(mine, name), getattr(theirs, name)
            np.testing.assert_array_equal(a.picture, b.picture)
            np.testing.assert_array_equal(a.latent.drawn, b.latent.drawn)
    other.close()


def test_who_takes_over_a_recorded_timeline_goes_on_from_there(breakout, session):
    run(session, 5, act(RIGHT))
    played = session.played()
    other = Session(breakout)
    other.follow(session.origin, played)
    run(other, 2)
    assert other.now.action.argmax() == RIGHT
    other.take_over("you")
    run(other, 1, act(LEFT))
    assert not other.replay and other.cursor == 3 and other.now.action.argmax() == LEFT
    other.follow(session.origin, played)
    run(other, 2)
    other.change(temperature=2.0)
    assert not other.replay
    other.close()


def test_a_long_timeline_is_a_short_link(breakout, session):
    run(session, 200, act(RIGHT))
    assert len(link.encode(breakout, session.origin, session.played())) < 400


NESTED = base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode()


@pytest.mark.parametrize(
    "text", ["", "abc", "A" * 60_000, "eJwrzgYAAgABAA", "ä" * 10, "eJw%20 .", "/play?x=1", NESTED]
)
def test_a_link_that_is_none_of_ours_is_one_line_and_no_broken_message(breakout, text):
    message = json.dumps({"type": "follow", "link": text})
    kind, values = messages.Messages(breakout).read(message)
    assert kind == "follow"
    with pytest.raises(ValueError, match="not one of this page's"):
        link.decode(breakout, values["link"])


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [[1, 7, {}]]},
        {"steps": [[10**9, 0, {}]]},
        {"steps": [[1, 0, {"hold": [[9, 0]]}]]},
        {"steps": [[1, 0, {"where": "nowhere"}]]},
        {"steps": [[1, 0, {"temperature": 0}]]},
        {"start": {"seed": 0, "episode": "../x", "row": 0}},
        {"v": 2},
        {"steps": [[1, 0, ["where"]]]},
        {"start": "here"},
    ],
)
def test_a_link_that_asks_for_what_there_is_not_is_refused(breakout, session, change):
    text = link.encode(breakout, session.origin, session.played())
    data = json.loads(zlib.decompress(base64.urlsafe_b64decode(text + "==")))
    packed = zlib.compress(json.dumps(data | change).encode())
    with pytest.raises(ValueError, match="not one of this page's"):
        link.decode(breakout, base64.urlsafe_b64encode(packed).decode().rstrip("="))


def test_a_link_of_another_agent_says_so(breakout, session):
    text = link.encode(breakout, session.origin, session.played())
    later = breakout._replace(saved=breakout.saved._replace(agent_steps=500))
    assert (
        "made with the agent of step 100; here is that of step 500" in link.decode(later, text).note
    )


# Messages and frames


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object with a type"),
        ('{"type": "fly"}', "unknown type 'fly'"),
        ('{"type": "act", "action": 4}', "act: action is 4, expected None or a whole number"),
        ('{"type": "act", "action": true}', "act: action is true"),
        ('{"type": "act"}', "act: expected action"),
        ('{"type": "step", "more": 1}', "step: expected nothing else"),
        ('{"type": "speed", "speed": NaN}', "speed: speed is NaN"),
        ('{"type": "speed", "speed": 1e99}', "speed: speed is 1e"),
        ('{"type": "hold", "hold": [[3, 0]]}', "hold: hold is"),
        ('{"type": "hold", "hold": [[0, -1]]}', "hold: hold is"),
        ('{"type": "rewind", "to": 1e400}', "rewind: to is"),
        ('{"type": "episode", "episode": "../../x", "row": 0}', "episode: episode is"),
        ('{"type": "save", "format": "exe", "steps": 9}', "save: format is"),
        ('{"type": "follow", "link": 7}', "follow: link is 7, expected a string"),
    ],
)
def test_a_message_that_no_page_sends_is_named(breakout, text, problem):
    with pytest.raises(messages.MessageError) as error:
        messages.Messages(breakout).read(text)
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_every_message_that_the_page_can_send_has_its_reader():
    connection = pytest.importorskip("dreamerv2.dream.connection", reason="needs the extra dream")
    page = Path(world.__file__).parent / "page" / "app.js"
    sent = set(re.findall(r'send\("(\w+)"', page.read_text(encoding="utf-8")))
    known = {
        name.removeprefix("_on_") for name in dir(connection.Connection) if name.startswith("_on_")
    }
    assert sent <= known and {"hold", "rewind", "seen", "follow"} <= sent


def test_a_frame_has_only_the_points_that_are_new(session):
    run(session, 5, act(RIGHT))
    header, arrays = frame.describe(session)
    assert [point[0] for point in header["points"]] == [0, 1, 2, 3, 4, 5]
    run(session, 1, act(RIGHT))
    assert [point[0] for point in frame.describe(session)[0]["points"]] == [5, 6]
    session.rewind(2)
    run(session, 1, act(LEFT))
    header, arrays = frame.describe(session)
    assert header["changed"] == 2 and [point[0] for point in header["points"]] == [2, 3]
    data = frame.encode(header, arrays)
    assert data.endswith(arrays["drawn"].tobytes()) and len(data) < 20_000


def test_numbers_that_are_none_do_not_break_a_frame(session):
    view = session.now.dream
    glance = view.glance._replace(value=float("nan"), reward=float("inf"))
    broken = {"reward": float("nan"), "score": float("-inf")}
    session.moments[0] = session.now._replace(dream=view._replace(glance=glance), **broken)
    header, arrays = frame.describe(session)
    assert b"NaN" not in frame.encode(header, arrays) and header["view"]["value"] is None


# Controls and pictures


def test_keys_mean_what_the_actions_are_called():
    names = ("NOOP", "FIRE", "UP", "UPRIGHT", "DOWNLEFTFIRE")
    found = controls(OneHot(5), names)
    assert found.buttons == ((), ("FIRE",), ("UP",), ("UP", "RIGHT"), ("DOWN", "LEFT", "FIRE"))
    assert found.nothing(None).argmax() == 0
    cart = controls(OneHot(2), None)
    assert cart.buttons == (("LEFT",), ("RIGHT",)) and cart.idle is None
    np.testing.assert_array_equal(cart.nothing(cart.vector(1)), cart.vector(1))
    pendulum = controls(tiny.ACTION, None)
    assert not pendulum.discrete and pendulum.size == 2
    np.testing.assert_array_equal(pendulum.nothing(None), [0, 0])
    vector = pendulum.vector(pendulum.plain(np.array([0.12345, -1], np.float32)))
    np.testing.assert_allclose(vector, [0.123, -1])


def test_vectors_are_bars_on_the_scale_of_what_was_seen():
    rows = np.array([[0, -1, 5], [10, 1, 5]], np.float32)
    painter = pictures.Painter(limits=pictures.vector_limits(rows))
    low, high = painter.decoded(rows[0]), painter.decoded(rows[1])
    assert low.shape == (64, 64, 3)
    blue = [(p == pictures.paint.BLUE).all(-1)[10].sum() for p in (low, high)]
    assert blue[0] < 4 and blue[1] == 64
    np.testing.assert_allclose(painter.scaled(rows[1])[:2], 1)


def test_minatar_s_board_has_the_game_s_colours():
    pytest.importorskip("minatar")
    env = MinAtar("breakout", seed=3)
    obs = env.reset()
    painter = pictures.Painter(board=(10, 10, 4))
    np.testing.assert_array_equal(painter.decoded(obs["vector"]), env.render()[::CELL, ::CELL])
    assert Parting().after(painter.scaled(obs["vector"]), painter.scaled(obs["vector"] * 0.6)) == (
        Parting(steps=1)
    )
    assert Parting().after(painter.scaled(obs["vector"]), 0 * obs["vector"]).differing > 1
    half = painter.decoded(obs["vector"] / 2)
    assert (half != painter.decoded(obs["vector"])).any()


def test_a_clip_has_every_picture_in_its_own_pixels(session, monkeypatch):
    session.change(where="both")
    run(session, 6, act(RIGHT))
    frames = pictures.clip_frames(frame.clip(session, 4))
    assert len(frames) == 5
    for shown, moment in zip(frames, session.moments[2:], strict=True):
        screen, dream = moment.screen.unpacked(), moment.dream.picture
        width = round(160 * 256 / 210)
        part = shown[:256, width + 8 : width + 8 + 256]
        np.testing.assert_array_equal(part[::4, ::4], np.repeat(dream, 3, -1))
        assert (shown[:256, :width][0] == screen[0][np.arange(width) * 160 // width]).all()
    gif = pictures.encode_clip(frames, "gif", 15, "note")
    assert gif[:4] == b"GIF8" and b"note" in gif
    monkeypatch.setattr("common.log.video.choose_palette", None)  # a film has no use for one
    assert b"ftyp" in pictures.encode_clip(frames, "mp4", 15, "note")[:16]


@pytest.mark.parametrize("discrete", [3, False])
def test_continuous_actions_and_gaussian_latents_can_be_played(tmp_path, discrete):
    saved.save(tmp_path, task="gym_Pendulum-v1", rssm__discrete=discrete)
    page = world.load(restore.read(tmp_path), tmp_path)
    session = Session(page)
    session.change(where="both")
    session.held_action = np.array([0.5], np.float32)
    for _ in range(3):
        assert session.step()
    header, arrays = frame.describe(session)
    assert header["action"] == [0.5] and ("probs" in arrays) == bool(discrete)
    found = link.decode(page, link.encode(page, session.origin, session.played()))
    np.testing.assert_array_equal(found.played[0].action, [0.5])
    # The mode of an unbounded policy may lie beyond what the environment takes.
    beyond = [step._replace(action=np.array([1.7], np.float32)) for step in session.played()]
    found = link.decode(page, link.encode(page, session.origin, beyond))
    np.testing.assert_array_equal(found.played[0].action, [1])
    session.close()
