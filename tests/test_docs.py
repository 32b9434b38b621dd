"""Test that the documentation agrees with the package and with the README, and that its links work."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import fields
from pathlib import Path

import command_help
import gymnasium as gym
import pytest
import repository
from criteria_table import criteria_table, criteria_tags
from diagnosis_panels import PICTURES
from diagnosis_sections import diagnosis_index, diagnosis_section
from docstrings import constants, keyword_comments, parameters
from fault_bench import FAULTS, HEALTHY
from generated import GENERATORS, filled_in
from logged_names import logged_names
from settings_table import settings, settings_table

import sb3_visual_td3
from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import COMMANDS
from sb3_visual_td3.common.tags import TAGS
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.rules import RULES, actor_saturation
from sb3_visual_td3.visual_td3 import presets
from sb3_visual_td3.visual_td3.presets import PRESETS, Settings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build" / "html"
PAGES = sorted(DOCS.rglob("*.md"))
LARGEST_PICTURE = 60_000
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(text: str, *languages: str) -> list[str]:
    return [content for language, content in _BLOCK.findall(text) if language in languages]


# ---- diagnoses


@pytest.mark.parametrize("diagnosis_id", PICTURES)
def test_every_diagnosis_has_a_section_with_its_picture_its_remedy_and_its_command(diagnosis_id: str) -> None:
    rule = RULES[diagnosis_id]
    text = diagnosis_section(diagnosis_id)
    assert text.startswith(f"## `{diagnosis_id}`\n")
    assert rule.title in text
    assert rule.remedy in text
    assert f"benchmarks/diagnosis_pictures.py --only {diagnosis_id}\n" in text
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert (DOCS / picture).is_file()
    for title in ("How it looks", "The evidence", "What to do"):
        assert f":::{{rubric}} {title}\n" in text


def test_every_diagnosis_has_a_picture_of_a_training_that_shows_it() -> None:
    assert PICTURES.keys() <= RULES.keys()
    for diagnosis_id, picture in PICTURES.items():
        fault = FAULTS[picture.training]
        assert diagnosis_id in {fault.diagnosis, *fault.also}
        assert picture.beside in HEALTHY
        assert {tag for panel in picture.panels for tag in (panel.tag, panel.against) if tag} <= TAGS.keys()


def test_pictures_are_small_and_none_is_left_over() -> None:
    pictures = {path.stem: path.stat().st_size for path in (DOCS / "images" / "diagnoses").iterdir()}
    assert pictures.keys() == PICTURES.keys()
    assert max(pictures.values()) < LARGEST_PICTURE


def test_the_index_of_diagnoses_links_each_of_them() -> None:
    links = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", diagnosis_index())
    assert [name for name, _ in links] == list(RULES)
    assert all(name == anchor for name, anchor in links)


def test_the_constants_of_a_rule_are_read_with_their_descriptions() -> None:
    found = constants(actor_saturation)
    value, meaning = found["SATURATED"]
    assert value == actor_saturation.SATURATED
    assert meaning.startswith(
        "The policy counts as dead if the mean fraction of saturated actions over the last quarter"
    )
    assert "Source" not in diagnosis_section("critic_overestimation").split(":::{rubric} How it looks")[0]
    assert "1802.09477" in diagnosis_section("critic_overestimation").split(":::{rubric} Source")[1]


# ---- criteria, settings, names, commands


def test_every_criterion_is_in_criteria_table_and_criteria_tags() -> None:
    for criterion in load_criteria():
        assert f"\n| `{criterion.id}` | " in criteria_table()
        assert f"\n| `{criterion.id}` | " in criteria_tags()
        assert criterion.title.replace("|", "\\|") in criteria_table()


def test_the_example_file_on_the_criteria_page_can_be_loaded(tmp_path: Path) -> None:
    (example,) = blocks(page("criteria.md"), "yaml")
    (tmp_path / "mine.yml").write_text(example)
    changed = {criterion.id: criterion for criterion in load_criteria(tmp_path / "mine.yml")}
    assert changed["critic_loss_mean"].threshold == 50.0
    assert set(changed) - {criterion.id for criterion in load_criteria()} == {"drives_fast"}


def test_every_setting_is_in_the_table_of_settings_with_the_values_of_both_presets() -> None:
    rows = {setting.name: setting for setting in settings()}
    own = [p.name for p in inspect.signature(VisualTD3).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert set(own) <= rows.keys()
    assert {f.name for f in fields(Settings)} - {"policy_kwargs"} <= rows.keys()
    assert {f"policy_kwargs.{key}" for key in PRESETS["visual"].policy_kwargs} <= rows.keys()
    assert rows["random_shift"][2:] == ("0", "4", "DrQ-v2")
    assert rows["policy_kwargs.trunk_dim"][2:] == ("None", "50", "DrQ-v2")
    assert rows["critic_loss"][2:] == ('"mse"', "as stock", "")
    assert rows["grad_clip"].meaning.startswith('`"norm"`, or `"adaptive"`')
    assert all(f"\n| `{name}` | " in settings_table() for name in rows)


def test_every_value_that_the_visual_preset_changes_says_where_it_is_from() -> None:
    comments = keyword_comments(presets, "Settings", "max_grad_norm")
    changed = {
        f.name for f in fields(Settings) if getattr(PRESETS["visual"], f.name) != getattr(PRESETS["td3"], f.name)
    }
    assert changed == comments.keys()
    assert all(comments.values())


def test_descriptions_of_parameters_are_read_completely() -> None:
    told = parameters(VisualTD3)
    assert told["random_shift"] == "largest random shift of images, in pixels; 0 is off"
    assert told["preset"].endswith("`describe` shows the values in force")
    assert told["overlap"].endswith("such as SubprocVecEnv")


def test_every_logged_name_is_in_the_table_of_logged_names() -> None:
    text = logged_names()
    assert [name for name in TAGS if f"\n| `{name}` | " not in text] == []


def test_every_command_has_its_help() -> None:
    texts = command_help.all_help()
    assert set(texts) == {"", *COMMANDS}
    text = command_help.command_sections()
    for name in COMMANDS:
        assert f"## {name}\n" in text
        assert texts[name].startswith("usage: ")
        assert str(ROOT) not in texts[name]


def test_a_command_whose_package_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_visual_td3.report.command", None)
    assert "sb3_visual_td3.report.command" in command_help.help_of(["report", "--help"])


# ---- pages


def test_the_pages_explain_the_readmes_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    code = blocks(readme, "python")
    explained = {
        line.partition("  ")[0].partition(" -o ")[0]
        for path in PAGES
        for block in blocks(path.read_text(), "console")
        for line in block.splitlines()
    }
    for block in blocks(readme, "console"):
        for line in block.splitlines():
            words = line.partition("  ")[0].partition(" -o ")[0]
            assert words in explained, line
    verdict, of_the_script = blocks(page("quickstart.md"), "text")
    assert verdict in readme
    assert of_the_script.startswith("GO  a ")
    shown = blocks(page("quickstart.md"), "python")
    assert [block for block in code if block in shown] == code


def test_blocks_that_readme_and_quickstart_share_are_equal() -> None:
    readme = blocks((ROOT / "README.md").read_text(), "console", "python")
    quickstart = blocks(page("quickstart.md"), "console", "python")
    first_lines = {block.splitlines()[0]: block for block in readme}
    alike = [block for block in quickstart if block.splitlines()[0] in first_lines]
    assert len(alike) >= 3
    for block in alike:
        assert first_lines[block.splitlines()[0]].startswith(block)


def test_the_extras_on_the_install_page_are_those_of_setup_cfg() -> None:
    text = (ROOT / "setup.cfg").read_text().partition("[options.extras_require]")[2]
    assert re.findall(r"^\| `(\w+)` \|", page("install.md"), re.MULTILINE) == re.findall(
        r"^(\w+) =", text, re.MULTILINE
    )


def mistakes() -> list[tuple[str, str]]:
    _, _, text = page("migration.md").partition("## Common mistakes")
    pairs = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(pairs) == text.count("```python")
    return pairs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("code", "message"), mistakes(), ids=lambda text: text.splitlines()[-1][-40:])
def test_a_mistake_on_the_migration_page_raises_what_the_page_says(code: str, message: str) -> None:
    names = {"gym": gym, "VisualTD3": VisualTD3}
    with pytest.raises((ValueError, AssertionError)) as caught:
        exec(code, names)
    said = f"{type(caught.value).__name__}: {caught.value}"
    assert textwrap.fill(said, 100, break_long_words=False, break_on_hyphens=False) == message.strip()


NAMED_IN_THE_TEXT = {"migration.md": {"env", "gym"}, "your_own_logs.md": {"writer", "global_step"}}
"""Names that a page's snippets use and its text explains."""
PARTS_OF_A_LOOP = {"episode_return", "mean_return", "actor_loss", "critic_loss", "q1"}


@pytest.mark.parametrize(
    "path",
    [path for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if "```python\n" in path.read_text()],
    ids=lambda path: path.name,
)
def test_the_snippets_of_a_page_import_what_they_use(path: Path) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    flags = ["--isolated", "--select", "F821", "--output-format", "concise", "-"]
    command = [sys.executable, "-m", "ruff", "check", *flags]
    found = subprocess.run(command, input="\n".join(snippets), capture_output=True, text=True, check=False).stdout
    unknown = set(re.findall(r"Undefined name `(\w+)`", found))
    assert unknown - PARTS_OF_A_LOOP == NAMED_IN_THE_TEXT.get(path.name, set())


def test_every_public_name_has_its_place_in_the_api_pages() -> None:
    text = "".join(path.read_text() for path in (DOCS / "api").iterdir())
    missing = [name for name in sb3_visual_td3.__all__ if f":: sb3_visual_td3.{name}\n" not in text]
    assert missing == ["__version__"]


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {line.rpartition("<")[2].rstrip(">") for block in blocks_of_toctree() for line in block if line}
    assert listed == {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES} - {"index"}


def blocks_of_toctree() -> list[list[str]]:
    found = re.findall(r"^```\{toctree\}\n(.*?)^```", page("index.md"), re.MULTILINE | re.DOTALL)
    return [[line for line in block.splitlines() if not line.startswith(":")] for block in found]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_links_between_files_point_to_existing_files(path: Path) -> None:
    text = re.sub(_BLOCK, "", path.read_text())
    targets = [t for t in re.findall(r"\]\(([^()\s]+)\)", text) if "://" not in t and not t.startswith("#")]
    assert [t for t in targets if not (path.parent / t.partition("#")[0]).exists()] == []


ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
MORE_PAGES = [ROOT / name for name in ("SECURITY.md", "notebooks/README.md")]
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts write them."""
    n_alike: Counter[str] = Counter()
    anchors = set()
    for heading in _HEADING.findall(re.sub(_BLOCK, "", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{n_alike[anchor]}" if n_alike[anchor] else anchor)
        n_alike[anchor] += 1
    return anchors


@pytest.mark.parametrize(
    ("text", "anchors"),
    [
        ("# 4. What GO needs\n", {"4-what-go-needs"}),
        ("## Is `report` right?\n\n## A, b - c\n", {"is-report-right", "a-b---c"}),
        ("## Same\n\n## Same\n", {"same", "same-1"}),
        ("```bash\n# no heading\n```\n## [A link](a.md)\n", {"a-link"}),
    ],
)
def test_anchors_of_headings_equal_those_of_code_hosts(text: str, anchors: set[str]) -> None:
    assert anchors_of(text) == anchors


@pytest.mark.parametrize("path", [*PAGES, *ROOT_PAGES, *MORE_PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_to_a_section_leads_to_its_heading(path: Path) -> None:
    """The headings of the diagnoses exist only in the pages that ``make docs`` builds."""
    missing = []
    for target in re.findall(r"\]\(([^()\s]+)\)", re.sub(_BLOCK, "", path.read_text())):
        file, has_anchor, anchor = target.partition("#")
        linked = path.parent / file if file else path
        if "://" in target or not has_anchor or linked.suffix != ".md":
            continue
        if anchor not in anchors_of(linked.read_text()) and not (linked.name == "diagnoses.md" and anchor in RULES):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("path", [*PAGES, *ROOT_PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_row_of_a_table_is_one_line(path: Path) -> None:
    lines = re.sub(_BLOCK, "", path.read_text()).splitlines()
    assert [line for line in lines if line.startswith("|") and not line.endswith("|")] == []


# ---- links that change


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](../README.md#how-well-does-it-drive)", "[a](results.md)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("[a](../benchmarks/README.md#is-the-report-right)", "[a](benchmarks.md#is-the-report-right)"),
        ("[a b\nc](../benchmarks/README.md#d)", "[a b\nc](benchmarks.md#d)"),
        ("[a](../tests/envs)", "a"),
        ("[`a`](../tests/test_docs.py)", "[`a`](../tests/test_docs.py)"),
        ("[a](carla.md) and [b](https://example.org/x)", "[a](carla.md) and [b](https://example.org/x)"),
        ("```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
    ],
)
def test_links_to_files_that_are_shown_as_pages_lead_to_those_pages(link: str, expected: str) -> None:
    assert repository.relinked(link, "docs", "docs") == expected


def test_links_of_a_root_file_are_rewritten_relative_to_the_docs_folder() -> None:
    text = "![p](docs/images/report.png) [t](tests/test_docs.py) [c](docs/carla.md#a-server)"
    expected = "![p](images/report.png) [t](../tests/test_docs.py) [c](carla.md#a-server)"
    assert repository.relinked(text, "", "docs") == expected


def test_a_section_that_is_not_there_is_named() -> None:
    assert "rliable" in repository.section("README.md", "How well does it drive?")
    with pytest.raises(ValueError, match="no section 'Why not'"):
        repository.section("README.md", "Why not")


def test_a_generated_part_is_inserted_at_its_mark_and_an_unknown_mark_is_an_error() -> None:
    text = filled_in("# Criteria\n\n<!-- generated: criteria -->\n\nThe end.\n")
    assert text == f"# Criteria\n\n{criteria_table()}\n\nThe end.\n"
    with_note = "# Criteria\n\n<!-- generated: criteria -->\n> Built by\n> `make docs`.\n\nThe end.\n"
    assert filled_in(with_note) == text
    with pytest.raises(KeyError, match="criterion"):
        filled_in("<!-- generated: criterion -->")


def test_every_generated_part_is_on_exactly_one_page() -> None:
    asked = [name for path in PAGES for name in re.findall(r"^<!-- generated: ([a-z-]+) -->$", path.read_text(), re.M)]
    assert sorted(asked) == sorted(GENERATORS)


def test_a_reader_on_a_code_host_learns_where_each_generated_part_is() -> None:
    for path in PAGES:
        for below in re.findall(r"^<!-- generated: [a-z-]+ -->\n(.*)", path.read_text(), re.MULTILINE):
            assert below.startswith("> "), path.name


def test_included_files_are_shown_completely() -> None:
    changelog, benchmarks = GENERATORS["changelog"](), GENERATORS["benchmarks"]()
    assert "## [Unreleased]" in changelog
    assert "(carla.md)" in changelog
    assert "## Is the report right?" in benchmarks
    assert "../benchmarks/results/update_speed_half_peak.json" in benchmarks


@pytest.mark.slow
@pytest.mark.skipif(not BUILT.is_dir(), reason="needs the pages that make docs builds")
def test_the_built_pages_have_their_anchors_and_names() -> None:
    assert 'id="feature-leak"' in (BUILT / "diagnoses.html").read_text()
    assert not list(BUILT.rglob("*.md.html"))
