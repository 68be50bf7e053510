"""Cells that runs have seen, counted by hand."""

import numpy as np
import pytest

from dreamerv2 import coverage as command
from dreamerv2.measure import coverage


def run(directory, episodes, behavior, repeat=1):
    """A logdir with episodes of a vector: one number a row, or a list of them."""
    (directory / "train_episodes").mkdir(parents=True)
    settings = f"task: gym_line\nexpl_behavior: {behavior}\naction_repeat: {repeat}\n"
    (directory / "config.yaml").write_text(settings)
    for number, rows in enumerate(episodes):
        vector = np.array(rows, np.float32).reshape(len(rows), -1)
        np.savez(directory / "train_episodes" / f"{number}.npz", vector=vector, reward=vector[:, 0])
    return directory


@pytest.mark.parametrize(
    ("vector", "repeat", "message"),
    [
        (np.full((3, 1), 1e300), 1, "1.npz: vector is 1e+300 in row 0"),
        (np.zeros((0, 1)), 1, "1.npz: vector is empty"),
        (np.zeros((3, 2)), 1, "episodes of gym_line hold vectors of sizes [1, 2]"),
        (np.zeros((3, 1), "i4,f4"), 1, "1.npz: damaged"),
        (np.zeros((3, 1)), 10**30, "action_repeat 1000000000000000000000000000000: expected"),
    ],
)
def test_an_episode_that_no_run_stores_is_one_line(tmp_path, capsys, vector, repeat, message):
    logdir = run(tmp_path / "a", [[0, 1]], "Random", repeat)
    np.savez(logdir / "train_episodes" / "1.npz", vector=vector)
    with pytest.raises(SystemExit) as exit:
        command.main(["--logdirs", str(logdir), "--out", str(tmp_path / "a.png")])
    assert exit.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_every_cell_counts_once_after_the_episode_that_entered_it(tmp_path):
    seen = coverage.read(run(tmp_path / "a", [[0, 1, 2, 1], [2, 3, 10]], "Random", 4), "vector")
    grid = coverage.make_grid([seen], cells=10)
    np.testing.assert_array_equal([*grid.low, *grid.high], [0, 10])
    np.testing.assert_array_equal(coverage.counts(seen, grid), [3, 5])
    np.testing.assert_array_equal(seen.frames, [12, 20])


def test_what_replay_has_deleted_shifts_the_rest_and_is_said(tmp_path, capsys):
    logdir = run(tmp_path / "a", [[0, 1, 2, 1], [2, 3, 10]], "Random", 4)
    rows = '{"step": 80, "train_total_steps": 20}\n{"step": 100, "train_total_steps": 25}\n'
    (logdir / "metrics.jsonl").write_text(rows + '{"step": 100, "train_return": 1}\n')
    seen = coverage.read(logdir, "vector")
    assert seen.start == 80
    np.testing.assert_array_equal(seen.frames, [92, 100])
    assert "the episodes of its first 80 env frames are no longer in replay" in (
        capsys.readouterr().err
    )
    (group,) = coverage._groups([seen], coverage.make_grid([seen], cells=10))
    np.testing.assert_array_equal(group.seen[0, [0, 39, 49]], [0, 0, 5])


def test_the_table_compares_behaviours_on_one_grid_as_far_as_all_have_come(tmp_path, capsys):
    logdirs = [
        run(tmp_path / f"{behavior}{seed}", [rows, rows], behavior)
        for behavior, rows in (("Random", [0, 1, 0]), ("Plan2Explore", [0, 5, 10]))
        for seed in range(3)
    ]
    logdirs.append(run(tmp_path / "longer", [[0, 5, 10], [0, 7, 10], [0, 1, 2]], "Plan2Explore"))
    out = tmp_path / "seen.png"
    names = [str(logdir) for logdir in logdirs]
    assert command.main(["--logdirs", *names, "--out", str(out), "--cells", "10"]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:4]]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0] == ["gym_line", "Random", "3", "4", "2 [2, 2]"]
    assert cells[1][:4] == ["gym_line", "Plan2Explore", "4", "4"]
    assert cells[1][4].startswith("3.25 [3, ")
    assert out.stat().st_size > 5000


def test_bounds_set_the_grid_and_what_lies_outside_counts_for_its_edge(tmp_path):
    seen = coverage.read(run(tmp_path / "a", [[-3, 0.1, 0.9, 5, 9]], "Random"), "vector")
    grid = coverage.make_grid([seen], cells=4, bounds=(0, 4))
    np.testing.assert_array_equal(grid.of(seen.rows[0])[:, 0], [0, 0, 0, 3, 3])
    np.testing.assert_array_equal(coverage.counts(seen, grid), [2])
    narrow = coverage.make_grid([seen], cells=1000, bounds=(0, 1e-6))
    np.testing.assert_array_equal(narrow.of(np.array([[-1e15], [1e15]]))[:, 0], [0, 999])


def test_the_map_shows_where_a_run_was_until_an_env_frame(tmp_path):
    episodes = [[[0, 0], [0, 1]], [[2, 0], [2, 2]]]
    seen = coverage.read(run(tmp_path / "a", episodes, "Random"), "vector")
    grid = coverage.make_grid([seen], cells=3)
    expected = np.zeros((3, 3))
    expected[0, :2] = 1
    np.testing.assert_array_equal(coverage.visited(seen, grid, end=1), expected)
    expected[2, [0, 2]] = 1
    np.testing.assert_array_equal(coverage.visited(seen, grid, end=2), expected)


def test_shares_are_of_the_cells_that_there_are(tmp_path, capsys):
    names = [str(run(tmp_path / f"{i}", [[[0, 0], [0, i]]], "Random")) for i in range(3)]
    out = str(tmp_path / "seen.png")
    flags = ["--out", out, "--cells", "3", "--bounds", "0", "3", "--of", "8"]
    assert command.main(["--logdirs", *names, *flags]) == 0
    mean = (1 + 2 + 2) / 3 / 8
    assert f"{100 * mean:.3g} [12.5, 25] % of 8 cells" in capsys.readouterr().out


def test_a_run_named_twice_counts_once(tmp_path, capsys):
    logdir = run(tmp_path / "a", [[0, 1], [2, 3]], "Random")
    out = ["--out", str(tmp_path / "a.png")]
    assert command.main(["--logdirs", str(logdir), f"{logdir}/../a", *out]) == 0
    assert "| Random | 1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--bounds", "2", "1"], "--bounds 2 1: expected the lower number first"),
        (["--bounds", "0", "inf"], "--bounds 0 inf: expected numbers up to 1e+15"),
        (["--cells", "1001"], "--cells: got 1001, expected a whole number from 2 to 1000"),
        (["--of", "1"], "--of 1: a run of gym_line has seen 2 cells"),
        (["--of", "-1"], "--of: got -1, expected a whole number from 0 on"),
        (["--key", "position"], "--key position: "),
        (["--cells", "1"], "--cells: got 1, expected a whole number from 2 on"),
        (["--out", "seen.gif"], "--out seen.gif: expected a name that ends in"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, flags, message):
    logdir = run(tmp_path / "a", [[0, 1]], "Random")
    out = [] if "--out" in flags else ["--out", str(tmp_path / "seen.png")]
    with pytest.raises(SystemExit) as exit:
        command.main(["--logdirs", str(logdir), *out, *flags])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and message in error


def test_a_logdir_without_episodes_is_said(tmp_path):
    with pytest.raises(ValueError, match="expected a run with episodes, found none"):
        coverage.read(run(tmp_path / "a", [], "Random"), "vector")


@pytest.mark.parametrize("content", [b"", b"PK", b"not an episode", "half", "nan"])
def test_an_episode_that_is_damaged_is_named(tmp_path, content):
    logdir = run(tmp_path / "a", [[0, 1], [float("nan")] if content == "nan" else [2]], "Random")
    path = logdir / "train_episodes" / "1.npz"
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    if content != "nan":
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1\.npz: (damaged|vector is nan in row 0)"):
        coverage.read(logdir, "vector")


def test_a_configuration_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config.yaml: action_repeat \[\]: expected a whole"):
        coverage.read(run(tmp_path / "a", [[0, 1]], "Random", repeat="[]"), "vector")
