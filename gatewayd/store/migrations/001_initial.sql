-- Times are whole microseconds since 1970 UTC. Names, states and hashes are the text of core.model.

CREATE TABLE devices (
  device_id  TEXT PRIMARY KEY,
  kind       TEXT NOT NULL,
  state      TEXT NOT NULL,
  sans       TEXT NOT NULL,     -- JSON list of "kind:value": always read and written with the device, never searched
  created_at INTEGER NOT NULL,
  current    INTEGER,           -- the one pointer that a switch flips
  in_hub     INTEGER NOT NULL,
  revocation_reason TEXT,       -- CRLReason by its name; there once state is revoked
  FOREIGN KEY (device_id, current) REFERENCES credentials (device_id, generation)
) STRICT;

CREATE TRIGGER devices_revoked_is_final BEFORE UPDATE ON devices
WHEN OLD.state = 'revoked' AND NEW.state <> 'revoked'
BEGIN SELECT RAISE(ABORT, 'the revocation of a device is never undone'); END;

-- All leaves of one CA share one chain: kept once, by its hash, 100,000 certificates do not carry it along.
CREATE TABLE chains (
  sha256       TEXT PRIMARY KEY,
  certificates TEXT NOT NULL    -- JSON list of base64 DER, issuer first
) STRICT;

CREATE TABLE credentials (
  device_id         TEXT NOT NULL REFERENCES devices,
  generation        INTEGER NOT NULL CHECK (generation > 0),
  state             TEXT NOT NULL,
  created_at        INTEGER NOT NULL,
  updated_at        INTEGER NOT NULL,
  key_id            BLOB,
  key_algorithm     TEXT,
  csr               BLOB,
  public_key_sha256 TEXT,
  certificate       BLOB,
  chain             TEXT REFERENCES chains,
  serial            TEXT,
  thumbprint        TEXT,
  not_before        INTEGER,
  not_after         INTEGER,
  renew_at          INTEGER,
  attempts          INTEGER NOT NULL,
  next_attempt_at   INTEGER,
  last_error        TEXT,
  PRIMARY KEY (device_id, generation),
  CHECK ((key_id IS NULL) = (key_algorithm IS NULL))
) STRICT;

-- What the daemon asks for on every wake costs the same however many records lie beside: the indexes hold only the
-- rows in question. The list of states is lifecycle.UNFINISHED; a change there needs a migration here.
CREATE INDEX credentials_due ON credentials (renew_at) WHERE state = 'current' AND renew_at IS NOT NULL;
CREATE INDEX credentials_unfinished ON credentials (ifnull(next_attempt_at, 0))
WHERE state IN ('wanted', 'keying', 'keyed', 'requesting', 'pending', 'issued', 'accepting');
CREATE INDEX credentials_by_state ON credentials (state);
CREATE INDEX credentials_by_thumbprint ON credentials (thumbprint) WHERE thumbprint IS NOT NULL;
CREATE UNIQUE INDEX credentials_one_is_current ON credentials (device_id) WHERE state = 'current';

CREATE TRIGGER credentials_are_never_deleted BEFORE DELETE ON credentials
BEGIN SELECT RAISE(ABORT, 'a generation is never deleted, so that its number is not used again'); END;

CREATE TRIGGER credentials_certificate_is_final BEFORE UPDATE ON credentials
WHEN OLD.certificate IS NOT NULL AND NEW.certificate IS NOT OLD.certificate
BEGIN SELECT RAISE(ABORT, 'the certificate of a generation is never overwritten'); END;

-- A collected key may be forgotten (NULL), but no other may take its place.
CREATE TRIGGER credentials_key_is_final BEFORE UPDATE ON credentials
WHEN NEW.key_id <> OLD.key_id
BEGIN SELECT RAISE(ABORT, 'the key of a generation is never overwritten'); END;

CREATE TRIGGER credentials_revoked_is_final BEFORE UPDATE ON credentials
WHEN OLD.state = 'revoked' AND NEW.state <> 'revoked'
BEGIN SELECT RAISE(ABORT, 'the revocation of a credential is never undone'); END;

CREATE TABLE enrollment_codes (
  code_hash  TEXT PRIMARY KEY,
  device_id  TEXT NOT NULL REFERENCES devices,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  used_by    TEXT
) STRICT;

CREATE INDEX enrollment_codes_by_device ON enrollment_codes (device_id);
CREATE INDEX enrollment_codes_by_expiry ON enrollment_codes (expires_at);

CREATE TABLE revocations (
  device_id TEXT NOT NULL REFERENCES devices,
  serial    TEXT NOT NULL,
  reason    TEXT NOT NULL,
  origin    TEXT NOT NULL,
  known_at  INTEGER NOT NULL,
  closed    INTEGER NOT NULL,   -- what revocation.is_closed says of the milestones
  PRIMARY KEY (device_id, serial)
) STRICT;

CREATE INDEX revocations_open ON revocations (known_at) WHERE closed = 0;

CREATE TABLE revocation_milestones (
  device_id       TEXT NOT NULL,
  serial          TEXT NOT NULL,
  milestone       TEXT NOT NULL,
  done_at         INTEGER,
  attempts        INTEGER NOT NULL,
  next_attempt_at INTEGER,
  last_error      TEXT,
  evidence        TEXT,
  PRIMARY KEY (device_id, serial, milestone),
  FOREIGN KEY (device_id, serial) REFERENCES revocations
) STRICT, WITHOUT ROWID;

CREATE TRIGGER revocation_milestones_done_is_final BEFORE UPDATE ON revocation_milestones
WHEN OLD.done_at IS NOT NULL AND NEW.done_at IS NULL
BEGIN SELECT RAISE(ABORT, 'a milestone once done stays done'); END;

CREATE TRIGGER revocation_milestones_done_stays BEFORE DELETE ON revocation_milestones
WHEN OLD.done_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a milestone once done stays done'); END;

CREATE TABLE outbox (
  seq             INTEGER PRIMARY KEY AUTOINCREMENT,
  key             TEXT NOT NULL UNIQUE,
  kind            TEXT NOT NULL,
  payload         TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  attempts        INTEGER NOT NULL,
  next_attempt_at INTEGER,
  last_error      TEXT,
  sent_at         INTEGER
) STRICT;

CREATE INDEX outbox_unsent ON outbox (created_at, seq) WHERE sent_at IS NULL;

CREATE TABLE journal (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  at        INTEGER NOT NULL,
  device_id TEXT,               -- no reference: also a stranger's attempt is history
  who       TEXT NOT NULL,
  what      TEXT NOT NULL,
  outcome   TEXT NOT NULL,
  detail    TEXT NOT NULL
) STRICT;

CREATE INDEX journal_by_device ON journal (device_id, seq);

CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_is_never_deleted BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TABLE settings (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
