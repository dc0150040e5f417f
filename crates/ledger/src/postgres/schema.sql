CREATE SCHEMA vmgate;
SET LOCAL search_path = vmgate;

CREATE TABLE format (version bigint NOT NULL);
INSERT INTO format VALUES (1);

CREATE TABLE record (
  sequence bigint PRIMARY KEY,
  at       text COLLATE "C" NOT NULL,
  kind     text NOT NULL,
  run      text,
  vm       text,
  body     text NOT NULL,
  previous text NOT NULL UNIQUE,
  digest   text NOT NULL UNIQUE
);
CREATE INDEX record_kind ON record (kind, sequence);
CREATE INDEX record_run ON record (run, kind) WHERE run IS NOT NULL;
CREATE INDEX record_vm ON record (vm, sequence) WHERE vm IS NOT NULL;

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER record_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record
  FOR EACH STATEMENT EXECUTE FUNCTION refuse();

-- Whoever writes locks it first. It stays empty.
CREATE TABLE turn ();
