"""Progress bars, and the seconds that compiling takes."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
from tqdm import tqdm

_SECONDS_BEFORE_SHOWN = 2.0
_CHUNKS = 20
"""A run that shows its progress is cut into about this many chunks of one compiled length."""
_compile_seconds = 0.0
_listening = False


def wants_progress(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or only where a person watches."""
    return sys.stderr.isatty() if progress is None else progress


def chunk_length(num_steps: int, *, must_divide: bool = False) -> int:
    """The steps of one chunk: a divisor near a twentieth where there is one.

    Where there is none, a twentieth (the last chunk then runs past the end), or all steps if it must divide.
    """
    ideal = max(num_steps // _CHUNKS, 1)
    divisors = [k for k in range(ideal, 4 * ideal + 1) if num_steps % k == 0]
    return divisors[0] if divisors else (num_steps if must_divide else ideal)


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
