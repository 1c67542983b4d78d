"""Files that say the same thing say it alike."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def read(name):
    return (ROOT / name).read_text("utf-8")


def test_one_version_and_one_address():
    (version,) = re.findall(r'^version = "(.*)"', read("pyproject.toml"), re.M)
    (address,) = re.findall(r'^repository = "(.*)"', read("pyproject.toml"), re.M)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == version and citation["repository-code"] == address
    assert citation["license"] == "MIT" and "MIT License" in read("LICENSE")
    assert f"## {version}" in read("CHANGELOG.md")


def test_a_commit_is_checked_by_the_tested_ruff():
    (version,) = re.findall(r"^ruff==(.*)$", read("constraints.txt"), re.M)
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["rev"] == f"v{version}"


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_and_templates_can_be_read(path):
    content = yaml.safe_load(path.read_text("utf-8"))
    if path.parent.name == "workflows":
        commands = [
            step.get("run", "") for job in content["jobs"].values() for step in job["steps"]
        ]
        targets = {target for command in commands for target in re.findall(r"make (\S+)", command)}
        assert targets <= set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
