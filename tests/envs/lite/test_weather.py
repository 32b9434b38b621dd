import numpy as np
import pytest

from sb3_visual_td3.envs.lite.camera import Camera
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.lite.weather import Sky, choose_sky

AHEAD = np.array([0.0, 0.5], np.float32)


def frames_of(seed=2, n_steps=3, **kwargs):
    env = LiteDrivingEnv(maps=["train_0"], **kwargs)
    frames = [env.reset(seed=seed)[0][-1].astype(float)]
    return frames + [env.step(AHEAD)[0][-1].astype(float) for _ in range(n_steps)]


def test_a_clear_day_has_no_filter():
    assert choose_sky("clear", 5) is None
    for plain, spelled_out in zip(frames_of(), frames_of(weather="clear", noise_std=0.0, blur=0.0), strict=True):
        np.testing.assert_array_equal(plain, spelled_out)


def test_brightness_gain_and_haze_veil_equal_hand_computed_values():
    sky = Sky(0.5, 1.0, 0.1, 100.0, 0.3, 0.0, 0)
    gain, veil = sky.gain_and_veil(0.0, 0.0)
    assert (gain, veil) == (1.5, 0.0)
    gain, veil = sky.gain_and_veil(18.0, 0.45)  # one length of the beam ahead, at its edge, 1.8 lengths of haze
    assert gain == pytest.approx((0.5 + np.exp(-2.0)) * np.exp(-1.8))
    assert veil == pytest.approx(100.0 * (1.0 - np.exp(-1.8)))


def test_the_weather_filter_applies_the_gain_and_veil_of_each_pixels_distance():
    sky = Sky(0.3, 1.1, 0.02, 110.0, 0.5, 0.0, 0)
    camera = Camera(84, 84)
    frame = np.full((84, 84), 100, np.uint8)
    camera.weather_filter(sky).apply(frame)
    assert frame[0, 0] == pytest.approx(50, abs=1)
    for row, column in ((43, 42), (50, 60), (83, 10)):
        distance = 1.5 * 42.0 / (row - 42 + 0.5)
        gain, veil = sky.gain_and_veil(distance, (column + 0.5 - 42.0) / 42.0)
        assert frame[row, column] == pytest.approx(100 * gain + veil, abs=2)


def test_night_is_dark_but_for_the_road_before_the_car():
    for day, night in zip(frames_of(), frames_of(weather="night"), strict=True):
        assert night[:40].mean() < 0.25 * day[:40].mean()
        assert night[70:, 30:54].mean() > 0.6 * day[70:, 30:54].mean()
        assert night[70:, :6].mean() < 0.6 * day[70:, :6].mean()


def test_rain_differs_in_every_frame_and_dims_the_view():
    dry, wet = frames_of(), frames_of(weather="rain")
    assert np.mean([frame.std() for frame in wet]) < 0.85 * np.mean([frame.std() for frame in dry])
    sky = [frame[:30] for frame in wet]
    assert (sky[0] != sky[1]).mean() > 0.01


@pytest.mark.parametrize("kwargs", [{"weather": "rain"}, {"weather": "night"}, {"weather": "random"}, {"noise_std": 5}])
def test_a_seed_gives_one_look_and_another_seed_another(kwargs):
    assert all(np.array_equal(a, b) for a, b in zip(frames_of(**kwargs), frames_of(**kwargs), strict=True))
    looks = {choose_sky(kwargs.get("weather", "night"), seed) for seed in range(20)}
    assert len(looks) == 20


def test_random_weather_has_days_rain_and_nights():
    skies = [choose_sky("random", seed) for seed in range(60)]
    n_rain, n_night = sum(sky.streaks > 0 for sky in skies), sum(sky.beam > 0 for sky in skies)
    assert min(n_rain, n_night, 60 - n_rain - n_night) >= 10


def test_weather_changes_neither_the_start_nor_the_drive():
    infos = []
    for weather in ("clear", "rain", "night", "random"):
        env = LiteDrivingEnv(weather=weather)
        env.reset(seed=9)
        infos.append([env.step(AHEAD)[1:] for _ in range(10)])
    assert all(info == infos[0] for info in infos)


def test_noise_has_the_requested_spread_and_blur_softens():
    clear, noisy, soft = frames_of()[0], frames_of(noise_std=6.0)[0], frames_of(blur=1.5)[0]
    difference = noisy - clear
    assert difference.std() == pytest.approx(6.0, rel=0.05)
    assert abs(difference.mean()) < 0.3
    assert np.abs(np.diff(soft, axis=1)).mean() < 0.7 * np.abs(np.diff(clear, axis=1)).mean()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weather", "snow"),
        ("weather", None),
        ("noise_std", -1.0),
        ("noise_std", float("nan")),
        ("blur", 11.0),
        ("grayscale", 1),
    ],
)
def test_a_wrong_camera_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name}=.*expected"):
        LiteDrivingEnv(**{name: value})
