"""Change the weather as CARLA's dynamic_weather.py does: the sun sets, it rains, and the camera sees it."""

import argparse
import queue

import carla
import numpy as np


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=2000, type=int)
    args = parser.parse_args()
    client = carla.Client(args.host, args.port)
    client.set_timeout(60.0)
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    library = world.get_blueprint_library()
    vehicle = world.spawn_actor(library.find("vehicle.tesla.model3"), world.get_map().get_spawn_points()[0])
    cameras = []
    for x, z, pitch in ((2.0, 1.5, 0.0), (-6.0, 4.0, -15.0)):
        bp = library.find("sensor.camera.rgb")
        bp.set_attribute("image_size_x", "200")
        bp.set_attribute("image_size_y", "200")
        place = carla.Transform(carla.Location(x=x, z=z), carla.Rotation(pitch=pitch))
        camera = world.spawn_actor(bp, place, attach_to=vehicle)
        camera.received = queue.Queue()
        camera.listen(camera.received.put)
        cameras.append(camera)
    for _ in range(10):
        world.tick()

    def brightness(camera, weather):
        world.set_weather(weather)
        frame = world.tick()
        while (image := camera.received.get(timeout=60.0)).frame < frame:
            pass
        array = np.frombuffer(image.raw_data, np.uint8).reshape(200, 200, 4)[..., :3]
        return array[:80].mean(), array[-80:].mean()

    for camera in cameras:
        noon_sky, noon_road = brightness(camera, carla.WeatherParameters.ClearNoon)
        rain_sky, _ = brightness(camera, carla.WeatherParameters.HardRainNoon)
        night_sky, night_road = brightness(camera, carla.WeatherParameters.ClearNight)
        again_sky, again_road = brightness(camera, carla.WeatherParameters.ClearNoon)
        assert rain_sky < 0.9 * noon_sky, (noon_sky, rain_sky)
        assert night_sky < 0.5 * noon_sky, (noon_sky, night_sky)
        assert night_road < 1.3 * noon_road
        assert abs(again_sky - noon_sky) < 0.5
        assert abs(again_road - noon_road) < 0.5

    weather = world.get_weather()
    altitudes = []
    for _ in range(20):
        weather.sun_altitude_angle -= 5.0
        world.set_weather(weather)
        world.tick()
        altitudes.append(world.get_weather().sun_altitude_angle)
    assert altitudes[-1] == carla.WeatherParameters.ClearNoon.sun_altitude_angle - 100.0
    for camera in cameras:
        camera.stop()
    client.apply_batch_sync([carla.command.DestroyActor(x) for x in [*cameras, vehicle]])
    world.apply_settings(carla.WorldSettings(synchronous_mode=False))
    print("done")


if __name__ == "__main__":
    main()
