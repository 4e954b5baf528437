"""A directory that comes back at another port is found again by whoever has its profile; another one is not."""

from __future__ import annotations

from tests.processes.desk import Desk, desk  # noqa: F401  # a fixture


def test_a_directory_that_listens_elsewhere_now_is_found_by_its_profile(desk: Desk) -> None:  # noqa: F811
    desk.stop(desk.directory())
    desk.directory()
    assert "is registered" in desk.run("status")


def test_the_profile_of_another_directory_stays(desk: Desk) -> None:  # noqa: F811
    desk.stop(desk.directory())
    profile = desk.folder / "home" / "profile.json"
    other = "agentbus://127.0.0.1:1#" + "A" * 43 + "." + "A" * 43
    profile.write_text(f'{{"url": "{other}"}}')
    desk.directory()
    assert other in profile.read_text()
