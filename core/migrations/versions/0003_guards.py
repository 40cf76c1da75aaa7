"""Guards the application cannot talk its way around: balanced books, append-only facts, frozen invoices.

Errors: VV001 unbalanced ledger transaction, VV002 append-only table, VV003 finalized invoice changed, VV004 finalized invoice deleted,
VV005 posting in another currency than its account, VV006 invoice moved to a status it cannot reach.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("postings", "ledger_transactions", "audit_events", "audit_seals", "invoice_documents", "credit_applications")
NEVER_EMPTIED = (*APPEND_ONLY, "invoices", "invoice_lines", "invoice_taxes", "account_credits", "number_series")
LIVES_ON = (
    "status", "amount_paid_minor", "amount_due_minor", "paid_at", "voided_at", "payment_method_id", "next_collect_at", "collect_attempts",
    "reviewed_by", "metadata", "updated_at",
)  # fmt: skip
"""What may change on a finalized invoice; every other column, also one added later, is its content."""
PART_EVENTS = (("insert", "INSERT", "NEW"), ("update_into", "UPDATE", "NEW"), ("update_out", "UPDATE", "OLD"), ("delete", "DELETE", "OLD"))

BALANCE = """
CREATE FUNCTION postings_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE wrong record;
BEGIN
  SELECT ledger_transaction_id, currency, sum(amount_minor) AS total INTO wrong
    FROM written GROUP BY ledger_transaction_id, currency HAVING sum(amount_minor) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'ledger transaction % does not balance: its % postings sum to %', wrong.ledger_transaction_id, wrong.currency, wrong.total
      USING ERRCODE = 'VV001';
  END IF;
  SELECT written.id, written.currency, account.currency AS expected INTO wrong
    FROM written JOIN ledger_accounts account ON account.id = written.ledger_account_id AND account.currency <> written.currency LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'posting % is in %, its account in %', wrong.id, wrong.currency, wrong.expected USING ERRCODE = 'VV005';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER postings_balance AFTER INSERT ON postings REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION postings_balance();
"""

REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: rows are only ever added', TG_OP, TG_TABLE_NAME USING ERRCODE = 'VV002';
END $$;
"""

INVOICES = """
CREATE FUNCTION invoices_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.status <> 'draft' THEN
      RAISE EXCEPTION 'invoice % is finalized and cannot be deleted', OLD.invoice_number USING ERRCODE = 'VV004';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.status = 'draft' THEN
    RETURN NEW;
  END IF;
  IF NEW.status <> OLD.status AND (OLD.status = 'void' OR NEW.status = 'draft' OR (OLD.status, NEW.status) = ('paid', 'void')) THEN
    RAISE EXCEPTION 'invoice % cannot go from % to %', OLD.invoice_number, OLD.status, NEW.status USING ERRCODE = 'VV006';
  END IF;
  IF to_jsonb(OLD) - {lives_on} IS DISTINCT FROM to_jsonb(NEW) - {lives_on} THEN
    RAISE EXCEPTION 'invoice % is finalized: its content cannot change', OLD.invoice_number USING ERRCODE = 'VV003';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoices_frozen BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION invoices_frozen();
"""

PARTS = """
CREATE FUNCTION invoice_parts_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE frozen text;
BEGIN
  SELECT invoices.invoice_number INTO frozen FROM touched JOIN invoices ON invoices.id = touched.invoice_id WHERE invoices.status <> 'draft' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'invoice % is finalized: its % cannot change', frozen, TG_TABLE_NAME USING ERRCODE = 'VV003';
  END IF;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute(BALANCE)
    op.execute(REFUSE)
    for table in APPEND_ONLY:
        op.execute(f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()")
    for table in NEVER_EMPTIED:
        op.execute(f"CREATE TRIGGER {table}_never_emptied BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()")
    names = ", ".join(f"'{column}'" for column in LIVES_ON)
    op.execute(INVOICES.format(lives_on=f"ARRAY[{names}]"))
    op.execute(PARTS)
    for table in ("invoice_lines", "invoice_taxes"):
        for name, event, seen in PART_EVENTS:
            op.execute(
                f"CREATE TRIGGER {table}_frozen_{name} AFTER {event} ON {table} REFERENCING {seen} TABLE AS touched "
                "FOR EACH STATEMENT EXECUTE FUNCTION invoice_parts_frozen()"
            )


def downgrade() -> None:
    for table in ("invoice_lines", "invoice_taxes"):
        for name, _, _ in PART_EVENTS:
            op.execute(f"DROP TRIGGER {table}_frozen_{name} ON {table}")
    op.execute("DROP TRIGGER invoices_frozen ON invoices")
    for table in NEVER_EMPTIED:
        op.execute(f"DROP TRIGGER {table}_never_emptied ON {table}")
    for table in APPEND_ONLY:
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
    op.execute("DROP TRIGGER postings_balance ON postings")
    op.execute("DROP FUNCTION postings_balance, refuse_change, invoices_frozen, invoice_parts_frozen")
