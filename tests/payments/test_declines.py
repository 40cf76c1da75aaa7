"""What a decline code means for the retry and for the customer."""

import re

import pytest

from core.payments.declines import DECLINES, decline


@pytest.mark.parametrize(
    ("code", "hard"),
    [
        ("insufficient_funds", False),
        ("processing_error", False),
        ("do_not_honor", False),
        ("issuer_not_available", False),
        ("generic_decline", False),
        ("expired_card", True),
        ("lost_card", True),
        ("stolen_card", True),
        ("do_not_try_again", True),
        ("authentication_required", True),
        ("amount_not_representable", True),
    ],
)
def test_hard_codes_are_not_worth_a_retry(code: str, hard: bool) -> None:
    assert decline(code).hard is hard


def test_an_unknown_code_reads_as_a_general_refusal_and_keeps_its_name() -> None:
    assert decline("brand_new_code").code == "brand_new_code"
    assert not decline("brand_new_code").hard
    assert decline(None).code == "generic_decline"


@pytest.mark.parametrize("code", sorted(DECLINES))
def test_every_sentence_can_be_shown(code: str) -> None:
    sentence = decline(code).sentence
    assert re.fullmatch(r"The payment was declined \([^()]+\)\. [A-Z][^_]+\.", sentence), sentence
    assert "  " not in sentence


@pytest.mark.parametrize("code", ["lost_card", "stolen_card", "fraudulent", "pickup_card"])
def test_the_customer_is_not_told_of_theft_or_suspicion(code: str) -> None:
    assert not re.search(r"lost|stolen|fraud|pick", decline(code).sentence)
