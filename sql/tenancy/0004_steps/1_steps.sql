-- What a version still owes a home after its transaction: the steps that cannot be part of it. The debt commits with the
-- stamp, and while there is one no later version begins. A step's progress is recorded by whoever holds the home.
--
--   CP001  something is owed, or what is noted is not owed (any more): look again
--   CP002  another session holds the home: come back later
--   CP005  as many indexes are being built in this database as may be: come back later
--   CP006  the tenant is being deleted, which waits for the home: let it go

CREATE TABLE open_steps (
    home_id uuid NOT NULL REFERENCES homes ON UPDATE CASCADE ON DELETE CASCADE,
    version integer NOT NULL,
    step text NOT NULL CHECK (step IN ('concurrent', 'backfill')),
    statement integer NOT NULL DEFAULT 0,  -- how many of the file are done
    rows bigint NOT NULL DEFAULT 0,        -- changed by it so far
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (home_id, version, step)
);

-- Called with the stamp of a version, in the transaction that ends there.
CREATE FUNCTION owe_steps(home uuid, version integer, steps text[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tenancy.open_steps (home_id, version, step) SELECT home, version, unnest(steps)
$$;

CREATE FUNCTION require_steps_done(home uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF EXISTS (SELECT FROM tenancy.open_steps s WHERE s.home_id = home) THEN
        RAISE EXCEPTION 'the home still owes steps of its version' USING ERRCODE = 'CP001';
    END IF;
END
$$;

-- A step can take hours, and who deletes the tenant waits for whoever holds the home.
CREATE FUNCTION require_wanted(home uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM tenancy.tenants t JOIN tenancy.homes h ON h.id = t.home_id
        WHERE h.id = home AND h.isolation <> 'shared' AND t.state = 'deleting'
    ) THEN
        RAISE EXCEPTION 'the tenant is being deleted' USING ERRCODE = 'CP006';
    END IF;
END
$$;

-- For the session, under the key of begin_migration(): a step has many transactions, or none.
CREATE FUNCTION hold_home(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_lock(hashtextextended('tenancy.home:' || home::text, 0)) THEN
        RAISE EXCEPTION 'another migration holds the home' USING ERRCODE = 'CP002';
    END IF;
    PERFORM tenancy.require_wanted(home);
END
$$;

-- For the session: one of two places. A build reads and writes as fast as the disk lets it, and waits for all transactions
-- of its database that began before it: more of them would take from requests what they gain.
CREATE FUNCTION hold_build() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR place IN 1 .. 2 LOOP
        IF pg_try_advisory_lock(hashtextextended('tenancy.build:' || place, 0)) THEN
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'two indexes are being built in this database' USING ERRCODE = 'CP005';
END
$$;

-- `done` statements of the file are done; `changed` rows more than before.
CREATE FUNCTION note_step(home uuid, version integer, step text, done integer, changed bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy.require_wanted(home);
    UPDATE tenancy.open_steps AS s
    SET statement = done, rows = s.rows + changed
    WHERE s.home_id = home AND s.version = note_step.version AND s.step = note_step.step;
    IF NOT found THEN
        RAISE EXCEPTION 'the home does not owe this step' USING ERRCODE = 'CP001';
    END IF;
END
$$;

CREATE FUNCTION finish_step(home uuid, version integer, step text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tenancy.open_steps AS s
    WHERE s.home_id = home AND s.version = finish_step.version AND s.step = finish_step.step;
    IF NOT found THEN
        RAISE EXCEPTION 'the home does not owe this step' USING ERRCODE = 'CP001';
    END IF;
END
$$;
