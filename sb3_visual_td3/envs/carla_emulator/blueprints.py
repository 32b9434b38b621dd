"""What can be spawned, under CARLA's own ids. All vehicles drive alike: the embedded world has one car."""

from __future__ import annotations

from typing import Any, NamedTuple

_BOOL, _INT, _FLOAT, _STRING, _RGB = 1, 2, 3, 4, 5
COLOURS = ("255,75,60", "80,135,220", "225,225,220", "16,18,22", "215,170,50", "150,160,165")
CARS = (
    "audi.a2",
    "audi.etron",
    "audi.tt",
    "bmw.grandtourer",
    "chevrolet.impala",
    "citroen.c3",
    "dodge.charger_2020",
    "ford.crown",
    "ford.mustang",
    "jeep.wrangler_rubicon",
    "lincoln.mkz_2017",
    "lincoln.mkz_2020",
    "mercedes.coupe",
    "mercedes.coupe_2020",
    "mini.cooper_s",
    "mini.cooper_s_2021",
    "nissan.micra",
    "nissan.patrol",
    "nissan.patrol_2021",
    "seat.leon",
    "tesla.cybertruck",
    "tesla.model3",
    "toyota.prius",
)


class Attribute(NamedTuple):
    """One that a client may ask for."""

    id: str
    type: int
    value: str
    recommended: tuple[str, ...] = ()
    modifiable: bool = True


class Blueprint(NamedTuple):
    """A kind of actor."""

    id: str
    tags: str
    attributes: tuple[Attribute, ...]


def _role(value: str) -> Attribute:
    return Attribute("role_name", _STRING, value, ("autopilot", "scenario", "ego_vehicle", "hero"))


def _fixed(name: str, kind: int, value: str) -> Attribute:
    return Attribute(name, kind, value, (), modifiable=False)


def _car(number: int, name: str) -> Blueprint:
    make, model = name.split(".")
    attributes = (
        Attribute("color", _RGB, COLOURS[number % len(COLOURS)], COLOURS),
        _role("autopilot"),
        Attribute("sticky_control", _BOOL, "true"),
        Attribute("terramechanics", _BOOL, "false"),
        _fixed("number_of_wheels", _INT, "4"),
        _fixed("object_type", _STRING, ""),
        _fixed("base_type", _STRING, "car"),
        _fixed("special_type", _STRING, "electric" if make == "tesla" else ""),
        _fixed("generation", _INT, "2" if name.endswith(("2020", "2021")) or make == "ford" else "1"),
        _fixed("has_lights", _BOOL, "false"),
        _fixed("has_dynamic_doors", _BOOL, "false"),
    )
    return Blueprint(f"vehicle.{name}", f"vehicle,{make},{model}", attributes)


def _camera(kind: str) -> Blueprint:
    lens = [
        Attribute(f"lens_{name}", _FLOAT, value)
        for name, value in (
            ("circle_falloff", "5.0"),
            ("circle_multiplier", "0.0"),
            ("k", "-1.0"),
            ("kcube", "0.0"),
            ("x_size", "0.08"),
            ("y_size", "0.08"),
        )
    ]
    film = [
        Attribute(name, _FLOAT, value)
        for name, value in (("gamma", "2.2"), ("motion_blur_intensity", "0.45"), ("shutter_speed", "200.0"))
    ]
    film.append(Attribute("enable_postprocess_effects", _BOOL, "true"))
    size = (
        Attribute("image_size_x", _INT, "800"),
        Attribute("image_size_y", _INT, "600"),
        Attribute("fov", _FLOAT, "90.0"),
    )
    return _sensor(f"camera.{kind}", (*size, *lens, *(film if kind == "rgb" else ())))


def _sensor(name: str, attributes: tuple[Attribute, ...] = ()) -> Blueprint:
    shared = (_role("front"), Attribute("sensor_tick", _FLOAT, "0.0"))
    return Blueprint(f"sensor.{name}", f"sensor,{name.replace('.', ',')}", (*attributes, *shared))


def _noise(*names: str) -> tuple[Attribute, ...]:
    return (Attribute("noise_seed", _INT, "0"), *(Attribute(f"noise_{name}", _FLOAT, "0.0") for name in names))


def _numbers(**values: float) -> tuple[Attribute, ...]:
    return tuple(
        Attribute(name, _INT if isinstance(value, int) else _FLOAT, str(value)) for name, value in values.items()
    )


BLUEPRINTS: dict[str, Blueprint] = {
    each.id: each
    for each in (
        *(_car(number, name) for number, name in enumerate(CARS)),
        *(_camera(kind) for kind in ("rgb", "depth", "semantic_segmentation")),
        _sensor("other.collision"),
        _sensor("other.lane_invasion"),
        _sensor("other.gnss", _noise("lat_stddev", "lon_stddev", "alt_stddev")),
        _sensor("other.imu", _noise("accel_stddev_x", "accel_stddev_y", "accel_stddev_z")),
        _sensor(
            "other.obstacle",
            (
                Attribute("distance", _FLOAT, "5.0"),
                Attribute("hit_radius", _FLOAT, "0.5"),
                Attribute("only_dynamics", _BOOL, "false"),
            ),
        ),
        _sensor("other.radar", _numbers(horizontal_fov=30.0, vertical_fov=30.0, points_per_second=1500, range=100.0)),
        _sensor(
            "lidar.ray_cast",
            _numbers(
                channels=32,
                range=10.0,
                points_per_second=56_000,
                rotation_frequency=10.0,
                upper_fov=10.0,
                lower_fov=-30.0,
                horizontal_fov=360.0,
                atmosphere_attenuation_rate=0.004,
            ),
        ),
        *(
            Blueprint(
                f"walker.pedestrian.{number:04d}",
                f"walker,pedestrian,{number:04d}",
                (
                    _role("pedestrian"),
                    _fixed("gender", _STRING, "female" if number % 2 else "male"),
                    _fixed("age", _STRING, "adult"),
                    Attribute("is_invincible", _BOOL, "false"),
                    Attribute("speed", _FLOAT, "0.0", ("0.0", "1.4", "2.6")),
                ),
            )
            for number in range(1, 5)
        ),
    )
}


def wire_definitions() -> list[Any]:
    """Return all of them as the client reads them."""
    return [
        [
            uid,
            each.id,
            each.tags,
            [[a.id, a.type, a.value, list(a.recommended), a.modifiable, not a.modifiable] for a in each.attributes],
        ]
        for uid, each in enumerate(BLUEPRINTS.values(), start=1)
    ]
