"""JupyterLab's Notebook Jobs, over the REST API that its panel uses, with a real worker behind it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from flowkit.model import State, now
from tests.jupyter.conftest import Lab
from tests.notebooks_made import outputs, write
from tests.processes import eventually

#: What the panel sends along with every request to create something.
FORM = {
    "runtime_environment_name": "flowkit",
    "output_formats": ["ipynb", "html"],
    "runtime_environment_parameters": {},
}


@pytest.fixture
def created(lab: Lab) -> Any:
    write(lab.root / "report.ipynb", "print(day, type(top).__name__)", parameters="day: str = ''\ntop: int = 1")

    def create(kind: str, **form: Any) -> str:
        status, answer = lab.ask(f"scheduler/{kind}", FORM | {"input_uri": "report.ipynb"} | form)
        assert status == 200, answer
        [id] = answer.values()
        return str(id)

    return create


def ended(lab: Lab, job: str) -> dict[str, Any]:
    return eventually(lambda: (found := lab.ask(f"scheduler/jobs/{job}")[1])["end_time"] and found)


def test_a_job_runs_on_a_worker_and_its_notebook_is_downloaded(lab: Lab, created: Any) -> None:
    status, [environment] = lab.ask("scheduler/runtime_environments")
    assert (status, environment["name"]) == (200, "flowkit")

    job = created("jobs", name="Friday's report", parameters={"day": "2013-07-05", "top": "7"})
    found = ended(lab, job)
    assert lab.ask(f"scheduler/jobs/{job}/download_files")[0] == 204
    files = {one["file_format"]: one["file_path"] for one in lab.ask(f"scheduler/jobs/{job}")[1]["job_files"]}

    assert (found["status"], found["name"], found["input_filename"]) == ("COMPLETED", "Friday's report", "report.ipynb")
    assert (found["parameters"], found["downloaded"]) == ({"day": "2013-07-05", "top": "7"}, False)
    assert "2013-07-05 int" in outputs(lab.root / files["ipynb"])
    assert "2013-07-05 int" in (lab.root / files["html"]).read_text()
    assert json.loads((lab.root / files["input"]).read_text())["cells"][0]["source"].startswith("day: str")
    status, content = lab.ask(f"api/contents/{files['ipynb']}")  # where the panel's links lead
    assert (status, content["type"]) == (200, "notebook")

    assert lab.ask(f"scheduler/jobs/{job}", method="DELETE")[0] == 204
    assert lab.ask(f"scheduler/jobs/{job}")[0] == 500
    assert not (lab.home / "artifacts" / "runs" / job).exists()


def test_what_cannot_be_is_said_in_one_line(lab: Lab, created: Any) -> None:
    form = FORM | {"input_uri": "report.ipynb", "name": "report"}

    for kind, changed, expected in [
        ("jobs", {"input_uri": "../missing.ipynb"}, "Input path '../missing.ipynb' does not exist."),
        ("jobs", {"parameters": {"top": "many"}}, "'top'"),
        ("job_definitions", {"schedule": "0 25 * * *", "timezone": "UTC"}, "0 25 * * *"),
        ("job_definitions", {"schedule": "0 6 * * *", "timezone": "Mars"}, "Mars"),
    ]:
        status, answer = lab.ask(f"scheduler/{kind}", form | changed)
        assert status == 500
        assert expected in answer["message"], answer

    assert lab.ask("scheduler/jobs", form | {"idempotency_token": "t1"}) == lab.ask(
        "scheduler/jobs", form | {"idempotency_token": "t1"}
    )
    assert lab.ask("scheduler/jobs", form | {"idempotency_token": "t1", "parameters": {"top": "2"}})[0] == 409


def test_a_job_is_stopped_and_a_failed_one_says_why(lab: Lab, created: Any) -> None:
    write(lab.root / "slow.ipynb", "import time; time.sleep(300)")
    write(lab.root / "wrong.ipynb", "1 / 0")
    slow = created("jobs", name="slow", input_uri="slow.ipynb")
    wrong = created("jobs", name="wrong", input_uri="wrong.ipynb")
    eventually(lambda: lab.ask(f"scheduler/jobs/{slow}")[1]["status"] == "IN_PROGRESS")
    counted = lab.ask("scheduler/jobs/count", status="IN_PROGRESS")[1]["count"]

    assert lab.ask(f"scheduler/jobs/{slow}", {"status": "STOPPED"}, method="PATCH")[0] == 204

    assert counted >= 1
    assert ended(lab, slow)["status"] == "STOPPED"
    assert ended(lab, wrong)["status"] == "FAILED"
    assert "ZeroDivisionError" in ended(lab, wrong)["status_message"]
    assert lab.ask(f"scheduler/jobs/{wrong}/download_files")[0] == 204  # a failed run leaves its notebook too


def test_a_definition_runs_on_schedule_is_paused_changed_and_deleted(lab: Lab, created: Any) -> None:
    schedule = {"schedule": "0 6 * * *", "timezone": "Asia/Kolkata"}
    definition = created("job_definitions", name="daily report", parameters={"top": "3"}, **schedule)
    path = f"scheduler/job_definitions/{definition}"
    found = lab.ask(path)[1]
    assert (found["name"], found["schedule"], found["timezone"]) == ("daily report", "0 6 * * *", "Asia/Kolkata")
    assert (found["active"], found["parameters"]) == (True, {"top": "3"})
    store = lab.client.store
    assert store.deployment("daily report").schedule.next.strftime("%H:%M") == "00:30"  # type: ignore[union-attr]

    # As if its time had come.
    assert lab.ask(path, {"active": False}, method="PATCH")[0] == 204
    assert lab.ask(path)[1]["active"] is False
    store.resume("daily report", next=now() - timedelta(seconds=5), now=now())
    [job] = eventually(lambda: lab.ask("scheduler/jobs", job_definition_id=definition)[1]["jobs"])
    assert ended(lab, job["job_id"])["status"] == "COMPLETED"
    assert store.run(job["job_id"]).zone == "Asia/Kolkata"

    # By hand, with another parameter; and the definition's own schedule and notebook changed.
    by_hand = lab.ask(f"{path}/jobs", {"parameters": {"top": "4"}})[1]["job_id"]
    assert ended(lab, by_hand)["parameters"] == {"top": "4"}
    assert lab.ask(path, {"schedule": "30 7 * * *", "timezone": "Europe/Madrid"}, method="PATCH")[0] == 204
    assert lab.ask(path)[1]["schedule"] == "30 7 * * *"
    assert store.deployment("daily report").version == 1
    write(lab.root / "report.ipynb", "print('new', day)", parameters="day: str = ''\ntop: int = 1")
    assert lab.ask(path, {"input_uri": "report.ipynb"}, method="PATCH")[0] == 204
    assert store.deployment("daily report").version == 2

    status, answer = lab.ask("scheduler/job_definitions", FORM | {"input_uri": "report.ipynb", "name": "daily report"})
    assert status == 500
    assert "there is a deployment 'daily report' already" in answer["message"]

    assert lab.ask(path, method="DELETE")[0] == 204
    assert lab.ask("scheduler/job_definitions", name="daily")[1]["total_count"] == 0
    assert [run.state for run in store.runs(deployment="daily report")] == [State.SUCCEEDED] * 2


def test_lists_come_in_pages_sorted_as_asked(lab: Lab, created: Any) -> None:
    for name in ("p-b", "p-a", "p-c"):
        created("job_definitions", name=name)
        ended(lab, created("jobs", name=name))

    def pages(kind: str, **query: Any) -> list[list[str]]:
        found, token = [], None
        while True:
            given = {"name": "p-", "max_items": 2} | query | ({"next_token": token} if token else {})
            status, page = lab.ask(f"scheduler/{kind}", **given)
            assert (status, page["total_count"]) == (200, 3), page
            found.append([one["name"] for one in page["jobs" if kind == "jobs" else "job_definitions"]])
            token = page.get("next_token")
            if token is None:
                return found

    for kind in ("jobs", "job_definitions"):
        assert pages(kind) == [["p-c", "p-a"], ["p-b"]]  # newest first
        assert pages(kind, sort_by="asc(name)") == [["p-a", "p-b"], ["p-c"]]
        assert pages(kind, sort_by=["desc(name)"]) == [["p-c", "p-b"], ["p-a"]]
    assert pages("jobs", status="COMPLETED", sort_by="create_time") == [["p-b", "p-a"], ["p-c"]]
    assert lab.ask("scheduler/jobs", sort_by="tags")[0] == 500
