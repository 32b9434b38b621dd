"""Scripts as users of CARLA write them run against the emulator, with the genuine client, each in its own process."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess  # noqa: E402

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


@pytest.fixture
def emulator():
    with EmulatorProcess("train_0") as process:
        yield process


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_in_the_usual_style_runs(script, emulator, tmp_path):
    command = [sys.executable, str(script), str(emulator.port), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert emulator.control.status()["n_actors"] == 0


def test_it_listens_on_this_machine_only(emulator):
    def listening(port):
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return {
            line.split()[1].split(":")[0]
            for line in lines
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        }

    assert listening(emulator.port) == listening(emulator.port + 1) == {"0100007F"}


def test_it_ends_at_a_signal_with_exit_code_0(emulator):
    assert emulator.stop() == 0


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(emulator):
    command = [sys.executable, "-m", "sb3_visual_td3.envs.carla_emulator", "--port", str(emulator.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "name another --port" in done.stderr


def test_three_thousand_ticks_leave_memory_and_descriptors_as_they_were(emulator):
    script = f"""
import carla, queue
client = carla.Client("localhost", {emulator.port}); client.set_timeout(5.0)
world = client.get_world()
settings = world.get_settings(); settings.synchronous_mode = True; settings.fixed_delta_seconds = 0.05
world.apply_settings(settings)
library = world.get_blueprint_library()
for n in range(30):
    vehicle = world.spawn_actor(library.find("vehicle.tesla.model3"), world.get_map().get_spawn_points()[n])
    images = queue.SimpleQueue()
    blueprint = library.find("sensor.camera.rgb")
    blueprint.set_attribute("image_size_x", "84"); blueprint.set_attribute("image_size_y", "84")
    camera = world.spawn_actor(blueprint, carla.Transform(carla.Location(x=2.0, z=1.5)), attach_to=vehicle)
    put = images.put
    camera.listen(lambda image: put(image.frame))
    for _ in range(int(__import__("sys").argv[1])): world.tick()
    camera.stop(); camera.destroy(); vehicle.destroy()
"""
    figures = []
    for ticks in ("20", "100"):
        subprocess.run([sys.executable, "-c", script, ticks], check=True, timeout=200)
        figures.append(emulator.control.status())
    assert figures[1]["n_file_descriptors"] == figures[0]["n_file_descriptors"]
    assert figures[1]["rss_mb"] < 1.05 * figures[0]["rss_mb"]


def test_a_client_that_speaks_nonsense_is_hung_up_on_and_others_go_on(emulator):
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=5.0) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(100) == b""
    assert emulator.control.status()["map"] == "train_0"


def test_an_unknown_call_is_answered_with_its_name(emulator):
    with pytest.raises(ValueError, match="does not know the call 'make_coffee'"):
        emulator.control._ask("make_coffee")
