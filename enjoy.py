"""rl-zoo's literal command: ``python enjoy.py --algo visual_td3 --env LiteDriving-v0 -f logs``."""

from sb3_visual_td3.zoo.enjoy import main

if __name__ == "__main__":
    raise SystemExit(main())
