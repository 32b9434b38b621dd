"""A driver that follows waypoints, with lane invasions and collisions told by sensors."""

import math
import sys

import carla

client = carla.Client("localhost", int(sys.argv[1]))
client.set_timeout(5.0)
world = client.get_world()
settings = world.get_settings()
settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
world.apply_settings(settings)
road_map = world.get_map()
library = world.get_blueprint_library()
vehicle = world.spawn_actor(library.find("vehicle.lincoln.mkz_2020"), road_map.get_spawn_points()[3])
collisions, invasions = [], []
collision_sensor = world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=vehicle)
collision_sensor.listen(lambda event: collisions.append((event.other_actor.id, event.normal_impulse.length())))
lane_sensor = world.spawn_actor(library.find("sensor.other.lane_invasion"), carla.Transform(), attach_to=vehicle)
lane_sensor.listen(lambda event: invasions.append([str(mark.type) for mark in event.crossed_lane_markings]))
for _ in range(5):
    world.tick()

ticked = []
world.on_tick(lambda snapshot: ticked.append(snapshot.frame))
begin = vehicle.get_location()
for _ in range(300):
    here = vehicle.get_transform()
    goal = road_map.get_waypoint(here.location).next(5.0)[0].transform.location
    forward = here.get_forward_vector()
    right = here.get_right_vector()
    offset = goal - here.location
    angle = math.atan2(offset.dot(right), offset.dot(forward))
    speed = vehicle.get_velocity().length()
    vehicle.apply_control(
        carla.VehicleControl(throttle=0.8 if speed < 6.0 else 0.4, steer=max(-1.0, min(1.0, 2.0 * angle)))
    )
    world.tick()
assert vehicle.get_location().distance(begin) > 20.0
waypoint = road_map.get_waypoint(vehicle.get_location())
assert waypoint.transform.location.distance(vehicle.get_location()) < 1.0
assert not collisions
assert not invasions
assert len(ticked) >= 290

# Now into another car, a little way ahead, and over the middle of the road.
ahead = road_map.get_waypoint(vehicle.get_location()).next(15.0)[0].transform
ahead.location.z += 0.3
obstacle = world.spawn_actor(library.find("vehicle.nissan.micra"), ahead)
for _ in range(200):
    here = vehicle.get_transform()
    offset = ahead.location - here.location
    angle = math.atan2(offset.dot(here.get_right_vector()), offset.dot(here.get_forward_vector()))
    vehicle.apply_control(carla.VehicleControl(throttle=0.6, steer=max(-1.0, min(1.0, 2.0 * angle))))
    world.tick()
    if collisions:
        break
assert collisions[0][0] == obstacle.id
assert collisions[0][1] > 100.0
obstacle.destroy()
for _ in range(200):
    vehicle.apply_control(carla.VehicleControl(throttle=0.5, steer=-0.5))
    world.tick()
    if invasions:
        break
assert invasions
for sensor in (collision_sensor, lane_sensor):
    sensor.stop()
for actor in (collision_sensor, lane_sensor, vehicle):
    actor.destroy()
settings.synchronous_mode, settings.fixed_delta_seconds = False, None
world.apply_settings(settings)
