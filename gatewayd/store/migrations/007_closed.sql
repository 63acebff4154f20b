-- The latest revocations that are closed, for status: found without a look at all of them.
CREATE INDEX revocations_closed ON revocations (known_at) WHERE closed = 1;
