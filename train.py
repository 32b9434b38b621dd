"""Run ``visual-td3 train`` under the name of rl-zoo's script.

Example: ``python train.py --algo visual_td3 --env LiteDriving-v0``
"""

import sys

from sb3_visual_td3.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
