-- Format 2: a record is appended by a function, which stamps what a writer must not choose: role, time, number and digest.
-- Run again by every `vmgate ledger init`.

-- The text at a path of a JSON document; none where something else is there.
CREATE OR REPLACE FUNCTION vmgate.text_at(document jsonb, VARIADIC path text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ SELECT CASE jsonb_typeof(document #> path) WHEN 'string' THEN document #>> path END $$;

-- Appends an entry. `head` is the number of the newest record that the writer has decided on: if there is a newer one, nothing
-- is written and `sequence` is NULL; without `head` the entry follows whatever is there. Called again with the same `token`, it
-- answers with the record that it wrote.
--
-- The lock of `turn` lasts until the end of the transaction. So that no caller decides when that is, the call must be the whole
-- of a simple query, which PostgreSQL commits without waiting for the client; the answer is small for the same reason.
CREATE OR REPLACE FUNCTION vmgate.append(
  entry text, token text, head bigint,
  OUT sequence bigint, OUT at text, OUT role text, OUT previous text, OUT digest text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '8s'
SET client_min_messages = 'error'
-- The caller's settings do not choose a plan that holds the lock for longer.
SET enable_seqscan = off SET enable_indexscan = on SET random_page_cost = 4 SET cpu_index_tuple_cost = 0.005 SET jit = off AS
$$
DECLARE
  content jsonb;
  body text;
  newest bigint;
BEGIN
  IF current_query() IS DISTINCT FROM
      format('SELECT * FROM vmgate.append(%L, %L, %s)', entry, token, coalesce(head::text, 'NULL'))
      OR statement_timestamp() IS DISTINCT FROM transaction_timestamp()
      OR current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'vmgate.append must be called by a statement of its own, as vmgate does: a transaction that goes on would keep all others from writing'
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  content := entry::jsonb;
  IF (left(entry, 1) = '{' AND octet_length(entry) <= 64 * 1024 * 1024 AND token ~ '^[0-9a-f]{32}$'
      AND vmgate.text_at(content, 'kind') <> '' AND NOT content ? 'role') IS NOT TRUE THEN
    RAISE EXCEPTION 'this is no entry of the ledger' USING ERRCODE = 'invalid_parameter_value';
  END IF;

  LOCK TABLE vmgate.turn IN EXCLUSIVE MODE;
  SELECT r.sequence, r.at, vmgate.text_at(r.body::jsonb, 'role'), r.previous, r.digest
    INTO sequence, at, role, previous, digest FROM vmgate.record r WHERE r.token = append.token;
  IF FOUND THEN
    RETURN;
  END IF;
  SELECT r.sequence, r.digest INTO newest, previous FROM vmgate.record r ORDER BY r.sequence DESC LIMIT 1;
  newest := coalesce(newest, 0);
  IF head <> newest THEN
    RETURN;
  END IF;
  sequence := newest + 1;
  previous := coalesce(previous, repeat('0', 64));
  -- As vmgate writes times: without zeros at the end of the fraction.
  at := to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US');
  at := rtrim(rtrim(at, '0'), '.') || 'Z';
  role := session_user;
  body := '{"role":' || to_json(role) || ',' || substr(entry, 2);
  digest := encode(sha256(convert_to(concat_ws(E'\n', previous, sequence, at, body), 'UTF8')), 'hex');
  INSERT INTO vmgate.record (sequence, at, kind, run, vm, body, previous, digest, token) VALUES (
    sequence, at, vmgate.text_at(content, 'kind'),
    CASE vmgate.text_at(content, 'kind')
      WHEN 'campaign' THEN vmgate.text_at(content, 'campaign')
      WHEN 'expulsion' THEN vmgate.text_at(content, 'runner')
      ELSE vmgate.text_at(content, 'run') END,
    CASE jsonb_typeof(content -> 'vm')
      WHEN 'string' THEN vmgate.text_at(content, 'vm')
      WHEN 'object' THEN vmgate.text_at(content, 'vm', 'uuid')
      ELSE vmgate.text_at(content, 'move', 'vm', 'uuid') END,
    body, previous, digest, token);
END
$$;

REVOKE ALL ON FUNCTION vmgate.append(text, text, bigint) FROM PUBLIC;

-- Whoever could write to the tables may call the function instead, and only read them: no lock but that of a reader.
DO $$
DECLARE
  grantee record;
BEGIN
  FOR grantee IN
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS name,
           bool_or(c.relname = 'record' AND a.privilege_type = 'INSERT') AS writes
      FROM pg_class c
      LEFT JOIN pg_attribute t ON t.attrelid = c.oid
      CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL SELECT * FROM aclexplode(t.attacl)) a
      WHERE c.relnamespace = 'vmgate'::regnamespace AND c.relkind = 'r'
        AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
      GROUP BY a.grantee
  LOOP
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON ALL TABLES IN SCHEMA vmgate FROM %s CASCADE',
      grantee.name);
    IF grantee.writes THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION vmgate.append(text, text, bigint) TO %s', grantee.name);
    END IF;
  END LOOP;
END
$$;
