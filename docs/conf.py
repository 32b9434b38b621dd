"""Configure Sphinx, which builds the documentation (``make docs``). This file needs no network."""

import os
import sys
from importlib.util import find_spec

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path[:0] = [os.path.join(HERE, "_ext"), os.path.join(ROOT, "benchmarks"), ROOT]

from sb3_visual_td3 import __version__  # noqa: E402

project = "sb3_visual_td3"
author = "the sb3_visual_td3 authors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generated",
]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# These modules belong to the extra carla. If one is missing, autodoc replaces it by a mock and can import our modules.
autodoc_mock_imports = [name for name in ("carla", "msgpack") if find_spec(name) is None]

nitpick_ignore_regex = [
    # Names from other projects. Sphinx cannot look up their documentation without the network.
    (r"py:.*", r"(argparse|collections|gymnasium|numpy|os|pathlib|stable_baselines3|rl_zoo3|th|torch)\..*"),
    # Names of types as signatures spell them, and private base classes.
    (r"py:(class|exc|obj|data)", r"(\w+\.)?[A-Z]\w+"),
    (r"py:class", r"sb3_visual_td3\..*\._\w+"),
    # Attribute types and base classes of documented classes that have no page of their own.
    (r"py:class", r"sb3_visual_td3\.report\.(hyperparam|run_settings|recommendation|sections).*"),
    (r"py:class", r"sb3_visual_td3\.report\.analysis\.(StatedProperty|RunSections)"),
    (r"py:class", r".*\.RestorableDrivingEnv"),
    (r"py:obj", r"sb3_visual_td3\.callbacks\.drives\.Result"),  # a type variable
]

html_theme = "furo"
html_title = f"sb3_visual_td3 {version}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_search_scorer = os.path.join(HERE, "_static", "search_scorer.js")

copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
