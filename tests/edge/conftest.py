from tests.cloud.conftest import address  # noqa: F401
