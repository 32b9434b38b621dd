"""Save images of two cameras with a ``sensor_tick``.

One camera looks down on the road from above. The second camera is attached to a vehicle by a spring arm.
"""

import argparse
import tempfile
import time
from pathlib import Path

import carla

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="localhost")
parser.add_argument("--port", default=2000, type=int)
args = parser.parse_args()
folder = Path(tempfile.mkdtemp())
client = carla.Client(args.host, args.port)
client.set_timeout(60.0)
world = client.get_world()
library = world.get_blueprint_library()
vehicle = world.spawn_actor(library.find("vehicle.tesla.model3"), world.get_map().get_spawn_points()[0])
blueprint = library.find("sensor.camera.rgb")
blueprint.set_attribute("image_size_x", "320")
blueprint.set_attribute("image_size_y", "240")
blueprint.set_attribute("fov", "110")
blueprint.set_attribute("sensor_tick", "0.2")
here = world.get_map().get_spawn_points()[0].location
above = world.spawn_actor(blueprint, carla.Transform(here + carla.Location(z=30), carla.Rotation(pitch=-90)))
hood = world.spawn_actor(
    blueprint,
    carla.Transform(carla.Location(x=-5.5, z=2.8), carla.Rotation(pitch=-15)),
    attach_to=vehicle,
    attachment_type=carla.AttachmentType.SpringArmGhost,
)
above.listen(lambda image: image.save_to_disk(str(folder / f"above_{image.frame:06d}.png")))
hood.listen(lambda image: image.save_to_disk(str(folder / f"hood_{image.frame:06d}.png")))
vehicle.apply_control(carla.VehicleControl(throttle=0.5))
for _ in range(40):
    world.wait_for_tick()
for camera in (above, hood):
    camera.stop()
time.sleep(0.3)
for actor in (above, hood, vehicle):
    actor.destroy()
for name in ("above", "hood"):
    pictures = sorted(folder.glob(f"{name}_*.png"))
    assert 5 <= len(pictures) <= 15, pictures
    assert pictures[-1].stat().st_size > 2_000
print("done")
