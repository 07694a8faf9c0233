"""Fixtures that several folders of tests share, and one rule: no test fails for being slow."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.hub_fixture", "tests.support.published"]

os.environ.pop("FORCE_COLOR", None)  # tests read what commands print

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
