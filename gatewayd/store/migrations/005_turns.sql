-- Leaves' renewals wait for their turn at the CA, the most urgent first; a credential may wait for a person at the CA.

ALTER TABLE credentials ADD COLUMN deadline INTEGER; -- when the certificate that it is to replace expires

DROP INDEX credentials_unfinished;
CREATE INDEX credentials_unfinished ON credentials (ifnull(next_attempt_at, 0))
WHERE state IN ('wanted', 'keying', 'keyed', 'requesting', 'pending', 'blocked', 'issued', 'accepting');

CREATE INDEX credentials_waiting ON credentials (deadline, ifnull(next_attempt_at, 0))
WHERE deadline IS NOT NULL AND state IN ('keyed', 'requesting', 'pending', 'blocked');
