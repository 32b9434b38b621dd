"""Test the dashboard that TensorBoard's own plugin reads from a run's event file."""

import json
import logging
from collections import Counter

import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import custom_scalars_plugin, layout_pb2, metadata
from tensorboard.plugins.scalar import scalars_plugin

from sb3_visual_td3 import (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    PolicyEvalCallback,
    RunRecorderCallback,
    SnapshotCallback,
    VisualTD3,
)
from sb3_visual_td3.callbacks.event_writer import DASHBOARD
from sb3_visual_td3.common import tags
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from tests.callbacks.event_files import scalars_in
from tests.callbacks.test_driving_metrics import TermsEnv
from tests.callbacks.test_snapshot import Kill, Killed

EVERYONE = (GradientNormCallback, ExplosionAlertCallback, DrivingMetricsCallback, DrivingEvalCallback)


def layouts_in(path):
    """Return every layout in an event file, read with TensorBoard's own proto."""
    found = []
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.tag == metadata.CONFIG_SUMMARY_TAG:
                assert value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME
                found.append(layout_pb2.Layout.FromString(value.tensor.string_val[0]))
    return found


def event_files(folder):
    return sorted(folder.rglob("events.out.tfevents.*"))


def plugin_of(logdir):
    """Return TensorBoard's "Custom Scalars" plugin for a folder of runs."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    context = base_plugin.TBContext(
        data_provider=MultiplexerDataProvider(multiplexer, str(logdir)), sampling_hints={}, logdir=str(logdir)
    )
    scalars = scalars_plugin.ScalarsPlugin(context)
    context.plugin_name_to_instance = {"scalars": scalars}
    return custom_scalars_plugin.CustomScalarsPlugin(context)


def layout_of(plugin):
    return json.loads(plugin.layout_impl(RequestContext(), ""))


def lines_of(plugin, run):
    """Return the names that TensorBoard draws for a run, by title of group and chart."""
    found = {}
    for category in layout_of(plugin)["category"]:
        for chart in category["chart"]:
            names = set()
            for pattern in chart["multiline"]["tag"]:
                answer = plugin.scalars_impl(RequestContext(), run, pattern, "")
                assert answer["regex_valid"]
                names |= set(answer["tag_to_events"])
            found[category["title"], chart["title"]] = names
    return found


def test_the_dashboard_charts_contain_exactly_the_known_tags_and_the_rule_alerts():
    shown = [name for charts in DASHBOARD.values() for names in charts.values() for name in names]
    of_rules = {name for name in shown if name.startswith(tags.ALERTS)} - set(tags.TAGS)
    assert of_rules, "one for each rule that is judged live"
    assert set(shown) - of_rules == set(tags.TAGS)
    in_two = {name for name, n in Counter(shown).items() if n > 1}
    assert in_two == set(tags.GRADIENT_NORM.values()), "among the norms, and beside what clipping left of them"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run with three callbacks, separate encoders, and reward terms of a user's environment."""
    folder = tmp_path_factory.mktemp("dashboard")
    settings = {"buffer_size": 200, "learning_starts": 20, "batch_size": 4, "seed": 0, "device": "cpu"}
    model = VisualTD3(
        "CnnPolicy", Monitor(TermsEnv()), policy_kwargs={"encoder": "separate"}, tensorboard_log=folder, **settings
    )
    callbacks = [callback() for callback in EVERYONE[:3]]
    model.learn(130, callback=callbacks, log_interval=1, tb_log_name="run")
    return folder


def test_the_layout_is_in_the_event_file_once_whichever_callback_starts(run):
    (file,) = event_files(run)
    (layout,) = layouts_in(file)
    assert [category.title for category in layout.category] == [title for title in DASHBOARD if title != "Evaluation"]


def test_tensorboard_draws_exactly_the_logged_tags_of_each_chart(run):
    logged = set(scalars_in(run))
    for (group, title), drawn in lines_of(plugin_of(run), "run_1").items():
        expected = set(DASHBOARD[group][title]) & logged
        if group == "Driving" and title.startswith("terms"):
            expected = {"reward/comfort", "reward/my own (m)", "reward/safety", "reward/bonus"}
        assert drawn == expected, (group, title)
    assert {tags.CRITIC_1_LOSS, tags.GRADIENT_NORM_CLIPPED["actor_cnn"], tags.FRAME_STD} <= logged


@pytest.mark.parametrize("callback", EVERYONE, ids=lambda callback: callback.__name__)
def test_each_callback_alone_writes_the_layout(lite_model, tmp_path, callback):
    lite_model.learn(5, callback=callback())
    lite_model.logger.close()  # TensorBoard's writer thread may still hold events
    assert [len(layouts_in(file)) for file in event_files(tmp_path)] == [1]


def test_the_run_recorder_alone_writes_no_layout(lite_model, tmp_path):
    lite_model.learn(5, callback=RunRecorderCallback())
    assert [layouts_in(file) for file in event_files(tmp_path)] == [[]]


def test_a_second_training_with_the_same_event_file_does_not_repeat_the_layout(lite_model, tmp_path):
    lite_model.learn(5, callback=DrivingMetricsCallback(log_freq=1))
    lite_model.set_logger(lite_model.logger)  # from now on, this logger counts as the user's own
    lite_model.learn(5, callback=DrivingMetricsCallback(log_freq=1), reset_num_timesteps=False)
    (file,) = event_files(tmp_path)
    assert len(layouts_in(file)) == 1
    assert len(scalars_in(tmp_path)[tags.PROGRESS_SPEED]) == 10


def test_a_resumed_run_has_the_layout_in_each_file_and_tensorboard_shows_it_once(tmp_path, caplog):
    def script(kill_at=None):
        env = make_vec_env("LiteDriving-v0", 1, seed=2)
        settings = {"buffer_size": 100, "learning_starts": 1_000, "batch_size": 4, "seed": 0, "device": "cpu"}
        model = VisualTD3(
            "CnnPolicy", env, policy_kwargs={"net_arch": [4]}, tensorboard_log=tmp_path / "tb", **settings
        )
        callbacks = [DrivingMetricsCallback(log_freq=1), *([Kill(kill_at)] if kill_at else [])]
        model.learn(40, callback=[*callbacks, SnapshotCallback(10, tmp_path, resume=True, verbose=0)])

    for kill_at in (15, 35):
        with pytest.raises(Killed):
            script(kill_at)
    script()
    files = event_files(tmp_path)
    assert len({file.parent for file in files}) == 1
    assert len(files) == 3
    assert [len(layouts_in(file)) for file in files] == [1, 1, 1]
    with caplog.at_level(logging.WARNING):
        plugin = plugin_of(tmp_path)
    assert caplog.records == []
    assert [category["title"] for category in layout_of(plugin)["category"]] == [
        "Actor and critic",
        "Driving",
        "Settings in force",
    ]
    answer = plugin.scalars_impl(RequestContext(), "tb/VisualTD3_1", f"{tags.PROGRESS_SPEED}$", "")
    assert sorted(step for _, step, _ in answer["tag_to_events"][tags.PROGRESS_SPEED]) == list(range(1, 41))


@pytest.mark.parametrize(
    ("algorithm", "policy", "env", "others"),
    [
        (VisualTD3, "MlpPolicy", "Pendulum-v1", []),
        (SAC, "MlpPolicy", "Pendulum-v1", []),
        (VisualTD3, "CnnPolicy", "LiteDriving-v0", [DrivingMetricsCallback()]),
    ],
    ids=["VisualTD3 without images", "SAC without images", "VisualTD3 with images"],
)
def test_every_chart_in_the_layout_has_data_with_and_without_images(algorithm, policy, env, others, tmp_path):
    """The charts depend on the algorithm, the networks, the callbacks, and whether observations have images."""
    settings = {"buffer_size": 300, "learning_starts": 20, "batch_size": 4, "seed": 0, "device": "cpu"}
    model = algorithm(policy, env, tensorboard_log=tmp_path, policy_kwargs={"net_arch": [8]}, **settings)
    if others:
        evaluation = DrivingEvalCallback(env, n_eval_episodes=1, eval_freq=100)
    else:
        evaluation = PolicyEvalCallback(env, n_eval_episodes=1, eval_freq=100)
    model.learn(230, callback=[GradientNormCallback(), ExplosionAlertCallback(), evaluation, *others], log_interval=1)
    model.logger.close()
    (name,) = [path.name for path in tmp_path.iterdir()]
    drawn = lines_of(plugin_of(tmp_path), name)
    assert [chart for chart, names in drawn.items() if not names] == []
    known = {name for name in scalars_in(tmp_path) if name in tags.TAGS}
    assert known <= set().union(*drawn.values())
    assert len(drawn) > 20
    groups = {title.partition(":")[0] for _, title in drawn if title.endswith("after clipping")}
    expected = {"actor_mlp", "critic_mlp", "critic_cnn"} if others else {"actor_mlp", "critic_mlp"}
    assert groups == expected
    assert ("Driving", "speed") in drawn or not others


def test_a_training_in_a_script_is_named_after_the_algorithm(tmp_path):
    model = VisualTD3("MlpPolicy", "Pendulum-v1", tensorboard_log=tmp_path, buffer_size=50)
    model.learn(5)
    assert [path.name for path in tmp_path.iterdir()] == ["VisualTD3_1"]
    model.learn(5, tb_log_name="mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VisualTD3_1", "mine_1"]


def test_the_report_ignores_the_layout(run):
    (found,) = find_runs(run)
    data = read_run(found.path, found.files)
    scalars = scalars_in(run)
    assert set(data.series.names()) == set(scalars)
    assert data.n_points == sum(map(len, scalars.values()))
    assert data.notes == ()
