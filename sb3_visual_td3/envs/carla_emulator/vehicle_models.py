"""Describe the vehicles of CARLA 0.9.16's blueprint library: size, kind, and how each of them drives.

Wheelbase, mass, acceleration and top speed are estimates from size and kind. Vehicles turn as tightly as in CARLA. The
only exception is ``vehicle.tesla.model3``, which by default steers like the car of ``LiteDriving-v0``. With the
server's option ``--carla-steering``, this vehicle also turns as tightly as in CARLA.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from sb3_visual_td3.envs.lite.vehicle import VehicleSettings

BaseType = Literal["car", "truck", "van", "bus", "motorcycle", "bicycle"]
_LITE = VehicleSettings()
_REFERENCE_MASS_KG = 1_500.0
"""Assumed mass of ``vehicle.tesla.model3``; the masses of the other vehicles are scaled from it by volume."""
_MAX_WHEEL_RAD = math.radians(60.0)
"""Largest steering angle of the wheels. This one value replaces CARLA's limit, which is 70 degrees at rest and falls
as the speed rises."""
_TOP_SPEED_MPS: dict[BaseType, float] = {
    "car": _LITE.max_throttle_mps2 / _LITE.drag_per_s,
    "van": 10.0,
    "truck": 9.0,
    "bus": 9.0,
    "motorcycle": 12.0,
    "bicycle": 6.0,
}
_LATERAL_MPS2: dict[BaseType, float] = {
    "car": 11.0,
    "van": 9.0,
    "truck": 7.0,
    "bus": 7.0,
    "motorcycle": 11.0,
    "bicycle": 5.0,
}
"""Largest lateral acceleration. For cars it is larger than a real car's 8 m/s^2, to keep CARLA's agents in their
lane."""
# Tags with which semantic cameras of 0.9.16 show vehicles.
_TAGS: dict[BaseType, int] = {"car": 14, "van": 14, "truck": 15, "bus": 16, "motorcycle": 18, "bicycle": 19}


class VehicleModel(NamedTuple):
    """Describe a vehicle of CARLA's blueprint library: its size and its kind."""

    name: str
    """Id of the blueprint without the prefix ``vehicle.``."""
    length_m: float
    width_m: float
    height_m: float
    base_type: BaseType = "car"
    generation: int = 1
    special_type: str = ""
    """``electric``, ``emergency`` or ``taxi``; empty for others."""
    has_lights: bool = False
    has_dynamic_doors: bool = False

    @property
    def n_wheels(self) -> int:
        """Return the vehicle's number of wheels, which is an attribute of its blueprint."""
        if self.base_type in {"motorcycle", "bicycle"}:
            return 2
        return 6 if self.name == "carlamotors.european_hgv" else 4

    @property
    def extent_m(self) -> tuple[float, float, float]:
        """Return half of the vehicle's length, width and height, in metres."""
        return 0.5 * self.length_m, 0.5 * self.width_m, 0.5 * self.height_m

    @property
    def has_car_shape(self) -> bool:
        """Return whether the vehicle looks like a car: a low body with a cabin on it."""
        return self.base_type == "car" and self.height_m < 2.2

    @property
    def semantic_tag(self) -> int:
        """Return the tag that semantic segmentation cameras show for the vehicle."""
        return _TAGS[self.base_type]


class Handling(NamedTuple):
    """Hold the mass of a kind of vehicle and its limits of steering, acceleration and speed."""

    settings: VehicleSettings
    mass_kg: float


def _handling_of(model: VehicleModel, steers_like_carla: bool) -> Handling:
    reference = _BY_NAME[_REFERENCE]
    if model.name == _REFERENCE:
        dynamics = {}
        if steers_like_carla:
            dynamics = {"max_wheel_rad": _MAX_WHEEL_RAD, "max_lateral_mps2": _LATERAL_MPS2[model.base_type]}
        mass_kg = _REFERENCE_MASS_KG
    else:
        wheelbase_m = _LITE.wheelbase_m * model.length_m / reference.length_m
        volume = model.length_m * model.width_m * model.height_m
        mass_kg = _REFERENCE_MASS_KG * volume / (reference.length_m * reference.width_m * reference.height_m)
        # An engine's power grows approximately with the square root of the vehicle's mass, so heavy vehicles accelerate
        # slowly.
        throttle_mps2 = _LITE.max_throttle_mps2 * min(1.0, math.sqrt(_REFERENCE_MASS_KG / mass_kg))
        dynamics = {
            "wheelbase_m": wheelbase_m,
            "max_wheel_rad": _MAX_WHEEL_RAD,
            "max_throttle_mps2": throttle_mps2,
            "drag_per_s": throttle_mps2 / _TOP_SPEED_MPS[model.base_type],
            "max_lateral_mps2": _LATERAL_MPS2[model.base_type],
        }
    return Handling(VehicleSettings(length_m=model.length_m, width_m=model.width_m, **dynamics), mass_kg)


_REFERENCE = "tesla.model3"
MODELS = (
    VehicleModel("audi.a2", 3.705, 1.789, 1.549),
    VehicleModel("audi.etron", 4.856, 2.033, 1.649, special_type="electric"),
    VehicleModel("audi.tt", 4.181, 1.994, 1.385, has_lights=True),
    VehicleModel("bh.crossbike", 1.489, 0.859, 1.783, "bicycle"),
    VehicleModel("bmw.grandtourer", 4.611, 2.242, 1.667),
    VehicleModel("carlamotors.carlacola", 5.204, 2.627, 2.467, "truck"),
    VehicleModel("carlamotors.european_hgv", 7.936, 2.895, 3.461, "truck", 2, has_lights=True),
    VehicleModel("carlamotors.firetruck", 8.468, 2.891, 3.827, "truck", 2, "emergency", True, True),
    VehicleModel("chevrolet.impala", 5.357, 2.033, 1.411, has_lights=True),
    VehicleModel("citroen.c3", 3.988, 1.851, 1.617),
    VehicleModel("diamondback.century", 1.643, 0.373, 1.622, "bicycle"),
    VehicleModel("dodge.charger_2020", 5.006, 2.097, 1.535, "car", 2, "", True, True),
    VehicleModel("dodge.charger_police", 4.974, 2.038, 1.542, "car", 1, "emergency", True),
    VehicleModel("dodge.charger_police_2020", 5.237, 2.097, 1.639, "car", 2, "emergency", True, True),
    VehicleModel("ford.ambulance", 6.366, 2.351, 2.432, "van", 2, "emergency", True, True),
    VehicleModel("ford.crown", 5.366, 1.800, 1.575, "car", 2, "taxi", True, True),
    VehicleModel("ford.mustang", 4.717, 1.894, 1.301, has_lights=True),
    VehicleModel("gazelle.omafiets", 1.840, 0.328, 1.776, "bicycle"),
    VehicleModel("harley-davidson.low_rider", 2.355, 0.764, 1.276, "motorcycle", has_lights=True),
    VehicleModel("jeep.wrangler_rubicon", 3.866, 1.905, 1.878),
    VehicleModel("kawasaki.ninja", 2.034, 0.794, 1.146, "motorcycle", has_lights=True),
    VehicleModel("lincoln.mkz_2017", 4.902, 2.128, 1.511, has_lights=True),
    VehicleModel("lincoln.mkz_2020", 4.892, 1.836, 1.490, "car", 2, "", True, True),
    VehicleModel("mercedes.coupe", 5.027, 2.152, 1.651, has_lights=True),
    VehicleModel("mercedes.coupe_2020", 4.674, 2.002, 1.442, "car", 2, "", True, True),
    VehicleModel("mercedes.sprinter", 5.915, 1.989, 2.561, "van", 2, "", True, True),
    VehicleModel("micro.microlino", 2.207, 1.481, 1.376, special_type="electric"),
    VehicleModel("mini.cooper_s", 3.806, 1.970, 1.475),
    VehicleModel("mini.cooper_s_2021", 4.553, 2.097, 1.767, "car", 2, "", True, True),
    VehicleModel("mitsubishi.fusorosa", 10.272, 3.944, 4.253, "bus", 2, "", True),
    VehicleModel("nissan.micra", 3.633, 1.845, 1.501),
    VehicleModel("nissan.patrol", 4.604, 1.932, 1.856),
    VehicleModel("nissan.patrol_2021", 5.566, 2.150, 2.045, "car", 2, "", True, True),
    VehicleModel("seat.leon", 4.193, 1.817, 1.474),
    VehicleModel("tesla.cybertruck", 6.274, 2.389, 2.098, "truck", 2, "electric", True),
    VehicleModel(_REFERENCE, 4.792, 2.164, 1.488, "car", 2, "electric", True),
    VehicleModel("toyota.prius", 4.513, 2.007, 1.525),
    VehicleModel("vespa.zx125", 1.804, 0.866, 1.248, "motorcycle", has_lights=True),
    VehicleModel("volkswagen.t2", 4.480, 2.069, 2.038, "van", has_lights=True),
    VehicleModel("volkswagen.t2_2021", 4.442, 1.774, 1.987, "van", 2, "", True, True),
    VehicleModel("yamaha.yzf", 2.209, 0.867, 1.251, "motorcycle", has_lights=True),
)
_BY_NAME = {model.name: model for model in MODELS}
_PREFIX = "vehicle."
_HANDLING: dict[tuple[str, bool], Handling] = {}


def model_of(type_id: str) -> VehicleModel:
    """Return the size and kind of the vehicle with a blueprint id.

    :param type_id: id, such as ``"vehicle.audi.tt"``; an unknown id gives the model of ``tesla.model3``
    """
    return _BY_NAME.get(type_id.removeprefix(_PREFIX), _BY_NAME[_REFERENCE])


def handling_of(model: VehicleModel, *, steers_like_carla: bool = False) -> Handling:
    """Return the mass of a kind of vehicle and its limits of steering, acceleration and speed; cached.

    :param model: the kind of vehicle
    :param steers_like_carla: True if ``vehicle.tesla.model3`` steers as in CARLA, False if it steers like the car of
        ``LiteDriving-v0``. All other vehicles always steer as in CARLA.
    """
    key = (model.name, steers_like_carla)
    if key not in _HANDLING:
        _HANDLING[key] = _handling_of(model, steers_like_carla)
    return _HANDLING[key]
