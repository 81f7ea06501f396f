"""What all processes of the clusters of these tests have in their environment."""

import secrets

import pytest


@pytest.fixture(scope="session", autouse=True)
def ray_environment():
    """A token of their own, whatever the user's home holds; and no niceness.

    Ray's workers have 15, with which they would starve on a busy machine.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_worker_niceness", "0")
        yield
