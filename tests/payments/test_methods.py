"""Saving, choosing and forgetting payment methods, by token and on the provider's own page."""

from __future__ import annotations

import pytest
import requests
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict, Declined, Invalid, NotFound
from core.payments import collect, methods, queries, reconcile, setups
from core.payments.gateways.stripe import StripeGateway
from core.payments.models import PaymentCustomer, PaymentMethod, SetupAttempt
from tests.factories import make_organization, make_plan, make_subscription
from tests.fakes.fixtures import ProviderFake
from tests.payments.billing import NOW, facts, open_invoice, save_card


def test_a_card_is_saved_by_its_token(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    assert (method.brand, method.last_four, method.type, method.is_default) == ("visa", "4242", "card", True)
    assert method.provider_payment_method_id.startswith("pm_")
    second = save_card(organization, "pm_card_mastercard", make_default=False)
    third = save_card(organization, "pm_card_amex")
    session.expire_all()
    assert [(found.id, found.is_default) for found in queries.methods(session, organization.id)] == [
        (third.id, True),
        (second.id, False),
        (method.id, False),
    ]
    assert session.scalar(select(func.count()).select_from(PaymentCustomer)) == 1
    assert len(facts(session, "payment_method.added")) == 3


def test_a_refused_card_is_not_saved(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    with pytest.raises(Declined):
        save_card(organization, "pm_card_chargeDeclinedExpiredCard")
    with pytest.raises(Invalid):
        save_card(organization, "pm_no_such_token")
    assert queries.methods(session, organization.id) == []
    assert queries.default_method(session, organization.id) is None


def test_the_same_card_twice_is_one_row(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    first = save_card(organization)
    again = save_card(organization, first.provider_payment_method_id)
    assert again.id == first.id
    stranger = make_organization(session)
    with pytest.raises(Invalid):
        save_card(stranger, first.provider_payment_method_id)


def test_another_default(session: Session, charging: ProviderFake) -> None:
    organization, stranger = make_organization(session), make_organization(session)
    first, second = save_card(organization), save_card(organization, "pm_card_mastercard")
    with pytest.raises(NotFound):
        methods.set_default(session, stranger.id, first.id, at=NOW, actor=SYSTEM)
    methods.set_default(session, organization.id, first.id, at=NOW, actor=SYSTEM)
    session.expire_all()
    assert (first.is_default, second.is_default) == (True, False)
    invoice = open_invoice(session, organization)
    assert collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM).payment_method_id == first.id


def test_the_subscription_may_name_the_card(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    first = save_card(organization)
    save_card(organization, "pm_card_mastercard")
    invoice = open_invoice(session, organization)
    subscription = make_subscription(session, organization, make_plan(session))
    subscription.payment_method_id = first.id
    session.flush()
    assert collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM, payment_method_id=first.id).payment_method_id == first.id


def test_the_last_card_of_a_running_subscription_stays(session: Session, charging: ProviderFake, gateway: StripeGateway) -> None:
    organization = make_organization(session)
    first = save_card(organization)
    make_subscription(session, organization, make_plan(session))
    with pytest.raises(Conflict, match="Save another one first"):
        methods.remove(organization.id, first.id, at=NOW, actor=SYSTEM)
    second = save_card(organization, "pm_card_mastercard", make_default=False)
    methods.remove(organization.id, first.id, at=NOW, actor=SYSTEM)
    session.expire_all()
    assert [(found.id, found.is_default) for found in queries.methods(session, organization.id)] == [(second.id, True)]
    assert gateway.retrieve_payment_method(first.provider_payment_method_id).customer is None
    with pytest.raises(NotFound):
        methods.remove(organization.id, first.id, at=NOW, actor=SYSTEM)


def test_a_card_whose_payment_is_on_its_way_stays(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    save_card(organization, "pm_card_mastercard", make_default=False)
    invoice = open_invoice(session, organization)
    charging.mode("charge_then_drop", payment_method=method.provider_payment_method_id, next=1)
    collect.pay(organization.id, invoice.id, at=NOW, actor=SYSTEM, payment_method_id=method.id)
    with pytest.raises(Conflict, match="on its way"):
        methods.remove(organization.id, method.id, at=NOW, actor=SYSTEM)


def test_a_removal_the_provider_did_not_hear_of_is_remembered(session: Session, charging: ProviderFake) -> None:
    organization = make_organization(session)
    method = save_card(organization)
    charging.mode("500", path=f"/v1/payment_methods/{method.provider_payment_method_id}/detach", next=1)
    methods.remove(organization.id, method.id, at=NOW, actor=SYSTEM)
    waiting = (method.id, method.provider_payment_method_id)
    assert reconcile.undetached() == [waiting]
    charging.heal()
    methods.detach(method.id, provider="stripe", token=method.provider_payment_method_id)
    assert reconcile.undetached() == []


def test_a_card_is_saved_on_the_providers_page(session: Session, charging: ProviderFake) -> None:
    organization, stranger = make_organization(session), make_organization(session)
    page = setups.start(
        organization.id, success_url="http://127.0.0.1:9/back?session={SESSION_ID}", cancel_url="http://127.0.0.1:9/back", at=NOW
    )
    session_id = session.get_one(SetupAttempt, page.id).provider_session_id
    assert session_id is not None
    assert setups.complete(session_id, at=NOW, actor=SYSTEM, organization_id=organization.id) is None
    answer = requests.post(page.url, data={"card": "4242424242424242", "name": "Ada L"}, allow_redirects=False, timeout=5)
    assert answer.status_code in (302, 303), answer.text
    with pytest.raises(NotFound):
        setups.complete(session_id, at=NOW, actor=SYSTEM, organization_id=stranger.id)
    method = setups.complete(session_id, at=NOW, actor=SYSTEM, organization_id=organization.id)
    again = setups.complete(session_id, at=NOW, actor=SYSTEM)
    assert method is not None
    assert again is not None
    assert (method.last_four, method.is_default, again.id) == ("4242", True, method.id)
    assert session.scalar(select(func.count()).select_from(PaymentMethod)) == 1
