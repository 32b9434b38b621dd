# An image without GPU support. It trains policies, judges runs, and serves the CARLA emulator.
#   docker build -t sb3-visual-td3 .
#   mkdir -p logs
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/logs:/training/logs" sb3-visual-td3 validate
# Docker would create a missing folder logs as root, and the container could not write to it.
# On Linux pip's default torch is the CUDA build, some gigabytes. PyTorch's website names the index of the CPU builds:
#   docker build --build-arg TORCH_INDEX_URL=... -t sb3-visual-td3 .
FROM python:3.11-slim

# The container runs as a separate user, not as root. Code that a hyperparameter file executes can write to /training,
# but cannot change the installed package.
RUN useradd --create-home --uid 1000 trainer \
    && install -d -o trainer -g trainer /training

WORKDIR /src
COPY constraints.txt ./
ARG TORCH_INDEX_URL=""
# torch first and alone, in a layer that a change of the package does not touch.
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY sb3_visual_td3 sb3_visual_td3
COPY zoo_configs zoo_configs
RUN pip install --no-cache-dir --constraint constraints.txt '.[carla,plots,video]'

USER trainer
WORKDIR /training
# No screen in a container: videos are drawn off-screen.
ENV SDL_VIDEODRIVER=dummy
ENTRYPOINT ["visual-td3"]
CMD ["--help"]
