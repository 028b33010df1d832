"""Options and fixtures that all tests share.

The package itself is imported inside the fixtures: type checks are switched on by an import hook that pytest installs
after it has read this file.
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.monitoring
import jax.numpy as jnp
import jaxtyping
import pytest

_MOST_MEMORY_MAPPINGS = 20_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--posteriordb",
        metavar="PATH",
        type=Path,
        help="folder of posteriordb's reference posteriors, one folder each; tests against them are skipped without it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Share compiled programs between the tests, the workers and the scripts that tests start.

    Most of the time of a test is spent in compilation. The folder lives as long as the session.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="scoresample-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between modules, drop the compiled programs when there are too many for one process.

    Each holds some memory mappings, of which Linux gives a process 65,530 by default. Beyond them XLA's next program
    ends in a segmentation fault.
    """
    if nextitem is not None and nextitem.path != item.path and _memory_mappings() > _MOST_MEMORY_MAPPINGS:
        jax.clear_caches()


def _memory_mappings() -> int:
    """How many this process holds; 0 where the system does not say."""
    listing = Path("/proc/self/maps")
    return len(listing.read_bytes().splitlines()) if listing.exists() else 0


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


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Let arguments of a wrong type reach the package's own errors, as they do for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Compilations:
    """Counts what XLA compiles inside a block."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        self.count += event.endswith("backend_compile_duration")

    @contextmanager
    def none_expected(self) -> Generator[None]:
        """Fail if anything is compiled inside the block."""
        before = self.count
        yield
        assert self.count == before, f"{self.count - before} programs were compiled that should have been there"


@pytest.fixture(scope="session")
def compilations() -> Compilations:
    return Compilations()
