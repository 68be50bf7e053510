"""The notebook in docs/ runs from its first cell to its last."""

import os

import pytest


@pytest.mark.slow
def test_the_tour_runs_and_shows_its_pictures(project, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="the extra docs")
    nbclient = pytest.importorskip("nbclient", reason="the extra docs")
    pytest.importorskip("pygame", reason="CartPole draws with pygame")
    notebook = nbformat.read(project / "docs" / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    (training,) = (cell for cell in notebook.cells if "make_config" in cell.source)
    # Whether CartPole is learned is for `make learn`; here the cells have to run.
    training.source = training.source.replace('["vector"]', '["vector", "debug"]')
    training.source = training.source.replace("2_500", "250")
    monkeypatch.setenv("PYTHONPATH", str(project) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1200, resources=resources).execute()
    shown = [
        set(out.data) for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out
    ]
    assert sum("image/gif" in kinds for kinds in shown) == 1
    assert sum("image/png" in kinds for kinds in shown) == 3
    printed = "".join(
        out.text for cell in notebook.cells for out in cell.get("outputs", ()) if "text" in out
    )
    assert "\nDone: 250 agent steps, " in printed and "\r" not in printed
    assert (tmp_path / "runs/tour/tour.gif").stat().st_size > 1000
