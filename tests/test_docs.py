"""The site that `make docs` builds leaves out no page, and its reference names what exists."""

import ast
import re

from common.config import load_yaml


def test_the_site_has_every_page_once(project):
    entries = load_yaml(project / "mkdocs.yml")["nav"]
    pages = [page for entry in entries for page in entry.values()]
    assert sorted(pages) == sorted(path.name for path in project.glob("docs/*.md"))


def test_the_reference_names_modules_and_classes_that_exist(project):
    text = (project / "docs" / "reference.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(names) > 20
    for name in names:
        path = project.joinpath(*name.split("."))
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            continue
        module, _, member = name.rpartition(".")
        tree = ast.parse((project / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        assert member in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, name
