"""Credits and wallets: grants, lots and wallets become lots; who pays is core/pricing/credits."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from core.money import round_half_up, to_decimal
from core.periods import Interval, anniversary_anchor
from core.pricing.credits import PRIORITY, Balances, Lot, after_reset, balances, draw, draw_order
from tests.golden.compare import Unsupported
from tests.golden.reading import at, decimal, only

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
EVER = datetime.min.replace(tzinfo=UTC)


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """Balances, order and what each wallet pays."""
    if "wallets" in given:
        return _wallets(given)
    if "lots" in given:
        return _lots(given)
    if "usage" in given:
        return _grants(given)
    if set(given) == {"grants"}:
        lots = [_grant(grant) for grant in given["grants"]]
        return {"order": [lot.id for lot in draw_order(lots)]}
    raise Unsupported(f"no question with {', '.join(sorted(given))}")


def _grant(grant: Mapping[str, Any]) -> Lot:
    only(
        grant,
        "id amount priority effective_at expires_at recurrence created_at opening_balance max_rollover min_rollover deleted_at voided_at",
    )
    lot = Lot(grant["id"], decimal(grant.get("amount", 0)), PRIORITY if grant.get("priority") is None else int(grant["priority"]))
    if grant.get("effective_at"):
        lot = replace(lot, effective_at=at(grant["effective_at"]))
    ends = [at(grant[key]) for key in ("expires_at", "deleted_at", "voided_at") if grant.get(key)]
    if ends:
        lot = replace(lot, expires_at=min(ends))
    if grant.get("created_at"):
        lot = replace(lot, created_at=at(grant["created_at"]))
    if recurrence := grant.get("recurrence"):
        only(recurrence, "interval anchor")
        anchor = at(recurrence["anchor"])
        hung = replace(anniversary_anchor(Interval(recurrence["interval"]), 1, anchor, "UTC"), time=anchor.time())
        lot = replace(lot, recurrence=hung)
    return lot


def _grants(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "grants usage start until reset_at preserve_overage note")
    lots = [_grant(grant) for grant in given["grants"]]
    for event in given["usage"]:
        only(event, "at amount")
    usage = [(at(event["at"]), decimal(event["amount"])) for event in given["usage"]]
    opening = {grant["id"]: decimal(grant["opening_balance"]) for grant in given["grants"] if "opening_balance" in grant}
    until = at(given["until"]) if "until" in given else at(given["reset_at"])
    if "reset_at" in given and "until" in given:
        raise Unsupported("usage after a reset")
    found = balances(lots, usage, opening, start=at(given["start"]), until=until)
    if "reset_at" in given:
        found = _reset(given, found, lots)
    return {"balances": found.left, "overage": found.overage}


def _reset(given: Mapping[str, Any], found: Balances, lots: list[Lot]) -> Balances:
    rollover = {g["id"]: (decimal(g.get("min_rollover") or 0), decimal(g.get("max_rollover") or 0)) for g in given["grants"]}
    return after_reset(found, rollover, keep_overage=bool(given.get("preserve_overage")), lots=lots)


def _lots(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "lots debits reason")
    lots, left = [], {}
    for entry in given["lots"]:
        only(entry, "id amount priority source created")
        created = DAY_0 + timedelta(days=int(str(entry.get("created", "day 0")).removeprefix("day ")))
        purchased = entry.get("source", "granted") == "purchased"
        lots.append(Lot(entry["id"], decimal(entry["amount"]), int(entry.get("priority") or PRIORITY), purchased, created_at=created))
        left[entry["id"]] = decimal(entry["amount"])
    consumed = []
    for debit in given["debits"]:
        drawn = draw(lots, left, decimal(debit))
        left |= {lot_id: left[lot_id] - part for lot_id, part in drawn.taken.items()}
        consumed.append(drawn.taken)
    return {"consumed": consumed, "remaining": left}


def _wallets(given: Mapping[str, Any]) -> dict[str, object]:
    """Each fee, with its tax, is paid by the wallets that may pay it; together no more than the invoice."""
    only(given, "wallets fees invoice_total currency")
    currency = given["currency"]
    wallets = given["wallets"]
    for wallet in wallets:
        only(wallet, "id balance priority fee_types metrics currency")
    left = {wallet["id"]: decimal(wallet["balance"]) for wallet in wallets}
    applied: dict[str, Decimal] = {}
    due = decimal(given["invoice_total"])
    for fee in given["fees"]:
        only(fee, "type metric amount tax")
        amount = to_decimal(round_half_up(decimal(fee["amount"]) + decimal(fee.get("tax", 0)), currency), currency)
        lots = [Lot(w["id"], left[w["id"]], int(w.get("priority", PRIORITY))) for w in wallets if _may_pay(w, fee, currency)]
        for wallet_id, part in draw(lots, left, min(amount, due)).taken.items():
            left[wallet_id] -= part
            due -= part
            applied[wallet_id] = applied.get(wallet_id, Decimal(0)) + part
    return {"applied": applied, "total_applied": sum(applied.values(), Decimal(0)), "remaining": left}


def _may_pay(wallet: Mapping[str, Any], fee: Mapping[str, Any], currency: str) -> bool:
    if wallet.get("currency", currency) != currency:
        return False
    limited = "fee_types" in wallet or "metrics" in wallet
    return not limited or fee["type"] in wallet.get("fee_types", []) or fee.get("metric") in wallet.get("metrics", [])
