"""Ask CARLA's client about a map in a separate process, because the client crashes on a malformed map.

Reads ``{"text", "places": [[x, y]...], "lanes": [[road, lane, s]...], "step_m", "n_steps", "route": [road...]}`` as
JSON and prints the client's answers as JSON. All coordinates are those of OpenDRIVE, where y and yaw have the opposite
sign of CARLA's.
"""

import json
import sys


def described(waypoint):
    place, rotation = waypoint.transform.location, waypoint.transform.rotation
    left, right = waypoint.get_left_lane(), waypoint.get_right_lane()
    return {
        "x": place.x,
        "y": -place.y,
        "yaw_deg": -rotation.yaw,
        "road": waypoint.road_id,
        "lane": waypoint.lane_id,
        "width": waypoint.lane_width,
        "type": str(waypoint.lane_type),
        "left_mark": str(waypoint.left_lane_marking.type),
        "right_mark": str(waypoint.right_lane_marking.type),
        "left_lane": left and left.lane_id,
        "right_lane": right and right.lane_id,
        "in_junction": waypoint.is_junction,
    }


def main():
    import carla

    asked = json.load(sys.stdin)
    road_map = carla.Map("probe", asked["text"])
    near = [road_map.get_waypoint(carla.Location(x, -y, 0.0)) for x, y in asked["places"]]
    at = [road_map.get_waypoint_xodr(road, lane, s) for road, lane, s in asked["lanes"]]
    way, ways_on = [near[0]], []
    for _ in range(asked["n_steps"]):
        following = way[-1].next(asked["step_m"])
        ways_on.append(len(following))
        on_route = [waypoint for waypoint in following if waypoint.road_id in asked["route"]]
        way.append(on_route[0])
    answer = {"near": near, "at": at, "way": way}
    answer = {name: [described(waypoint) for waypoint in waypoints] for name, waypoints in answer.items()}
    json.dump({**answer, "ways_on": ways_on}, sys.stdout)


main()
