"""Local energies across scales: against closed forms, and as targets of samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.wavelets import ConditionalGaussianField, LocalEnergyPath, WaveletTransform, fit_wavelet_energies
from scoresample.wavelets._field_kernels import field_kernels
from scoresample.wavelets._fit_energies import fit_energy
from scoresample.wavelets._lattice_terms import (
    has_lower_bound,
    laplacians,
    lattice_terms,
    num_terms,
    projection_overlaps,
    slopes,
)


def independent_sites(key: Array, num: int, shape: tuple[int, ...]) -> Array:
    """Fields of independent sites with the density ``exp(-(u^4 - u^2))``, by inversion."""
    grid = np.linspace(-3, 3, 20001)
    cumulative = np.cumsum(np.exp(-(grid**4 - grid**2)))
    return jnp.interp(jax.random.uniform(key, (num, *shape)), jnp.asarray(cumulative / cumulative[-1]), grid)


def relative_error(found: Array, exact: Array) -> float:
    return float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))


@pytest.mark.parametrize(("shape", "even"), [((8,), True), ((8,), False), ((4, 8), True), ((4, 8), False)])
def test_an_energy_is_the_sum_of_its_terms(shape: tuple[int, ...], even: bool) -> None:
    field = jax.random.normal(jax.random.key(0), shape)
    mean = 0.0 if even else 0.3
    terms = lattice_terms((field - mean) / 2, 0.7, even=even)
    couplings = jax.random.normal(jax.random.key(1), terms.shape)
    path = LocalEnergyPath(
        couplings, jax.ShapeDtypeStruct(shape, field.dtype), None,
        mean=mean, deviation=2.0, scale=jnp.full(shape, 2.0), even=even, mean_deviation=0.7,
    )  # fmt: skip
    np.testing.assert_allclose(path.energy(field), couplings @ terms, rtol=1e-4)
    np.testing.assert_allclose(path.logdensity(field, 0.0), -couplings @ terms, rtol=1e-4)


@pytest.mark.parametrize("wavelet", [None, "haar", "db2"])
@pytest.mark.parametrize(("shape", "even"), [((8,), False), ((2, 2), True), ((4, 8), True), ((4, 8), False)])
def test_slopes_and_curvatures_are_the_derivatives_of_the_terms(
    shape: tuple[int, ...], even: bool, wavelet: str | None
) -> None:
    """Against automatic differentiation, along details where there is a transform."""
    u = jax.random.normal(jax.random.key(0), shape)
    of_mean = 0.7 if wavelet is None else None
    step = None if wavelet is None else WaveletTransform(shape, wavelet, 1)
    low, part = (u, u) if step is None else step.split(u)

    def terms(part: Array) -> Array:
        return lattice_terms(part if step is None else step.merge(low, part), of_mean, even=even)

    along = slopes(u, of_mean, even=even)
    along = along if step is None else step.split(along)[1]
    np.testing.assert_allclose(along, jax.jacrev(terms)(part), rtol=1e-4, atol=1e-4)
    hessians = jax.hessian(terms)(part).reshape(-1, part.size, part.size)
    found = laplacians(u, projection_overlaps(shape, step), of_mean, even=even)
    np.testing.assert_allclose(found, jnp.trace(hessians, axis1=1, axis2=2), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(16,), (8, 8)])
def test_details_of_a_gaussian_field_have_their_exact_scores(shape: tuple[int, ...]) -> None:
    """The free field: couplings of neighbours are the whole law of the finest details."""
    wave = sum(4 * np.sin(np.pi * k / n) ** 2 for k, n in zip(np.indices(shape), shape, strict=True))
    field = ss.GaussianField(jnp.asarray(1 / (0.5 + wave)))
    path = fit_wavelet_energies(field.sample(jax.random.key(0), 4000), levels=1, even=True)
    fields = field.sample(jax.random.key(1), 100)
    low, details = path.transform.split(fields)
    exact = ConditionalGaussianField(field, ss.VP(), wavelet="haar")
    wanted = jax.vmap(lambda x, d: exact.given(x)(d, 1e-6))(low, details)
    found = jax.vmap(lambda x, d: path.stages[1].given(x)(d, 0.0))(low, details)
    assert relative_error(found, wanted) < 0.05


def test_potentials_of_sites_that_are_not_normal_are_found() -> None:
    fields = independent_sites(jax.random.key(0), 4000, (4, 4))
    path = fit_wavelet_energies(fields, levels=1, even=True)
    low, details = path.transform.split(fields[:200])
    scores = -(4 * fields[:200] ** 3 - 2 * fields[:200])
    wanted = path.transform.split(scores)[1]
    found = jax.vmap(lambda x, d: path.stages[1].given(x)(d, 0.0))(low, details)
    assert relative_error(found, wanted) < 0.1


def test_fields_that_are_not_even_have_their_mean() -> None:
    field = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0), 3.0)
    path = fit_wavelet_energies(field.sample(jax.random.key(0), 4000))
    draws = ss.sample(path, ss.ParallelMALA(num_steps=200), key=jax.random.key(1), num_samples=500, num_chains=1)
    found = np.asarray(draws.position)[0].mean(axis=(1, 2))
    assert abs(found.mean() - 3.0) < 4 * found.std() / np.sqrt(500) + 0.05


def test_draws_have_the_power_and_the_modes_of_the_fields() -> None:
    """A law of three modes."""
    key = jax.random.key(0)
    levels = 1.5 * jax.random.rademacher(key, (6000, 1, 1), float)
    field = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0))
    noise = 0.5 * field.sample(jax.random.key(1), 6000)
    fields = levels * (jax.random.uniform(jax.random.key(2), (6000, 1, 1)) < 0.7) + noise
    path = fit_wavelet_energies(fields, even=True)
    draws = ss.sample(path, ss.ParallelMALA(num_steps=400), key=jax.random.key(3), num_samples=2000, num_chains=1)
    found, wanted = (np.asarray(x).reshape(-1, 4, 4) for x in (draws.position, fields))
    for statistic in (lambda x: x.var(axis=(1, 2)), lambda x: np.abs(x.mean(axis=(1, 2)))):
        ours, theirs = statistic(found), statistic(wanted)
        error = np.hypot(ours.std() / np.sqrt(len(ours)), theirs.std() / np.sqrt(len(theirs)))
        assert abs(ours.mean() - theirs.mean()) < 5 * error + 0.02


@pytest.mark.parametrize("share", [0.8, 0.03])
def test_unequal_shares_of_modes_are_learned(share: float) -> None:
    """By the likelihood: score matching does not see the shares of modes that are apart."""
    upper = jax.random.uniform(jax.random.key(0), (4000, 1, 1)) < share
    fields = jnp.where(upper, 2.0, -2.0) + 0.7 * jax.random.normal(jax.random.key(1), (4000, 4, 4))
    coarsest = fit_wavelet_energies(fields, levels=1).stages[0]
    # Half the proposals are near each mode, and the energy is normalised by them.
    signs = jnp.where(jnp.arange(4000) % 2 == 0, 1.0, -1.0)
    proposals = 4.0 * signs[:, None, None] + jax.random.normal(jax.random.key(2), (4000, 2, 2))
    own = jnp.logaddexp(*(-0.5 * jnp.sum((proposals - centre) ** 2, axis=(1, 2)) for centre in (4.0, -4.0)))
    weights = jax.nn.softmax(jax.vmap(lambda x: coarsest.logdensity(x, 0.0))(proposals) - own)
    error = 4 * np.sqrt(share * (1 - share) / 4000)
    assert abs(float(jnp.sum(weights * (signs > 0))) - float(jnp.mean(upper))) < error + 0.005


@pytest.mark.filterwarnings("ignore:The energy of fields")
def test_one_sided_fields_teach_an_even_energy_both_signs() -> None:
    fields = 2.0 + 0.7 * np.random.default_rng(0).normal(size=(4000, 4, 4))
    coarsest = fit_wavelet_energies(fields, levels=1, even=True).stages[0]
    density = jax.vmap(lambda m: coarsest.logdensity(jnp.full((2, 2), m), 0.0))(jnp.array([4.0, -4.0, 0.0]))
    # (4 / 1.4)^2 / 2 on each of the four sites, in the direction of the mean alone.
    assert float(density[0]) == pytest.approx(float(density[1]))
    assert 10 < float(density[0] - density[2]) < 100


def test_units_do_not_matter() -> None:
    fields = np.random.default_rng(0).normal(size=(1000, 4, 4))
    found = [fit_wavelet_energies(unit * fields, levels=1, even=True).stages[0] for unit in (1.0, 1e-7, 1e7)]
    for other in found[1:]:
        np.testing.assert_allclose(other.couplings, found[0].couplings, rtol=1e-2, atol=1e-3)


def test_a_likelihood_that_is_out_of_reach_is_told() -> None:
    """Sites of +-1, apart: too many modes for the proposals."""
    rng = np.random.default_rng(0)
    fields = rng.choice([-1.0, 1.0], (1000, 4, 4)) + 0.05 * rng.normal(size=(1000, 4, 4))
    field = jnp.asarray(fields, float)
    with pytest.warns(UserWarning, match="likelihood was out of reach"):
        fit_energy(field, field, None, even=True, seed=0)


@pytest.mark.parametrize("even", [True, False])
def test_chains_start_near_fields(even: bool) -> None:
    """Two narrow modes of unequal shares: with `even`, and their mirror images."""
    upper = jax.random.uniform(jax.random.key(0), (4000, 1, 1)) < 0.8
    noise = 0.3 * ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0)).sample(jax.random.key(1), 4000)
    kernels = field_kernels(jnp.where(upper, 3.0, -1.0) + noise, even=even, seed=0)
    found = np.asarray(kernels.sample(jax.random.key(2), 4000))
    means = found.mean(axis=(1, 2))
    shares = [np.mean(np.abs(means - centre) < 1) for centre in (3, -1, 1, -3)]
    wanted = [0.4, 0.1, 0.1, 0.4] if even else [0.8, 0.2, 0.0, 0.0]
    np.testing.assert_allclose(shares, wanted, atol=4 * np.sqrt(0.25 / 256))
    # As wide as the noise, or somewhat wider: neighbours are apart by less than two of its deviations.
    within = found - np.round((means - 1) / 2)[:, None, None] * 2 - 1
    assert 1 < within.var() / float(noise.var()) < 3
    # The density's own score: minus the derivative of -log q, in the mean zero.
    scores = jax.vmap(jax.grad(kernels.logdensity))(jnp.asarray(found))
    assert np.abs(np.asarray(scores).mean(axis=0)).max() < 5 * np.asarray(scores).std() / np.sqrt(4000)


def test_energies_without_a_lower_bound_are_seen() -> None:
    quadratic, quartic = num_terms(2)
    step = WaveletTransform((4, 4), "haar", 1)
    couplings = np.zeros(quadratic + quartic)
    couplings[0] = 1.0
    assert has_lower_bound(couplings, (4, 4), None)
    couplings[1:3] = -0.4
    # u^2/2 - .4 (u_x u_(x+1) + ...): negative along constant fields, which are none of details.
    assert not has_lower_bound(couplings, (4, 4), None)
    assert has_lower_bound(couplings, (4, 4), step)
    couplings[1:3] = 0.4
    assert not has_lower_bound(couplings, (4, 4), step)
    couplings[quadratic] = 1.0
    assert has_lower_bound(couplings, (4, 4), step)
    couplings[quadratic + 2] = 1.0
    assert not has_lower_bound(couplings, (4, 4), step)


def test_the_bound_of_quartic_terms_is_that_of_fields_of_two_values() -> None:
    """On a line those are the first to tell."""
    quadratic, _ = num_terms(1)
    angles = np.linspace(0, np.pi, 2001)
    pairs = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    terms = np.array([[0.25 * np.sum(x**4), 2 * np.prod(x**2), 2 * np.prod(x) * np.sum(x**2)] for x in pairs])
    answers = []
    for couplings in np.random.default_rng(0).normal([4, 0, 0], [2, 1, 0.7], size=(200, 3)):
        bounded = bool(np.min(terms @ couplings) > 0)
        answers.append(bounded)
        assert has_lower_bound(np.concatenate([np.zeros(quadratic), couplings]), (4,), None) == bounded
    assert 20 < sum(answers) < 180


@pytest.mark.parametrize("shape", [(32, 32), (2048,)])
def test_the_least_curvature_of_large_fields_is_found(shape: tuple[int, ...]) -> None:
    """Without couplings of neighbours it is the coupling of a site; just below zero there is no bound."""
    couplings = np.zeros(sum(num_terms(len(shape))))
    for value in (0.01, -0.01):
        couplings[0] = value
        assert has_lower_bound(couplings, shape, WaveletTransform(shape, "haar", 1)) == (value > 0)


def test_densities_that_lack_a_constant_for_each_coarser_field_do_not_join() -> None:
    fields = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0)).sample(jax.random.key(0), 300)
    with pytest.raises(TypeError, match="known up to a constant for each"):
        ss.CascadedDensity(fit_wavelet_energies(fields, levels=1))


def test_fields_that_cannot_be_used_are_refused() -> None:
    fields = np.random.default_rng(0).normal(size=(200, 4, 4))
    with pytest.raises(TypeError, match="`fields` must be real numbers"):
        fit_wavelet_energies(fields[0, 0])
    with pytest.raises(ValueError, match="at least 100 fields"):
        fit_wavelet_energies(fields[:20])
    with pytest.raises(ValueError, match="values are not finite"):
        fit_wavelet_energies(np.where(fields > 3, np.nan, fields) * np.array([np.nan] + [1.0] * 3))
    with pytest.raises(ValueError, match="does not vary"):
        fit_wavelet_energies(np.zeros((200, 4, 4)))
    path = fit_wavelet_energies(fields, levels=1)
    with pytest.raises(TypeError, match="coarsest field 2 x 2 is a LocalEnergyPath, which has no noise process"):
        path.with_process(ss.VP())
    with pytest.raises(ValueError, match=r"call path\.given"):
        path.stages[1](jnp.zeros((3, 2, 2)), 0.0)
    with pytest.raises(ValueError, match="`low` must be the coarser field"):
        path.stages[1].given(jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match="given nothing"):
        path.stages[0].given(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="`couplings` must be"):
        LocalEnergyPath(
            jnp.zeros(3), jax.ShapeDtypeStruct((3, 2, 2), jnp.float32), WaveletTransform((4, 4), "haar", 1),
            mean=0.0, deviation=1.0, scale=jnp.ones((3, 2, 2)), even=True,
        )  # fmt: skip
