"""Fixtures that several folders of tests share, and one rule: no test fails for being slow."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.hub_fixture", "tests.support.published"]

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
