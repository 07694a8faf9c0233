"""Fixtures that several folders of tests share."""

pytest_plugins = ["tests.support.hub_fixture", "tests.support.published"]
