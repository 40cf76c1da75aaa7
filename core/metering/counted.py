"""Metrics as those read them that count: columns of a meter, other definitions that are counted beside them, how far the past is."""

from __future__ import annotations

METER_COLUMNS = """m.id, m.number, m.code, m.event_name, m.aggregation, m.property, m.filters, m.group_by, m.expression,
  m.operation_property, m.recurring, m.counted_through, m.late_after_hours, m.earlier"""
"""The columns of `metrics AS m` that `meter` reads."""
COUNTED_METRICS = """(SELECT id, number, code, event_name, aggregation, property, filters, group_by, expression, operation_property,
    recurring, counted_at, counted_through, late_after_hours, earlier FROM metrics
  UNION ALL SELECT r.id, r.number, o.code, r.event_name, r.aggregation, r.property, r.filters, r.group_by, r.expression,
    r.operation_property, r.recurring, r.counted_at, r.counted_through, o.late_after_hours, r.earlier
  FROM metric_revisions r JOIN metrics o ON o.id = r.metric_id WHERE r.status = 'open') AS m"""
"""Metrics as they are counted, with the other definitions that are counted beside them."""
METERS = f"""SELECT {METER_COLUMNS}, m.counted_at, n.number AS event_number
  FROM {COUNTED_METRICS} JOIN usage_event_names n ON n.name = m.event_name"""  # noqa: S608 - constants only
TAKEN_UP = """WITH revision AS (UPDATE metric_revisions SET counted_at = %(at)s, counted_through = %(through)s WHERE id = %(id)s)
  UPDATE metrics SET counted_at = %(at)s, counted_through = %(through)s WHERE id = %(id)s"""
