from scoresample.checks import Check
from scoresample.report import form_verdict

PASSED = Check("a", 0.0, 0.0, True, "Fine.", "Nothing.")
WARNED = Check("b", 1.0, 0.0, False, "A little off.", "Look closer.", "warn")
FAILED = Check("c", 2.0, 0.0, False, "Wrong.", "Start again.")
FAILED_TOO = Check("d", 2.0, 0.0, False, "Also wrong.", "Start again.")


def test_levels() -> None:
    assert form_verdict([PASSED, PASSED]).level == "use"
    assert form_verdict([PASSED, WARNED]).level == "use with care"
    assert form_verdict([WARNED, FAILED]).level == "do not use"
    assert form_verdict([]).level == "use with care"


def test_the_sentence_names_the_first_of_the_worst() -> None:
    assert form_verdict([WARNED, FAILED, FAILED_TOO]).sentence == "Wrong. (2 of 3 checks failed.)"
    assert form_verdict([PASSED, WARNED]).sentence == "A little off. (1 of 2 checks gave a warning.)"
    assert form_verdict([PASSED, PASSED]).sentence == "All 2 checks passed."
    assert str(form_verdict([PASSED])) == "use. Its one check passed."


def test_reasons_put_failures_first_and_name_a_remedy_once() -> None:
    verdict = form_verdict(iter([WARNED, FAILED, PASSED, FAILED_TOO]))
    assert verdict.failures == (FAILED, FAILED_TOO, WARNED)
    assert verdict.reasons == (("Wrong.", "Start again."), ("Also wrong.", ""), ("A little off.", "Look closer."))
