"""Drafts of plan versions through the API: stored with faults, changed from a revision, published; a second person where one is needed."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from core import config
from tests.api.conftest import Api, plan_body
from tests.factories import make_organization
from tests.people import bearer, make_key

PATH = "/billing/plan-drafts"


def test_a_draft_is_mended_and_published(api: Api, session: Session) -> None:
    wrong = plan_body("autumn", prices=[{"metric": "nothing", "model": "per_unit", "unit_price": 0.5}])
    draft = api.made(PATH, {"document": wrong, "name": "Autumn prices"})
    assert (draft["status"], draft["plan"], draft["revision"]) == ("open", "autumn", 1)
    assert [fault["pointer"] for fault in draft["faults"]] == ["/prices/0/metric"]
    one = f"{PATH}/{draft['id']}"
    refused = api.post(f"{one}/acts", {"act": "publish", "revision": 1})
    assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "/prices/0/metric")
    changed = api.call("PUT", one, {"revision": 1, "document": plan_body("autumn", base_price="12.00")})
    assert (changed.status_code, changed.get_json()["faults"], changed.get_json()["revision"]) == (200, [], 2)
    late = api.call("PUT", one, {"revision": 1, "document": plan_body("autumn")})
    assert (late.status_code, late.get_json()["code"]) == (409, "changed_meanwhile")
    published = api.post(f"{one}/acts", {"act": "publish", "revision": 2}).get_json()
    assert published["status"] == "published"
    assert api.get("/billing/plans/autumn").get_json()["versions"][0]["id"] == published["version"]
    assert api.get(PATH).get_json()["data"] == []
    assert [row["id"] for row in api.get(PATH, every="true", plan="autumn").get_json()["data"]] == [draft["id"]]
    bound = bearer(make_key(session, make_organization(session)))
    assert api.client.get(f"/api/v1{one}", headers=bound).status_code == 403


def test_a_key_does_not_publish_what_it_wrote_where_a_second_person_is_needed(api: Api) -> None:
    before = config.current()
    config.use(replace(before, catalog_second_person=True))
    try:
        assert api.post("/billing/plans", plan_body("direct")).get_json()["code"] == "second_person_needed"
        draft = api.made(PATH, {"document": plan_body("checked")})
        act = f"{PATH}/{draft['id']}/acts"
        assert api.post(act, {"act": "propose", "revision": 1}).get_json()["status"] == "proposed"
        refused = api.post(act, {"act": "publish", "revision": 2})
        assert (refused.status_code, refused.get_json()["code"]) == (403, "second_person_needed")
        assert api.post(act, {"act": "discard", "revision": 2, "note": "Not now"}).get_json()["note"] == "Not now"
    finally:
        config.use(before)
