-- The journal becomes a chain (core.audit): each record carries the hash of the one before. What is there is chained by
-- migrations.__init__ before this is committed; a hash once there is as final as the rest.
ALTER TABLE journal ADD COLUMN hash BLOB NOT NULL DEFAULT x'';

DROP TRIGGER journal_is_never_changed;
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal WHEN OLD.hash <> x''
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_is_chained BEFORE INSERT ON journal WHEN length(NEW.hash) <> 32
BEGIN SELECT RAISE(ABORT, 'a record of the journal carries its hash'); END;

CREATE TABLE audit_heads (
  seq         INTEGER PRIMARY KEY,   -- of the journal
  device_id   TEXT NOT NULL,
  hash        BLOB NOT NULL,
  at          INTEGER NOT NULL,
  certificate BLOB NOT NULL,
  signature   BLOB NOT NULL
) STRICT;

CREATE TRIGGER audit_heads_are_never_changed BEFORE UPDATE ON audit_heads
BEGIN SELECT RAISE(ABORT, 'a signed head is final'); END;

CREATE TRIGGER audit_heads_are_never_deleted BEFORE DELETE ON audit_heads
BEGIN SELECT RAISE(ABORT, 'a signed head is final'); END;
