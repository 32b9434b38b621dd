import pytest

from sb3_visual_td3.common.same_settings import require_same_settings


def test_equal_settings_pass_in_any_order():
    require_same_settings({"size": 3, "gamma": 0.99}, {"gamma": 0.99, "size": 3}, "The buffer")


def test_every_difference_is_named_and_nothing_else():
    kept = {"size": 3, "gamma": 0.99, "shape": [1, 2], "old": 1, "flag": True}
    here = {"size": 4, "gamma": 0.99, "shape": [1, 2], "new": "a", "flag": 1}
    with pytest.raises(ValueError, match="The buffer cannot") as caught:
        require_same_settings(kept, here, "The buffer")
    text = str(caught.value)
    for part in (
        "size was 3 and is 4",
        "old was 1 and is not there",
        "new was not there and is 'a'",
        "flag was True and is 1",
    ):
        assert part in text
    assert "gamma" not in text
    assert "shape" not in text
