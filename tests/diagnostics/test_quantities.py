from typing import Any

import jax.numpy as jnp
import numpy as np

from scoresample.diagnostics import coordinates, quantities
from tests.diagnostics.made_draws import made_draws, normal_chains


def hierarchical(position: dict[str, Any]) -> dict[str, Any]:
    mu, tau, base = position["mu"], jnp.exp(position["tau"]), position["base"]
    return {"mu": mu, "tau": tau, "base": base, "theta": mu + tau * base, "one": jnp.ones(())}


def test_labels_say_what_is_unconstrained_and_what_is_derived() -> None:
    position = {"mu": normal_chains(0), "tau": normal_chains(1), "base": normal_chains(2, 2)}
    draws = made_draws(position, constrain=hierarchical)
    found = quantities(draws)
    assert list(found) == ["base[0]", "base[1]", "mu", "tau (unconstrained)", "theta[0]", "theta[1]"]
    assert all(value.shape == (4, 1000) and value.dtype == np.float64 for value in found.values())
    np.testing.assert_allclose(found["tau (unconstrained)"], position["tau"])
    np.testing.assert_allclose(
        found["theta[1]"], position["mu"] + np.exp(position["tau"]) * position["base"][..., 1], rtol=1e-4, atol=1e-5
    )


def test_coordinates_have_the_order_of_ravel_pytree() -> None:
    position = {"b": normal_chains(0, 2, 2), "a": normal_chains(1)}
    flat = coordinates(made_draws(position))
    assert flat.shape == (4, 1000, 5)
    np.testing.assert_array_equal(flat[..., 0], position["a"])
    np.testing.assert_array_equal(flat[..., 1:], position["b"].reshape(4, 1000, 4))


def test_a_bare_array_has_one_name_whatever_its_site_is_called() -> None:
    position = normal_chains(0, 2)
    assert list(quantities(made_draws(position))) == ["x[0]", "x[1]"]
    renamed = made_draws(position, constrain=lambda one: {"z": one})
    assert list(quantities(renamed)) == ["z[0]", "z[1]"]


def test_matrices_and_integer_sites_are_labelled_entry_by_entry() -> None:
    draws = made_draws(
        {"x": normal_chains(0)}, constrain=lambda p: {**p, "sign": jnp.sign(p["x"]).astype(int) * jnp.ones((1, 2), int)}
    )
    assert list(quantities(draws)) == ["x", "sign[0, 0]", "sign[0, 1]"]
