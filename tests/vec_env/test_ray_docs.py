"""`ray up` accepts the cluster file of docs/ray.md, as far as that can be tested without machines."""

from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLUSTER = yaml.safe_load((DOCS / "ray_cluster.yaml").read_text())


@pytest.mark.ray
def test_the_cluster_file_fits_rays_schema():
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(CLUSTER))
    with pytest.raises(Exception, match="idle"):
        validate_config(prepare_config({**CLUSTER, "idle_minutes": 5}))


def test_the_workers_have_what_the_documented_environments_request():
    start = CLUSTER["worker_start_ray_commands"][-1]
    assert "--num-gpus=2" in start
    assert """--resources='{"carla":4}'""" in start
    assert "carla" not in CLUSTER["head_start_ray_commands"][-1]
    blocks = [part for part in (DOCS / "ray.md").read_text().split("```") if part.startswith("yaml")]
    block = yaml.safe_load(blocks[0].removeprefix("yaml"))["CarlaDriving-v0"]
    assert block["vec_env_kwargs"]["num_gpus"] * 4 == 2
    assert block["n_envs"] == 4 * len(CLUSTER["provider"]["worker_ips"])
