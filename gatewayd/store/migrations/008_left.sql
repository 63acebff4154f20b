-- How much of the life of the certificates in use is left: read from the index alone, at every scrape of the metrics.
CREATE INDEX credentials_left ON credentials (not_after, not_before, state) WHERE state = 'current';
