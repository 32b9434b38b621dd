"""The files around the package agree with it: workflows, templates, citation, images."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "sb3_visual_td3" / "version.txt").read_text(encoding="utf-8").strip()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w$()/.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def load(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def supported_versions():
    classifiers = setup()["metadata"]["classifiers"]
    return re.findall(r"Python :: (3\.\d+)", classifiers)


def steps_of(path):
    for job in load(path)["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_uses_make_targets_and_files_that_exist(path):
    text = "\n".join(step.get("run", "") for step in steps_of(path))
    for words in re.findall(r"^\s*make (.+)$", text, re.MULTILINE):
        for target in words.split():
            assert target.replace(".venv", "$(VENV)") in TARGETS
    for name in re.findall(r"(?:tests|sb3_visual_td3)/[\w/.]+", text):
        assert (ROOT / name).exists()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_has_a_time_limit(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_make_looks_for_the_tests_of_ray_where_they_are():
    (folders,) = re.findall(r"pytest -m ray (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.ray\b", path.read_text())]
    assert marked
    for path in marked:
        assert any(path.is_relative_to(ROOT / folder) for folder in folders.split())


def test_every_supported_python_version_is_tested():
    matrix = load(".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python-version"] == supported_versions()


def test_the_supported_versions_are_the_same_everywhere():
    first, last = supported_versions()[0], supported_versions()[-1]
    next_minor = int(last.split(".")[1]) + 1
    assert setup()["options"]["python_requires"] == f">={first},<3.{next_minor}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"{first}-{last}" in makefile
    assert f"< (3, {next_minor})" in makefile
    for page in ("README.md", "CONTRIBUTING.md", "docs/install.md"):
        assert f"Python {first} to {last}" in (ROOT / page).read_text(encoding="utf-8")


def test_the_citation_has_the_version_and_the_licence():
    citation = load("CITATION.cff")
    assert citation["version"] == VERSION
    assert citation["license"] == setup()["metadata"]["license"]


def test_the_form_of_an_issue_asks_each_question_once():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = load(path)
        ids = [field["id"] for field in form["body"]]
        assert form["name"]
        assert form["description"]
        assert len(ids) == len(set(ids))
        assert all(field["attributes"]["label"] for field in form["body"])


def test_the_image_copies_only_files_that_exist():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for words in re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE):
        copied.update(words.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_the_services_have_commands_that_the_program_knows():
    from sb3_visual_td3.cli import COMMANDS

    services = load("examples/carla-compose.yml")["services"]
    assert services["trainer"]["command"].split()[0] in COMMANDS
    assert services["emulator"]["command"].split()[0] in COMMANDS


def test_the_documentation_is_built_with_the_extra_docs():
    (install,) = load(".readthedocs.yaml")["python"]["install"]
    assert all(extra in setup()["options.extras_require"] for extra in install["extra_requirements"])
    assert (ROOT / load(".readthedocs.yaml")["sphinx"]["configuration"]).is_file()
