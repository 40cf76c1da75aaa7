"""Test cards: what each number does when it is saved, and when it is charged. Numbers and tokens are the provider's public ones."""

from dataclasses import dataclass

from tests.fakes.provider.errors import ApiError, declined


@dataclass(frozen=True, slots=True)
class TestCard:
    """A test card. `saving` and `charging` are decline codes.

    `confirm` is when the bank wants the cardholder: never, "always", or "unless_saved_with" the bank's confirmation.
    """

    __test__ = False

    number: str
    brand: str
    title: str
    saving: str = ""
    charging: str = ""
    confirm: str = ""


def _refused(number: str, code: str, title: str) -> TestCard:
    return TestCard(number, "visa", title, saving=code, charging=code)


CARDS = {
    card.number: card
    for card in (
        TestCard("4242424242424242", "visa", "Visa, succeeds"),
        TestCard("5555555555554444", "mastercard", "Mastercard, succeeds"),
        TestCard("378282246310005", "amex", "American Express, succeeds"),
        TestCard("4000000000000341", "visa", "Visa, can be saved, every charge is declined", charging="generic_decline"),
        TestCard("4000002500003155", "visa", "Visa, bank asks to confirm once, when saving", confirm="unless_saved_with"),
        TestCard("4000002760003184", "visa", "Visa, bank asks to confirm every payment", confirm="always"),
        _refused("4000000000000002", "generic_decline", "Visa, declined"),
        _refused("4000000000009995", "insufficient_funds", "Visa, declined: insufficient funds"),
        _refused("4000000000009987", "lost_card", "Visa, declined: lost"),
        _refused("4000000000009979", "stolen_card", "Visa, declined: stolen"),
        _refused("4000000000000069", "expired_card", "Visa, declined: expired"),
        _refused("4000000000000127", "incorrect_cvc", "Visa, declined: wrong security code"),
        _refused("4000000000000119", "processing_error", "Visa, declined: processing error"),
        _refused("4000000000006975", "card_velocity_exceeded", "Visa, declined: over its limit"),
    )
}
NAMES = {
    "visa": "4242424242424242",
    "mastercard": "5555555555554444",
    "amex": "378282246310005",
    "chargeCustomerFail": "4000000000000341",
    "authenticationRequiredOnSetup": "4000002500003155",
    "authenticationRequired": "4000002760003184",
    "chargeDeclined": "4000000000000002",
    "chargeDeclinedInsufficientFunds": "4000000000009995",
    "chargeDeclinedLostCard": "4000000000009987",
    "chargeDeclinedStolenCard": "4000000000009979",
    "chargeDeclinedExpiredCard": "4000000000000069",
    "chargeDeclinedIncorrectCvc": "4000000000000127",
    "chargeDeclinedProcessingError": "4000000000000119",
    "chargeDeclinedVelocityLimitExceeded": "4000000000006975",
}
TOKENS = {f"{prefix}_{infix}{name}": number for name, number in NAMES.items() for prefix, infix in (("pm", "card_"), ("tok", ""))}
OWN_CODES = {"expired_card", "incorrect_cvc", "processing_error", "authentication_required"}
"""Declines that are the error's own code; the others are `card_declined` with a decline_code."""
MESSAGES = {
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
    "insufficient_funds": "Your card has insufficient funds.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
}


def refusal(decline_code: str, **fields: object) -> ApiError:
    """The error for a refused card, with the provider's message."""
    code = decline_code if decline_code in OWN_CODES else "card_declined"
    shown = decline_code if code == "card_declined" or code == "authentication_required" else None
    return declined(code, MESSAGES.get(decline_code, "Your card was declined."), decline_code=shown, **fields)
