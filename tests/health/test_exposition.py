"""What the fleet looks like to Prometheus."""

from prometheus_client.parser import text_string_to_metric_families

from tests.api import Api
from tests.health.story import MINUTE, ago, tell


async def test_each_pipeline_shows_its_last_status_and_times(api: Api) -> None:
    a = await api.make_pipeline("acme", 'a "quoted"\nname')
    await tell(api, a, "success failed running")
    b = await api.make_pipeline("globex", "b", platform="dbt", environment="dev")
    await tell(api, b, "failed")
    await api.make_pipeline("globex", "never ran")
    gone = await api.make_pipeline("globex", "gone")
    await tell(api, gone, "failed")
    await api.delete(f"/pipelines/{gone['id']}")
    response = await api.get("/metrics")
    assert response.status_code == 200
    found = {
        (sample.name.removeprefix("headway_pipeline_last_"), sample.labels["pipeline_id"]): (
            sample.labels,
            sample.value,
        )
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name.startswith("headway_pipeline_")
    }
    labels_a = {"client": "acme", "pipeline": 'a "quoted"\nname', "platform": "airflow", "environment": "prod"}
    labels_b = {"client": "globex", "pipeline": "b", "platform": "dbt", "environment": "dev"}
    labels_a["pipeline_id"], labels_b["pipeline_id"] = a["id"], b["id"]
    assert found == {
        ("status", a["id"]): (labels_a | {"status": "running"}, 1),
        ("status", b["id"]): (labels_b | {"status": "failed"}, 1),
        ("run_timestamp_seconds", a["id"]): (labels_a, ago(1).timestamp()),
        ("run_timestamp_seconds", b["id"]): (labels_b, ago(1).timestamp()),
        ("success_timestamp_seconds", a["id"]): (labels_a, (ago(3) + 10 * MINUTE).timestamp()),
    }
