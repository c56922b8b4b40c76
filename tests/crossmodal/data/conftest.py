"""The data sets that the tests of tasks write serve here, too."""

from tests.crossmodal.tasks.conftest import save, write_ts  # noqa: F401
