"""Where draws come from, as attributes that go with them."""

import dataclasses
import functools
import json
import platform
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scoresample._version import __version__
from scoresample.samplers import AbstractParticleSampler, AbstractSampler

_PACKAGES = ("jax", "numpyro", "blackjax", "arviz", "equinox", "diffrax")


def attributes_of(sampler: AbstractSampler | AbstractParticleSampler[Any], target: Any) -> dict[str, Any]:
    """What goes with the draws of a sampler from a target."""
    attributes = run_attributes(type(sampler).__name__, json.dumps(settings_of(sampler)), target)
    return attributes | {
        "asymptotically_exact": int(sampler.asymptotically_exact),
        "reference": sampler.reference,
    }


def run_attributes(sampler: str, settings: str, target: Any) -> dict[str, Any]:
    """Where draws come from: sampler, settings (JSON), target, versions (JSON) and device."""
    device = jax.devices()[0]
    return {
        "sampler": sampler,
        "settings": settings,
        "target": type(target).__name__,
        "versions": versions(),
        "device": f"{device.platform}:{device.device_kind}",
    }


@functools.cache
def versions() -> str:
    """Versions of what draws depend on, as JSON: looked up once, since reading the packages' metadata takes long."""
    known = {"scoresample": __version__, "python": platform.python_version()}
    return json.dumps(known | {name: version(name) for name in _PACKAGES})


def settings_of(sampler: eqx.Module) -> dict[str, Any]:
    """A sampler's settings by name, as numbers and strings."""
    settings = {}
    for field in dataclasses.fields(sampler):
        value = getattr(sampler, field.name)
        if isinstance(value, jax.Array | np.ndarray):
            value = np.asarray(value).tolist() if jnp.size(value) <= 1 else f"array of shape {value.shape}"
        elif isinstance(value, tuple | list):
            value = [float(each) for each in value]
        elif isinstance(value, eqx.Module):
            value = " ".join(repr(value).split())
        elif not isinstance(value, int | float | str | bool | None):
            value = type(value).__name__
        settings[field.name] = value
    return settings
