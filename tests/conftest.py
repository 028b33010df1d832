"""Options and fixtures that all tests share.

The package itself is imported inside the fixtures: type checks are switched on by an import hook that pytest installs
after it has read this file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.monitoring
import jax.numpy as jnp
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--posteriordb",
        metavar="PATH",
        type=Path,
        help="folder of posteriordb's reference posteriors, one folder each; tests against them are skipped without it",
    )


@pytest.fixture(scope="session")
def posteriordb(request: pytest.FixtureRequest) -> Path:
    """The folder of reference posteriors that `--posteriordb` names."""
    path = request.config.getoption("--posteriordb")
    if path is None:
        pytest.skip("no folder of reference posteriors: pass --posteriordb PATH")
    if not path.is_dir():
        raise pytest.UsageError(f"--posteriordb: there is no folder {path}")
    return path


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest) -> Iterator[jnp.dtype]:
    """The default floating dtype of the test: it runs once with each."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


class Compilations:
    """Counts what XLA compiles inside a block."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: str | int) -> None:
        del duration
        self.count += event.endswith("backend_compile_duration")

    @contextmanager
    def none_expected(self) -> Iterator[None]:
        """Fail if anything is compiled inside the block."""
        before = self.count
        yield
        assert self.count == before, f"{self.count - before} programs were compiled that should have been there"


@pytest.fixture(scope="session")
def compilations() -> Compilations:
    return Compilations()
