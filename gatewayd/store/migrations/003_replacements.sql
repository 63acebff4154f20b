-- Hardware swaps. Which states are ends is core.replacement.FINAL; a change there needs a migration here.
CREATE TABLE replacements (
  device_id       TEXT NOT NULL REFERENCES devices,
  number          INTEGER NOT NULL CHECK (number > 0),
  state           TEXT NOT NULL,
  reason          TEXT NOT NULL,
  origin          TEXT NOT NULL,
  last_old        INTEGER NOT NULL,
  started_at      INTEGER NOT NULL,
  shut_at         INTEGER,
  certificate_at  INTEGER,
  pinned_at       INTEGER,
  lift_at         INTEGER,
  ended_at        INTEGER,
  attempts        INTEGER NOT NULL,
  next_attempt_at INTEGER,
  last_error      TEXT,
  PRIMARY KEY (device_id, number)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX replacements_one_is_open ON replacements (device_id)
WHERE state NOT IN ('lifted', 'cancelled', 'overtaken');

CREATE TRIGGER replacements_end_is_final BEFORE UPDATE ON replacements
WHEN OLD.state IN ('lifted', 'cancelled', 'overtaken') AND NEW.state <> OLD.state
BEGIN SELECT RAISE(ABORT, 'a replacement that has ended stays so'); END;

-- A revoked device becomes active again only by way of a replacement, whose pin keeps the revoked certificates out.
DROP TRIGGER devices_revoked_is_final;

CREATE TRIGGER devices_revoked_gives_way_to_new_hardware_only BEFORE UPDATE ON devices
WHEN OLD.state = 'revoked' AND NEW.state NOT IN ('revoked', 'replacing')
BEGIN SELECT RAISE(ABORT, 'the revocation of a device is never undone'); END;

CREATE TRIGGER devices_replacing_ends_with_a_pin BEFORE UPDATE ON devices
WHEN OLD.state = 'replacing' AND NEW.state = 'active'
  AND NOT EXISTS (SELECT 1 FROM replacements WHERE device_id = NEW.device_id AND state = 'pinned')
BEGIN SELECT RAISE(ABORT, 'a device is not active again before its id is pinned to the new certificate'); END;
