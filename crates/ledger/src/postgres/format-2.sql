-- From format 1 to format 2: the token by which a record is known whose commit was not confirmed.
ALTER TABLE vmgate.record ADD COLUMN token text;
CREATE UNIQUE INDEX record_token ON vmgate.record (token) WHERE token IS NOT NULL;
UPDATE vmgate.format SET version = 2;
