"""The provider's hosted pages, for a person in a browser: choose a test card, and confirm with the bank. No JavaScript."""

from decimal import Decimal

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from tests.fakes.provider import cards
from tests.fakes.provider.context import store
from tests.fakes.provider.customers import make_payment_method
from tests.fakes.provider.errors import ApiError, declined
from tests.fakes.provider.payments import ONE_ZERO, settle
from tests.fakes.provider.setups import complete_session, confirm_setup, current_session, failed_setup, save_setup
from tests.fakes.provider.store import Object

bp = Blueprint("pages", __name__, url_prefix="/hosted", template_folder="templates")
NO_DECIMALS = set("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())  # noqa: SIM905 - a table to read


@bp.get("/setup/<identity>")
def show_setup(identity: str) -> Response:
    """The choice of a card."""
    session = current_session(identity)
    if session["status"] != "open":
        return Response(render_template("closed.html", message="This page was used or has expired. Go back and start again."), 410)
    return _choice(session)


@bp.post("/setup/<identity>")
def choose(identity: str) -> BaseResponse:
    """Save the chosen card and go back, or go on to the bank, or say why not."""
    with store().change():
        session = current_session(identity)
        if session["status"] != "open":
            return redirect(f"/hosted/setup/{identity}", 303)
        number = request.form.get("card", "")
        if number not in cards.CARDS:
            return _choice(session, "Choose a card.", 422)
        method = make_payment_method(number, {"billing_details": {"name": request.form.get("name", "").strip()[:200] or None}})
        intent = store().get("setup_intent", session["setup_intent"])
        try:
            intent = confirm_setup(intent, method["id"], f"/hosted/return/{identity}")
        except ApiError as error:
            return _choice(session, str(error), error.status)
        if intent["status"] == "requires_action":
            return redirect(f"/hosted/confirm/{intent['id']}", 303)
        return redirect(_back(complete_session(session, intent)), 303)


@bp.get("/return/<identity>")
def come_back(identity: str) -> BaseResponse:
    """After the bank: on to the product, or the choice again with the reason."""
    with store().change():
        session = current_session(identity)
        intent = store().get("setup_intent", session["setup_intent"])
        if session["status"] == "open" and intent["status"] == "succeeded":
            session = complete_session(session, intent)
        if session["status"] == "complete":
            return redirect(_back(session), 303)
        return _choice(session, (intent["last_setup_error"] or {}).get("message"), 402)


@bp.get("/confirm/<identity>")
def show_bank(identity: str) -> Response:
    """The bank's question."""
    intent = store().find(identity)
    if intent is None or intent["object"] not in ("setup_intent", "payment_intent") or intent["status"] != "requires_action":
        return Response(render_template("closed.html", message="Your bank has nothing to ask you here."), 410)
    card = store().get("payment_method", intent["payment_method"])["card"]
    return Response(render_template("bank.html", amount=_shown(intent), card=card, address=request.path))


@bp.post("/confirm/<identity>")
def answer_bank(identity: str) -> BaseResponse:
    """The cardholder's answer; then back to where they came from."""
    with store().change():
        intent = store().find(identity)
        if intent is None or intent.get("status") != "requires_action":
            return redirect(f"/hosted/confirm/{identity}", 303)
        return_url = str(intent["next_action"]["redirect_to_url"]["return_url"])
        confirmed = request.form.get("answer") == "yes"
        if intent["object"] == "payment_intent":
            done, name = settle(intent, confirmed=confirmed), "payment_intent"
        else:
            done, name = _settle_setup(intent, confirmed), "setup_intent"
        query = f"{name}={identity}&redirect_status={'succeeded' if done['status'] == 'succeeded' else 'failed'}"
        return redirect(f"{return_url}{'&' if '?' in return_url else '?'}{query}", 303)


def _settle_setup(intent: Object, confirmed: bool) -> Object:
    if confirmed:
        return save_setup(intent, store().get("payment_method", intent["payment_method"]), confirmed=True)
    refused = declined("setup_intent_authentication_failure", "Your bank could not confirm that it is you. The card was not saved.")
    return failed_setup(intent, refused)


def _shown(intent: Object) -> str | None:
    """The amount as a person reads it; None when nothing is charged."""
    if intent["object"] != "payment_intent":
        return None
    currency = str(intent["currency"]).upper()
    digits = 0 if currency in NO_DECIMALS else 3 if currency.lower() in ONE_ZERO else 2
    return f"{Decimal(intent['amount']).scaleb(-digits):,f} {currency}"


def _choice(session: Object, problem: str | None = None, status: int = 200) -> Response:
    body = render_template("setup.html", session=session, cards=cards.CARDS.values(), problem=problem, chosen=request.form.get("card"))
    return Response(body, status)


def _back(session: Object) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])
