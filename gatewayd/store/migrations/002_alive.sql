-- Which certificates a CRL is to be compared with: answered from the index alone, without a look at the certificates.
CREATE INDEX credentials_alive ON credentials (not_after, device_id, generation, thumbprint)
WHERE certificate IS NOT NULL;

ALTER TABLE revocations ADD COLUMN scope TEXT NOT NULL DEFAULT 'device';
