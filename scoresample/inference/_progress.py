"""Progress bars, and the seconds that compiling takes."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
from tqdm import tqdm

_SECONDS_BEFORE_SHOWN = 2.0
_compile_seconds = 0.0
_listening = False


def wants_progress(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or only where a person watches."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def progress_bar(total: int, label: str, *, show: bool) -> Generator["tqdm[NoReturn]"]:
    """A bar that appears on standard error once the work has taken two seconds."""
    bar = tqdm(total=total, desc=label, disable=not show, delay=_SECONDS_BEFORE_SHOWN, leave=False, dynamic_ncols=True)
    with bar:
        yield bar


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    global _compile_seconds
    if event.endswith(("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")):
        _compile_seconds += duration_secs


def compile_seconds() -> float:
    """Seconds that JAX has spent on tracing and compiling since this was first called."""
    global _listening
    if not _listening:
        jax.monitoring.register_event_duration_secs_listener(_listen)
        _listening = True
    return _compile_seconds
