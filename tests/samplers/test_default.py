"""Without a name, the sampler follows from the kind of target."""

import jax
import pytest

import scoresample as ss
from scoresample.samplers import default_sampler
from tests import cases

EXPECTED = {
    "noised mixture": ss.ProbabilityFlowODE(),
    "noised gaussian of a tree": ss.ProbabilityFlowODE(),
    "network of a tree": ss.ReverseSDE(eta=0.5),
    "network under another process": ss.ReverseSDE(eta=0.5),
    "tempered": ss.AnnealedLangevin(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_of_a_path(name: str) -> None:
    assert default_sampler(cases.PATHS[name]()) == EXPECTED[name]


def test_of_an_exact_path_under_another_process() -> None:
    assert default_sampler(ss.perturb(cases.mixture(), ss.VP()).with_process(ss.EDM())) == ss.ProbabilityFlowODE()


def test_of_a_density() -> None:
    assert default_sampler(cases.mixture()) == ss.NUTS()


def test_a_bare_score_has_none() -> None:
    with pytest.raises(TypeError, match=r"`sampler`: a score without its density.*ULA.*LineIntegralDensity"):
        ss.sample(cases.bare(), key=jax.random.key(0))


def test_draws_say_how_it_was_chosen() -> None:
    path = ss.perturb(cases.mixture(), ss.VP())
    chosen = ss.sample(path, key=jax.random.key(0), num_samples=4)
    named = ss.sample(path, ss.ProbabilityFlowODE(), key=jax.random.key(0), num_samples=4)
    assert chosen.attributes["sampler"] == "ProbabilityFlowODE"
    assert chosen.attributes["sampler_chosen"] == "by default"
    assert named.attributes["sampler_chosen"] == "by name"
    assert (chosen.position == named.position).all()
