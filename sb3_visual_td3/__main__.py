"""Run the command line: ``python -m sb3_visual_td3`` is the same as ``visual-td3``."""

from sb3_visual_td3.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
