"""Run ``visual-td3 enjoy`` under the name of rl-zoo's script.

Example: ``python enjoy.py --algo visual_td3 --env LiteDriving-v0 -f logs``
"""

import sys

from sb3_visual_td3.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["enjoy", *sys.argv[1:]]))
