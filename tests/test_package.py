"""An install that resolves the same tomorrow, and a package that is small enough to ship."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


def test_every_dependency_is_pinned_to_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert extras.keys() == {"hub", "gpu", "vllm", "eval", "cluster", "postgres", "dev"}
    every_extra = [name for extra in extras.values() for name in extra]
    wanted = [*project["project"]["dependencies"], *every_extra, *project["build-system"]["requires"]]
    names = [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in wanted]  # type: ignore[index]
    pinned = pins()
    for name in names:
        if name == "vllm":  # each of its versions asks for one torch, and none was installed beside ours
            continue
        assert name.lower().replace("_", "-") in pinned, f"{name} is not in constraints.txt"
    assert pinned["torch"] == "2.13.0"
    for name in ("torch", "transformers", "xllamacpp", "peft"):
        assert version(name).split("+")[0] == pinned[name]


def test_what_an_extra_needs_is_not_needed_by_all() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    assert not set(extras) & set(project["dependencies"])
    assert {"bitsandbytes", "ray[default]", "psycopg[binary]"} <= set(extras)
    (install,) = re.findall(r"pip install .*--editable \.$", (ROOT / "Makefile").read_text(), re.M)
    assert "[" not in install


def test_the_embedded_base_is_at_most_sixteen_megabytes() -> None:
    base = ROOT / "src" / "nomoat" / "assets" / "base"
    assert sum(path.stat().st_size for path in base.iterdir()) <= 16_000_000


def test_the_readme_names_the_two_commands_and_only_files_that_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
    for target in re.findall(r"\]\(([\w./-]+)\)", readme):
        assert (ROOT / target).exists(), target
