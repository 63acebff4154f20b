-- Each key in the token is looked up by its CKA_ID; leaves, whose keys are not here, stay out of the index.
CREATE UNIQUE INDEX credentials_by_key ON credentials (key_id) WHERE key_id IS NOT NULL;
