"""Tests for the imports of the package, and for the names that it logs. The source is parsed, not run."""

import ast
import re
from pathlib import Path

import networkx
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sb3_visual_td3"
OURS = {
    "common",
    "visual_td3",
    "buffers",
    "health",
    "preflight",
    "diagnosis",
    "callbacks",
    "runs",
    "training_state",
    "report",
    "envs",
    "vec_env",
    "zoo",
    "demo",
}

MAY_IMPORT = {
    "common": set(),
    "envs": {"common"},
    "envs/road": {"common", "envs"},
    "envs/lite": {"common", "envs", "envs/road"},
    "envs/carla": {"common", "envs", "envs/road"},
    "envs/carla_emulator": {"common", "envs", "envs/road", "envs/lite"},
    "vec_env": {"common"},
    "buffers": {"common"},
    "health": {"common"},
    "preflight": {"common", "buffers", "training_state"},
    "diagnosis": {"common"},
    "visual_td3": {"common", "buffers"},
    "runs": {"common"},
    "training_state": {"common"},
    "callbacks": {"common", "health", "diagnosis", "runs", "training_state"},
    "report": {"common", "diagnosis", "runs"},
    "zoo": (OURS - {"report"}) | {"envs/road"},
    "demo": {"common", "envs", "runs"},
    "cli": {"common", "zoo", "report", "envs", "envs/carla_emulator", "demo"},
    "__main__": {"cli"},
    "__init__": OURS,
}
TRAINERS = {"torch", "stable_baselines3", "sb3_contrib", "rl_zoo3"}
NEVER = {
    "envs": TRAINERS,
    "diagnosis": TRAINERS | {"gymnasium"},
    "report": TRAINERS | {"gymnasium"},
    "demo": TRAINERS,
    "runs": set(),  # torch is allowed inside functions only: see broken_arrows()
    "common": TRAINERS,
}
ONLY_HERE = {"ray": ("vec_env/",), "carla": ("envs/carla/", "envs/road/lane_survey.py")}
"""Optional libraries, with the folders and files of the package that may import them.

``lane_survey.py`` may import ``carla``, because it runs in a separate process.
"""


FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def imports_of(tree, skip_type_checking=True, only_at_import=False):
    """Return the absolute names of the modules and objects that a file imports."""
    found = set()

    def visit(node):
        if skip_type_checking and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child)
            return
        if only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "expected an absolute import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names)
            # In "from package import module", only the module counts, not the package.
            if not names <= MODULES:
                found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def broken_arrows(room, place, tree):
    """Return a message for each forbidden import of a file.

    :param room: the file's key in ``MAY_IMPORT``
    :param place: the file's path below the package
    """
    # An import under TYPE_CHECKING couples two packages, but it does not load a heavy library.
    names = imports_of(tree, skip_type_checking=False)
    rooms = {room_of(name.split(".")[1:]) for name in names if name.startswith("sb3_visual_td3.")}
    rooms -= {"__version__", room}
    broken = [f"{place} imports {target}" for target in sorted(rooms - MAY_IMPORT[room])]
    libraries = {name.split(".")[0] for name in imports_of(tree)}
    broken += [f"{place} imports {library}" for library in sorted(libraries & NEVER.get(room.split("/")[0], set()))]
    for library, homes in ONLY_HERE.items():
        if library in libraries and not place.startswith(homes):
            broken.append(f"{place} imports {library}, which only {' and '.join(homes)} may import")
    if room == "runs" and "torch" in {n.split(".")[0] for n in imports_of(tree, only_at_import=True)}:
        broken.append(f"{place} imports torch outside a function")
    return broken


def room_of(parts):
    """Return the key in ``MAY_IMPORT`` for a path below the package, such as ``["envs", "lite", "world"]``."""
    room = parts[0].removesuffix(".py")
    sub_room = "/".join(parts[:2])
    return sub_room if sub_room in MAY_IMPORT else room


def parts_of(file):
    return file.relative_to(PACKAGE).parts


def test_packages_import_only_the_packages_below_them():
    broken = []
    for file in FILES:
        place = file.relative_to(PACKAGE).as_posix()
        broken += broken_arrows(room_of(parts_of(file)), place, ast.parse(file.read_text()))
    assert broken == []


def test_no_production_code_imports_a_test_library():
    found = {module_of(file): imports_of(ast.parse(file.read_text())) for file in FILES}
    roots = {module: {name.split(".")[0] for name in names} for module, names in found.items()}
    assert [module for module, names in roots.items() if names & {"unittest", "pytest", "hypothesis"}] == []


def import_graph(sources):
    """Return, for each module, which of the other modules it imports.

    Imports within functions and imports under ``TYPE_CHECKING`` are included.

    :param sources: source text by module name
    """
    graph = {}
    for module, source in sources.items():
        names = imports_of(ast.parse(source), skip_type_checking=False)
        graph[module] = {name for name in names if name in sources and name != module}
    return graph


def circles(graph):
    """Return one list of modules for each circle of imports."""
    components = networkx.strongly_connected_components(networkx.DiGraph(graph))
    return sorted(sorted(component) for component in components if len(component) > 1)


def test_no_modules_import_each_other_in_a_circle():
    sources = {module_of(file): file.read_text() for file in FILES}
    assert circles(import_graph(sources)) == []


def test_an_import_circle_is_found():
    sources = {"a": "from b import x", "b": "import c", "c": "from a import y", "d": "import a"}
    assert circles(import_graph(sources)) == [["a", "b", "c"]]


def test_an_import_circle_through_a_function_is_found():
    assert circles(import_graph({"a": "import b", "b": "def f():\n    import a"})) == [["a", "b"]]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("common/tags.py", "from sb3_visual_td3.health import quantities"),
        ("visual_td3/losses.py", "from sb3_visual_td3.callbacks.event_writer import EventWriter"),
        ("visual_td3/losses.py", "import sb3_visual_td3.health.gradient_monitor"),
        ("callbacks/event_writer.py", "from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3"),
        ("report/analysis.py", "def f():\n    import torch"),
        ("report/analysis.py", "from stable_baselines3 import TD3"),
        ("envs/task.py", "import torch as th"),
        ("zoo/plugin.py", "from sb3_visual_td3.report.command import run"),
        ("runs/manifest.py", "import torch"),
        ("envs/lite/world.py", "import carla"),
        ("envs/road/maps.py", "import carla"),
        ("envs/road/track.py", "from sb3_visual_td3.envs.lite.camera import Camera"),
        ("envs/carla/ego.py", "from sb3_visual_td3.envs.lite.camera import Camera"),
        ("envs/lite/world.py", "from sb3_visual_td3.envs.carla.settings import ServerSettings"),
        ("envs/carla_emulator/server.py", "from sb3_visual_td3.envs.carla.settings import ServerSettings"),
        ("envs/carla/backend.py", "from sb3_visual_td3.envs.carla_emulator.server import EmulatorServer"),
        ("envs/task.py", "from sb3_visual_td3.envs.road.track import Track"),
        ("zoo/plugin.py", "import ray"),
    ],
)
def test_a_forbidden_import_is_found(place, line):
    assert broken_arrows(room_of(place.split("/")), place, ast.parse(line))


def test_a_lazy_import_of_torch_is_allowed_in_runs():
    assert broken_arrows("runs", "runs/checkpoints.py", ast.parse("def save():\n    import torch")) == []


def test_every_package_is_listed_in_may_import():
    assert {room_of(parts_of(file)) for file in FILES} <= set(MAY_IMPORT)


def test_no_package_has_a_meaningless_name():
    assert not {f.name for f in FILES} & {"utils.py", "helpers.py", "misc.py"}


def test_logged_names_are_spelled_in_one_file_only():
    name = re.compile("(train|gradients|alerts|agent|progress|eval|reward)/[a-z0-9_]+")
    # Stable-Baselines3 defines these names.
    allowed = {"train/n_updates", "train/actor_loss", "train/critic_loss", "train/learning_rate", "eval/mean_ep_length"}
    for file in FILES:
        if file == PACKAGE / "common" / "tags.py":
            continue
        strings = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
        spelled = {s for s in strings if isinstance(s, str) and name.fullmatch(s)}
        assert spelled - allowed == set(), file


@pytest.mark.parametrize(
    "name", ["alerts.jsonl", "best_model.zip", "lock", "tb", "invalid_transition", "simulator_failure"]
)
def test_names_of_files_and_keys_of_info_are_spelled_in_one_file_only(name):
    trees = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in FILES}
    spelled = [
        place
        for place, tree in trees.items()
        if any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))
    ]
    assert len(spelled) == 1, spelled
