"""Traffic lights as clients use them: states, times, groups, landmarks, stop lines, and the light before a vehicle."""

import argparse
import math

import carla


def check_states(world, lights):
    light = lights[0]
    group = light.get_group_traffic_lights()
    assert light.id in {each.id for each in group}
    assert len({each.get_pole_index() for each in group}) == len(group)
    assert sum(each.state == carla.TrafficLightState.Green for each in group) <= 1
    assert (light.get_green_time(), light.get_yellow_time(), light.get_red_time()) == (10.0, 3.0, 2.0)
    for each in lights:
        each.set_green_time(1.0)
        each.set_yellow_time(0.5)
        each.set_red_time(0.5)
    seen = set()
    for _ in range(20 * 2 * len(group) + 20):
        world.tick()
        seen.add(str(light.state))
        assert sum(each.state != carla.TrafficLightState.Red for each in group) <= 1
    assert seen == {"Red", "Yellow", "Green"}, seen
    world.freeze_all_traffic_lights(True)
    light.set_state(carla.TrafficLightState.Green)
    for _ in range(100):
        world.tick()
    assert light.is_frozen()
    assert light.state == carla.TrafficLightState.Green
    world.freeze_all_traffic_lights(False)
    world.reset_all_traffic_lights()
    world.tick()
    assert not light.is_frozen()
    assert light.get_elapsed_time() < 0.2
    light.set_state(carla.TrafficLightState.Off)
    world.tick()
    assert light.state == carla.TrafficLightState.Off
    world.reset_all_traffic_lights()
    world.tick()
    assert len(light.get_light_boxes()) == 1


def check_map(world, lights):
    road_map = world.get_map()
    landmarks = {each.id for each in road_map.get_all_landmarks_of_type("1000001")}
    assert landmarks == {each.get_opendrive_id() for each in lights}
    for light in lights:
        affected = light.get_affected_lane_waypoints()
        stops = light.get_stop_waypoints()
        assert affected
        assert stops
        # The trigger volume lies over the affected lane, before its junction.
        centre = light.get_transform().transform(light.trigger_volume.location)
        waypoint = road_map.get_waypoint(centre)
        assert not waypoint.is_junction
        keys = {(each.road_id, each.lane_id) for each in stops}
        assert (waypoint.road_id, waypoint.lane_id) in keys, (waypoint.road_id, waypoint.lane_id, keys)
        assert any(each.is_junction for each in waypoint.next(12.0))
        by_landmark = world.get_traffic_light_from_opendrive_id(light.get_opendrive_id())
        assert by_landmark.id == light.id
    landmark = road_map.get_all_landmarks_of_type("1000001")[0]
    assert world.get_traffic_light(landmark).get_opendrive_id() == landmark.id
    junction = road_map.get_waypoint(lights[0].get_stop_waypoints()[0].next(12.0)[0].transform.location).get_junction()
    assert junction is not None


def check_vehicle(world, lights):
    light = lights[0]
    stop = light.get_stop_waypoints()[0]
    library = world.get_blueprint_library()
    place = stop.previous(4.0)[0].transform
    place.location.z += 0.5
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), place)
    light.set_state(carla.TrafficLightState.Red)
    world.freeze_all_traffic_lights(True)
    world.tick()
    world.tick()
    assert car.is_at_traffic_light()
    assert car.get_traffic_light().id == light.id
    assert car.get_traffic_light_state() == carla.TrafficLightState.Red
    assert 10.0 < car.get_speed_limit() <= 130.0
    far = stop.previous(30.0)[0].transform
    far.location.z += 0.5
    car.set_transform(far)
    world.tick()
    world.tick()
    assert not car.is_at_traffic_light()
    assert car.get_traffic_light_state() == carla.TrafficLightState.Green
    # The one in front of the light sees its lamp.
    assert not light.destroy()
    car.destroy()
    world.freeze_all_traffic_lights(False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=2000)
    client = carla.Client("127.0.0.1", parser.parse_args().port)
    client.set_timeout(60.0)
    world = client.get_world()
    world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
    world.tick()
    lights = list(world.get_actors().filter("traffic.traffic_light"))
    assert lights
    check_map(world, lights)
    check_states(world, lights)
    check_vehicle(world, lights)
    assert math.isfinite(lights[0].get_transform().location.x)
    print("done:", len(lights), "lights")


if __name__ == "__main__":
    main()
