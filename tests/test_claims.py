"""Reports of several agents beside each other: cells by hand, and the command."""

import json
from pathlib import Path

import pytest

from dreamerv2 import latents
from dreamerv2.latent import claims

VARIABLES = ["ball_x", "bricks"]


def errors(linear, mlp):
    return {"linear": dict.fromkeys(VARIABLES, linear), "mlp": dict.fromkeys(VARIABLES, mlp)}


def report(features="default", **changes):
    """A report of an agent with two latent variables, as `latents` writes it."""
    run = {"task": "game", "features": features, "agent_steps": 12_000, "mean_return": 7.25}
    probed = {"discrete": errors(1.5, 0.5), "deter": errors(0.75, 0.25), "pixels": errors(0.1, 0.2)}
    probed["mean"] = {"mean": dict.fromkeys(VARIABLES, 2.0)}
    found = {
        "run": run,
        "usage": {"never_used_fraction": 0.75, "never_used_fraction_half": 0.8}
        | {"entropy_bits": [1.0, 2.0]},
        "sweep": {"invisible_fraction": 0.97, "board": {"unchanged_fraction": 0.9}},
        "interpolate": {
            "implausible_fraction": {"given": 0.2, "random": 0.3, "greedy": 0.1},
            "board": {
                k: {"allowed": 0.5} for k in ("real", "given", "random", "greedy", "shuffled")
            },
        },
        "probe": {"variables": VARIABLES, "errors": probed},
        "information": {
            "variables": VARIABLES,
            "bits": [[0.5, 0.0], [1.0, 0.3]],
            "entropy_bits": [4.0, 1.0],
        },
        "fix": {
            "loss": [0.5, 3.0],
            "loss_interval": [[-1, 2], [2, 4]],
            "p_adjusted": [0.6, 0.001],
            "all_fixed_mean": 0.25,
        },
    }
    return found | changes


def cells(reports):
    """Each row's cells by its label."""
    found = {}
    for text in claims.tables(reports):
        for line in text.splitlines()[4:]:
            label, *row = (cell.strip() for cell in line.strip("|").split("|"))
            found[label] = row
    return found


def test_every_number_of_a_report_is_in_its_cell():
    found = cells({"a": report(), "b": report("discrete")})
    assert found["policy, heads and decoder see"] == ["both parts", "discrete part"]
    assert found["return"][0] == "7.25"
    assert found["never on"][0] == "75 %"
    assert found["after half of the rows"][0] == "80 %"
    assert found["bits that a variable carries"][0] == "1.5"
    assert found["no pixel changes"][0] == "97 %"
    assert found["no cell changes"][0] == "90 %"
    assert found["less likely than 95 % of real latents, smallest change first"][0] == "10 %"
    assert found["allowed boards, real states"][0] == "50 %"
    assert found["ball_x, guessing"][0] == "2"
    assert found["ball_x, discrete part"][0] == "1.5, 0.5"
    assert found["bricks, memory"][0] == "0.75, 0.25"
    assert found["most about ball_x"][0] == "25 % (variable 1)"
    assert found["variables that cost points when fixed"][0] == "1 of 2"
    assert found["the most that one costs"][0] == "3 [2, 4] (variable 1)"
    assert found["return with all fixed"][0] == "0.25"


def test_what_a_report_lacks_is_a_dash_and_what_all_lack_is_no_row():
    lacking = {"unavailable": "no images"}
    bare = report(sweep=lacking, interpolate=lacking, probe=lacking, information=lacking)
    found = cells({"a": bare, "b": report()})
    assert found["no pixel changes"] == ["-", "97 %"]
    assert found["ball_x, memory"] == ["-", "0.75, 0.25"]
    alone = cells({"a": bare})
    assert "no pixel changes" not in alone and "never on" in alone
    assert not claims.drawn({"a": bare})


def test_the_command_writes_tables_and_a_picture(tmp_path, capsys):
    for name in ("full", "discretised"):
        (tmp_path / name / "latents").mkdir(parents=True)
        (tmp_path / name / "latents" / "report.json").write_text(json.dumps(report()))
    words = ["--compare", str(tmp_path / "full"), str(tmp_path / "discretised")]
    assert latents.main([*words, "--out", str(tmp_path / "both")]) == 0
    out = capsys.readouterr().out
    text = (tmp_path / "both" / "report.md").read_text()
    assert "| full " in out and "| discretised |" in text and " ".join(words) in text
    assert (tmp_path / "both" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert list(json.loads((tmp_path / "both" / "report.json").read_text())) == [
        "full",
        "discretised",
    ]


def test_a_run_counts_once_and_the_folder_at_hand_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "here" / "latents").mkdir(parents=True)
    (tmp_path / "here" / "latents" / "report.json").write_text(json.dumps(report()))
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert list(claims.read([Path("."), Path("../here")])) == ["here"]
    assert list(claims.read([Path("../link")])) == ["link"]


def test_a_variable_that_never_changes_has_a_dash_and_no_bar(tmp_path):
    constant = report()
    constant["information"]["entropy_bits"] = [4.0, 0.0]
    found = cells({"a": constant, "b": report()})
    assert found["most about bricks"] == ["-", "30 % (variable 1)"]
    constant["probe"]["errors"]["mean"]["mean"]["bricks"] = 0.0
    claims.draw(tmp_path / "a.png", {"a": constant})
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--compare {run}/none --out {run}/x", "python -m dreamerv2.latents --logdir {run}/none"),
        ("--compare {run}/broken --out {run}/x", "is no report of latents"),
        ("--compare {run}/full {run}/other --out {run}/x", "agents of one task, got game, maze"),
        ("--compare {run}/full", "--out is missing"),
        ("--compare {run}/full --out {run}/x --logdir {run}", "only --out goes with it"),
        ("", "--logdir is missing"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(words, message, tmp_path, capsys):
    other = report()
    other["run"] = other["run"] | {"task": "maze"}
    texts = {"full": json.dumps(report()), "other": json.dumps(other), "broken": "{}"}
    for name, text in texts.items():
        (tmp_path / name / "latents").mkdir(parents=True)
        (tmp_path / name / "latents" / "report.json").write_text(text)
    with pytest.raises(SystemExit) as error:
        latents.main(words.format(run=tmp_path).split())
    assert error.value.code == 2
    assert message.format(run=tmp_path) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "x").exists()


def test_an_agent_without_a_picture_has_no_bar_for_it(tmp_path):
    blind = report()
    del blind["probe"]["errors"]["pixels"]
    claims.write(tmp_path, {"a": report(), "b": blind}, "-")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert cells({"a": report(), "b": blind})["ball_x, what it sees"][1] == "-"


def test_a_run_of_any_name_has_its_place_in_the_legend(tmp_path):
    claims.draw(tmp_path / "report.png", {"$x^$": report(), "_b": report()})
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_returns_of_games_that_were_cut_say_so():
    cut = report()
    cut["run"] |= {"episodes": 10, "episodes_cut": 4}
    whole, part = cells({"a": report(), "b": cut})["return"]
    assert part == f"{whole} (4 of 10 cut)"
