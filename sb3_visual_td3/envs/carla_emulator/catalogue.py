"""List the blueprints of vehicles, walkers and sensors that the emulator offers to a client.

The blueprints have CARLA's own names and attributes, so that scripts written for CARLA run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sb3_visual_td3.envs.carla_emulator.protocol import CallError, checked_number, shortened
from sb3_visual_td3.envs.carla_emulator.vehicle_models import MODELS, VehicleModel

# rpc::ActorAttributeType in CARLA's sources.
_BOOL, _INT, _FLOAT, _STRING, _RGB = 1, 2, 3, 4, 5
COLOURS = ("255,75,60", "80,135,220", "225,225,220", "16,18,22", "215,170,50", "150,160,165")
CARS = tuple(model.name for model in MODELS if model.has_car_shape and model.special_type != "emergency")
"""The blueprints of cars, which the server's own traffic uses."""
N_WALKERS = 51
_CHILDREN = {9, 10, 11, 12, 13, 14, 48, 49}
PROPS = (
    "advertisement",
    "atm",
    "barbeque",
    "barrel",
    "bench01",
    "bench02",
    "bench03",
    "bike_helmet",
    "bikeparking",
    "bin",
    "box01",
    "box02",
    "box03",
    "briefcase",
    "brokentile01",
    "brokentile02",
    "brokentile03",
    "brokentile04",
    "busstop",
    "busstoplb",
    "calibrator",
    "chainbarrier",
    "chainbarrierend",
    "clothcontainer",
    "clothesline",
    "colacan",
    "constructioncone",
    "container",
    "creasedbox01",
    "creasedbox02",
    "creasedbox03",
    "dirtdebris01",
    "dirtdebris02",
    "dirtdebris03",
    "doghouse",
    "foodcart",
    "fountain",
    "garbage01",
    "garbage02",
    "garbage03",
    "garbage04",
    "garbage05",
    "garbage06",
    "gardenlamp",
    "glasscontainer",
    "gnome",
    "guitarcase",
    "haybale",
    "haybalelb",
    "ironplank",
    "kiosk_01",
    "mailbox",
    "maptable",
    "mesh",
    "mobile",
    "motorhelmet",
    "omri",
    "pergola",
    "plantpot01",
    "plantpot02",
    "plantpot03",
    "plantpot04",
    "plantpot05",
    "plantpot06",
    "plantpot07",
    "plantpot08",
    "plasticbag",
    "plasticchair",
    "plastictable",
    "platformgarbage01",
    "purse",
    "shoppingbag",
    "shoppingcart",
    "shoppingtrolley",
    "slide",
    "streetbarrier",
    "streetfountain",
    "streetsign",
    "streetsign01",
    "streetsign04",
    "swing",
    "swingcouch",
    "table",
    "trafficcone01",
    "trafficcone02",
    "trafficwarning",
    "trampoline",
    "trashbag",
    "trashcan01",
    "trashcan02",
    "trashcan03",
    "trashcan04",
    "trashcan05",
    "travelcase",
    "vendingmachine",
    "warningaccident",
    "warningconstruction",
    "wateringcan",
)
"""The static props of CARLA's library."""


class Attribute(NamedTuple):
    """Describe an attribute of a blueprint."""

    id: str
    type: int
    value: str
    recommended: tuple[str, ...] = ()
    modifiable: bool = True


class Blueprint(NamedTuple):
    """Describe a kind of actor that clients can spawn."""

    id: str
    tags: str
    attributes: tuple[Attribute, ...]


def _role_name(value: str) -> Attribute:
    return Attribute("role_name", _STRING, value, ("autopilot", "scenario", "ego_vehicle", "hero"))


def _fixed(name: str, kind: int, value: str) -> Attribute:
    return Attribute(name, kind, value, (), modifiable=False)


def _vehicle(index: int, model: VehicleModel) -> Blueprint:
    # Scripts filter by the attributes below: by ``generation`` to exclude old models, by ``base_type`` and
    # ``number_of_wheels`` to exclude trucks and bicycles.
    attributes = (
        Attribute("color", _RGB, COLOURS[index % len(COLOURS)], COLOURS),
        _role_name("autopilot"),
        Attribute("sticky_control", _BOOL, "true"),
        Attribute("terramechanics", _BOOL, "false"),
        _fixed("number_of_wheels", _INT, str(model.n_wheels)),
        _fixed("object_type", _STRING, ""),
        _fixed("base_type", _STRING, model.base_type),
        _fixed("special_type", _STRING, model.special_type),
        _fixed("generation", _INT, str(model.generation)),
        _fixed("has_lights", _BOOL, str(model.has_lights).lower()),
        _fixed("has_dynamic_doors", _BOOL, str(model.has_dynamic_doors).lower()),
    )
    return Blueprint(f"vehicle.{model.name}", f"vehicle,{model.name.replace('.', ',')}", attributes)


def _prop(name: str) -> Blueprint:
    attributes = (_role_name("prop"), _fixed("size", _STRING, "small"))
    return Blueprint(f"static.prop.{name}", f"static,prop,{name}", attributes)


def _walker(number: int) -> Blueprint:
    attributes = (
        _role_name("pedestrian"),
        _fixed("gender", _STRING, "female" if number % 2 else "male"),
        _fixed("age", _STRING, "child" if number in _CHILDREN else "adult"),
        _fixed("generation", _INT, "2" if number > 14 else "1"),
        Attribute("can_use_wheelchair", _BOOL, "false", modifiable=False),
        Attribute("use_wheelchair", _BOOL, "false"),
        Attribute("is_invincible", _BOOL, "false"),
        Attribute("speed", _FLOAT, "0.0", ("0.0", "1.4", "2.6")),
    )
    return Blueprint(f"walker.pedestrian.{number:04d}", f"walker,pedestrian,{number:04d}", attributes)


def _floats(**values: str) -> list[Attribute]:
    return [Attribute(name, _FLOAT, value) for name, value in values.items()]


# The emulator accepts the lens, exposure and post-processing attributes, because scripts set them. They have no effect.
_LENS = _floats(
    lens_circle_falloff="5.0",
    lens_circle_multiplier="0.0",
    lens_k="-1.0",
    lens_kcube="0.0",
    lens_x_size="0.08",
    lens_y_size="0.08",
)
_FILM = [
    Attribute("enable_postprocess_effects", _BOOL, "true"),
    Attribute("exposure_mode", _STRING, "histogram", ("histogram", "manual")),
    Attribute("blade_count", _INT, "5"),
    *_floats(
        gamma="2.2",
        bloom_intensity="0.675",
        lens_flare_intensity="0.1",
        shutter_speed="200.0",
        iso="100.0",
        fstop="1.4",
        min_fstop="1.2",
        focal_distance="1000.0",
        blur_amount="1.0",
        blur_radius="0.0",
        motion_blur_intensity="0.45",
        motion_blur_max_distortion="0.35",
        motion_blur_min_object_screen_size="0.1",
        exposure_compensation="0.0",
        exposure_min_bright="10.0",
        exposure_max_bright="12.0",
        exposure_speed_up="3.0",
        exposure_speed_down="1.0",
        calibration_constant="16.0",
        temp="6500.0",
        tint="0.0",
        chromatic_aberration_intensity="0.0",
        chromatic_aberration_offset="0.0",
        slope="0.88",
        toe="0.55",
        shoulder="0.26",
        black_clip="0.0",
        white_clip="0.04",
    ),
]


def _camera(kind: str) -> Blueprint:
    attributes = [
        Attribute("image_size_x", _INT, "800"),
        Attribute("image_size_y", _INT, "600"),
        Attribute("fov", _FLOAT, "90.0"),
        *_LENS,
    ]
    if kind == "rgb":
        attributes += _FILM
    return _sensor(f"camera.{kind}", tuple(attributes))


def _sensor(name: str, attributes: tuple[Attribute, ...] = ()) -> Blueprint:
    common = (_role_name("front"), Attribute("sensor_tick", _FLOAT, "0.0"))
    return Blueprint(f"sensor.{name}", f"sensor,{name.replace('.', ',')}", (*attributes, *common))


def _noise(*names: str) -> tuple[Attribute, ...]:
    """Return the attributes of a sensor's noise, which are accepted and have no effect."""
    return (Attribute("noise_seed", _INT, "0"), *(Attribute(f"noise_{name}", _FLOAT, "0.0") for name in names))


def _numbers(**values: float) -> tuple[Attribute, ...]:
    attributes = []
    for name, value in values.items():
        attributes.append(Attribute(name, _INT if isinstance(value, int) else _FLOAT, str(value)))
    return tuple(attributes)


def _each(firsts: Sequence[str], seconds: Sequence[str]) -> list[str]:
    return [f"{first}_{second}" for first in firsts for second in seconds]


_LIDAR = _numbers(
    channels=32,
    range=10.0,
    points_per_second=56_000,
    rotation_frequency=10.0,
    upper_fov=10.0,
    lower_fov=-30.0,
    horizontal_fov=360.0,
)
# Ids and defaults are those of CARLA 0.9.16's blueprint library. Attributes for noise and dropped points are accepted
# and ignored.
_ALL = (
    *(_vehicle(index, model) for index, model in enumerate(MODELS)),
    *(_camera(kind) for kind in ("rgb", "depth", "semantic_segmentation", "instance_segmentation")),
    _sensor("other.collision"),
    _sensor("other.lane_invasion"),
    _sensor("other.gnss", _noise(*_each(("lat", "lon", "alt"), ("stddev", "bias")))),
    _sensor("other.imu", _noise(*_each(("accel_stddev", "gyro_stddev", "gyro_bias"), ("x", "y", "z")))),
    _sensor(
        "other.obstacle",
        (
            Attribute("distance", _FLOAT, "5.0"),
            Attribute("hit_radius", _FLOAT, "0.5"),
            Attribute("only_dynamics", _BOOL, "false"),
            Attribute("debug_linetrace", _BOOL, "false"),
        ),
    ),
    _sensor(
        "other.radar",
        (*_noise(), *_numbers(horizontal_fov=30.0, vertical_fov=30.0, points_per_second=1500, range=100.0)),
    ),
    _sensor(
        "lidar.ray_cast",
        (
            *_LIDAR,
            *_noise("stddev"),
            *_numbers(
                atmosphere_attenuation_rate=0.004,
                dropoff_general_rate=0.45,
                dropoff_intensity_limit=0.8,
                dropoff_zero_intensity=0.4,
            ),
        ),
    ),
    _sensor("lidar.ray_cast_semantic", _LIDAR),
    Blueprint("controller.ai.walker", "controller,ai,walker", (_role_name("front"),)),
    *(_walker(number) for number in range(1, N_WALKERS + 1)),
    *(_prop(name) for name in PROPS),
)
BLUEPRINTS = {blueprint.id: blueprint for blueprint in _ALL}


def blueprints_message() -> list[Any]:
    """Return the msgpack form of all blueprints.

    Each blueprint is ``[uid, id, tags, [[attribute, type, value, recommended values, is modifiable, restrict to
    recommended]]]``.
    """
    definitions = []
    for uid, blueprint in enumerate(BLUEPRINTS.values(), start=1):
        attributes = [
            [each.id, each.type, each.value, list(each.recommended), each.modifiable, not each.modifiable]
            for each in blueprint.attributes
        ]
        # Since 0.9.15 every blueprint has the name of its topic in ROS.
        attributes.append(["ros_name", _STRING, blueprint.id, [blueprint.id], True, False])
        definitions.append([uid, blueprint.id, blueprint.tags, attributes])
    return definitions


_MAX_ATTRIBUTES = 100
_ATTRIBUTE_RANGES = {
    "sensor_tick": (0.0, 1e6),
    "image_size_x": (1, 8192),
    "image_size_y": (1, 8192),
    "fov": (0.01, 179.9),
    "channels": (1, 512),
    "points_per_second": (1, 1e7),
    "rotation_frequency": (0.0, 1e4),
    "range": (0.0, 1e6),
    "upper_fov": (-90.0, 90.0),
    "lower_fov": (-90.0, 90.0),
    "horizontal_fov": (0.01, 360.0),
    "vertical_fov": (0.01, 360.0),
    "atmosphere_attenuation_rate": (0.0, 1e3),
    "distance": (0.0, 1e6),
    "hit_radius": (0.0, 1e3),
}
"""The sensor attributes that have an effect in the emulator, and the valid range of each of them."""
_INTEGER_ATTRIBUTES = {"image_size_x", "image_size_y", "channels"}
_MAX_PIXELS = 8192 * 4320


def check_description(description: Any) -> str:
    """Check an actor description and return its blueprint id.

    An invalid attribute is rejected here, because otherwise every later tick would fail.

    :param description: ``[uid, type_id, [[attribute, type, value]...]]`` as the client sent it
    :raises CallError: if its shape is wrong, no such blueprint exists, or an attribute is out of range
    """
    match description:
        case [int(), str(type_id), [*attributes], *_] if len(attributes) <= _MAX_ATTRIBUTES:
            pass
        case _:
            raise CallError(
                f"invalid actor description {shortened(description)}: expected [uid, type_id, attributes], as CARLA's "
                "client sends it"
            )
    if type_id not in BLUEPRINTS:
        raise CallError(
            f"invalid actor description {shortened(type_id)}: expected the id of a blueprint; "
            "world.get_blueprint_library() lists all blueprints"
        )
    n_pixels = 1.0
    for attribute in attributes:
        match attribute:
            case [str(name), int(), str(value), *_]:
                pass
            case _:
                raise CallError(f"{type_id}: {shortened(attribute)}: expected an attribute [name, type, value]")
        if name in _ATTRIBUTE_RANGES and type_id.startswith("sensor."):
            number = _checked_attribute(type_id, name, value)
            if name.startswith("image_size"):
                n_pixels *= number
        if name == "color":
            _check_colour(type_id, value)
    if n_pixels > _MAX_PIXELS:
        raise CallError(
            f"{type_id}: the image has {n_pixels:g} pixels, expected at most {_MAX_PIXELS}; set a smaller size"
        )
    return type_id


def _checked_attribute(type_id: str, name: str, value: str) -> float:
    low, high = _ATTRIBUTE_RANGES[name]
    try:
        number = checked_number(float(value), high)
        is_valid = low <= number and (name not in _INTEGER_ATTRIBUTES or number == int(number))
    except (ValueError, CallError):
        is_valid = False
    if not is_valid:
        raise CallError(f"{type_id}: {name}={shortened(value)}: expected a number between {low:g} and {high:g}")
    return number


def _check_colour(type_id: str, value: str) -> None:
    parts = [part.strip() for part in value.split(",")[:3]]
    if len(parts) < 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise CallError(f"{type_id}: color={shortened(value)}: expected three integers such as '255,0,0'")
