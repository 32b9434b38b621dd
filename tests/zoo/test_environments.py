"""Arguments of environments, from the hyperparameter file, the run and the command line."""

import pytest

from sb3_visual_td3.zoo.environments import env_kwargs_of


@pytest.mark.parametrize(
    ("layers", "together"),
    [
        (({"a": 1, "b": 2}, {"b": 3}), {"a": 1, "b": 3}),
        (
            ({"town": "Town01", "port": 2000}, {"maps": "held_out"}, {"town": "Town02"}),
            {"port": 2000, "town": "Town02"},
        ),
        (({"town": "Town01"}, {"maps": ["Town02"]}), {"maps": ["Town02"]}),
        (({"maps": "train"}, {"town": "Town02"}), {"town": "Town02"}),
        (({"town": "Town01"}, None, {"port": 3000}), {"town": "Town01", "port": 3000}),
        # Both in one layer is the user's own mistake, which the environment names.
        (({}, {"town": "Town01", "maps": "train"}), {"town": "Town01", "maps": "train"}),
    ],
)
def test_a_later_town_or_maps_replaces_what_was_said_of_either(layers, together):
    assert env_kwargs_of(*layers) == together
