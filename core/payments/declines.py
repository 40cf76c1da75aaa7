"""What a decline code means: whether to try that payment method again, and what to tell the customer. Pure.

Codes are those of the card networks as Stripe names them (docs.stripe.com/declines/codes), plus our own
`amount_not_representable`. Hard: the same method will be refused again, so it is not retried until the customer changes it.
A card reported lost or stolen, or suspected of fraud, is described as a general decline: the person who reads the
sentence may not be its owner.
"""

from dataclasses import dataclass

DO_NOT_DISCLOSE = "declined by the bank"


@dataclass(frozen=True, slots=True)
class Decline:
    """One decline code. `reason` fits into "Your bank declined the card ending 4242 (…)."; `advice` is a sentence."""

    code: str
    hard: bool
    reason: str
    advice: str

    @property
    def sentence(self) -> str:
        """Reason and advice for the customer, in two sentences."""
        return f"The payment was declined ({self.reason}). {self.advice}"


ANOTHER = "Use another payment method, or ask your bank why."
LATER = "We will try again; you can also use another payment method."
DETAILS = "Save the card again with the right details."
CONFIRM = "Open the invoice and pay it yourself, so that your bank can ask you to confirm."

_HARD = {
    "card_not_supported": ("the card does not allow this kind of payment", ANOTHER),
    "currency_not_supported": ("the card does not allow this currency", ANOTHER),
    "debit_not_authorized": ("the debit was not authorised", "Save the bank account again, or use another payment method."),
    "do_not_try_again": ("the bank gave no reason", ANOTHER),
    "expired_card": ("the card has expired", "Save a card that is still valid."),
    "fraudulent": (DO_NOT_DISCLOSE, ANOTHER),
    "highest_risk_level": (DO_NOT_DISCLOSE, ANOTHER),
    "incorrect_address": ("the address does not match the card", DETAILS),
    "incorrect_cvc": ("the security code is wrong", DETAILS),
    "incorrect_number": ("the card number is wrong", DETAILS),
    "incorrect_zip": ("the postal code does not match the card", DETAILS),
    "invalid_account": ("the account of the card does not exist", ANOTHER),
    "invalid_amount": ("the bank does not allow the amount", ANOTHER),
    "invalid_cvc": ("the security code is wrong", DETAILS),
    "invalid_expiry_month": ("the expiry month is wrong", DETAILS),
    "invalid_expiry_year": ("the expiry year is wrong", DETAILS),
    "invalid_number": ("the card number is wrong", DETAILS),
    "lost_card": (DO_NOT_DISCLOSE, ANOTHER),
    "merchant_blacklist": (DO_NOT_DISCLOSE, ANOTHER),
    "new_account_information_available": ("the card was replaced", "Save the new card."),
    "no_action_taken": (DO_NOT_DISCLOSE, ANOTHER),
    "not_permitted": ("the card does not allow this payment", ANOTHER),
    "offline_pin_required": ("the bank asks for a PIN", ANOTHER),
    "online_or_offline_pin_required": ("the bank asks for a PIN", ANOTHER),
    "pickup_card": (DO_NOT_DISCLOSE, ANOTHER),
    "pin_try_exceeded": ("too many wrong PINs", ANOTHER),
    "restricted_card": (DO_NOT_DISCLOSE, ANOTHER),
    "revocation_of_all_authorizations": ("the cardholder withdrew the permission", ANOTHER),
    "revocation_of_authorization": ("the cardholder withdrew the permission", ANOTHER),
    "security_violation": (DO_NOT_DISCLOSE, ANOTHER),
    "service_not_allowed": ("the card does not allow this payment", ANOTHER),
    "stolen_card": (DO_NOT_DISCLOSE, ANOTHER),
    "stop_payment_order": ("the cardholder stopped payments", ANOTHER),
    "testmode_decline": ("a test card was used", "Save a real card."),
    "transaction_not_allowed": ("the card does not allow this payment", ANOTHER),
    "authentication_required": ("the bank asks the cardholder to confirm", CONFIRM),
    "authentication_not_handled": ("the bank asks the cardholder to confirm", CONFIRM),
    "payment_intent_authentication_failure": ("the confirmation with the bank failed", CONFIRM),
    "setup_intent_authentication_failure": ("the confirmation with the bank failed", "Save the card again and confirm it with your bank."),
    "mobile_device_authentication_required": ("the bank asks the cardholder to confirm", CONFIRM),
    # The request itself cannot be charged; the same request never can.
    "amount_not_representable": ("the amount cannot be charged in this currency", "Please contact us."),
    "amount_too_large": ("the amount is above what can be charged at once", "Please contact us to pay by bank transfer."),
    "amount_too_small": ("the amount is below what can be charged", "Please contact us to pay another way."),
    "resource_missing": ("the payment method no longer exists", "Save a payment method again."),
    "canceled": ("the payment was cancelled", "You can pay again at any time."),
    "abandoned": ("the payment was not completed", "You can pay again at any time."),
}
_SOFT = {
    "approve_with_id": ("the bank could not authorise the payment", LATER),
    "call_issuer": ("the bank gave no reason", ANOTHER),
    "card_declined": (DO_NOT_DISCLOSE, ANOTHER),
    "card_velocity_exceeded": ("the limit of the card is reached", LATER),
    "do_not_honor": ("the bank gave no reason", ANOTHER),
    "duplicate_transaction": ("the bank saw the same payment a moment ago", LATER),
    "generic_decline": ("the bank gave no reason", ANOTHER),
    "insufficient_funds": ("insufficient funds", LATER),
    "invalid_pin": ("the PIN is wrong", LATER),
    "issuer_not_available": ("the bank cannot be reached", LATER),
    "processing_error": ("the card network had a problem", LATER),
    "reenter_transaction": ("the bank could not process the payment", LATER),
    "try_again_later": ("the bank cannot answer now", LATER),
    "withdrawal_count_limit_exceeded": ("the limit of the card is reached", LATER),
}

DECLINES = {code: Decline(code, hard, *text) for hard, table in ((True, _HARD), (False, _SOFT)) for code, text in table.items()}


def decline(code: str | None) -> Decline:
    """Return what a decline code means; one that is not in the table is soft, as a bank's general refusal is."""
    known = DECLINES.get(code or "generic_decline")
    return known or Decline(code or "generic_decline", False, DECLINES["generic_decline"].reason, ANOTHER)
