"""The doctor on a whole plant: nothing wrong where all is well, and the class of what is wrong where it is not."""

from __future__ import annotations

import json

from gatewayd.core.doctor import Area
from gatewayd.lab.demo.stage import Stage


def test_where_all_is_well_nothing_is_wrong_and_every_class_was_looked_at(stage: Stage) -> None:
    done = stage.ctl("doctor", "--json", check=False)  # with the file that the daemon runs with
    found = json.loads(done.stdout)["findings"]
    assert [each for each in found if each["verdict"] in ("problem", "unknown")] == []
    assert {each["area"] for each in found} == {str(area) for area in Area}
    assert done.returncode == 0
