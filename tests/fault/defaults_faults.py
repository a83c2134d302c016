"""Defaults of a server that change under a running shipper, one after the other."""

from fault.running import fault
from fault.score import Score
from fault.stage import Stage
from harness import wait_for
from hostile_settings import READER, SERVERS, administrating, settings_of

LOOKED = ("event=capture.finished", "event=capture.failed", "event=observation.failed")


def defaults_changed(stage: Stage) -> list[Score]:
    """Give new sessions each hostile default: rows are counted, or an error is logged; none stops a job for good."""
    stage.app.configure("//root@", f"//{READER}@")
    every = settings_of("mysql" if stage.server.name == "MySQL" else stage.kind)
    settings = {setting.name: setting for setting in every}.values()
    with administrating(stage.server, stage.database) as administrator:
        stage.app.start()
        stage.write()
        for setting in settings:
            with administrator.changed(setting):
                _wait_for_look(stage, f"a look with {setting}")
            stage.wait("event=capture.finished")
        return [stage.finish(f"{stage.server.name}: defaults changed", len(settings))]


def _wait_for_look(stage: Stage, which: str) -> None:
    """Wait until shipper has captured rows once more, or has failed to."""

    def looks() -> int:
        return sum(stage.app.text().count(event) for event in LOOKED)

    before = looks()
    wait_for(lambda: looks() > before, which)


for _server in SERVERS:
    fault(name=f"defaults_changed_{_server}", kind=_server, has_own_server=True, is_long=True)(defaults_changed)
