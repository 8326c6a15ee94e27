-- What this transaction holds, and has done so far, to relations. $1 their oids: those that it has dropped are among them.
-- `mode` is the strongest lock by PostgreSQL's numbers, if it is one of a schema change; `file` is null once it is gone.
SELECT r.oid, max(l.mode) AS mode, c.relfilenode AS file, pg_stat_get_xact_numscans(r.oid) AS scans
FROM unnest($1::oid[]) AS r (oid)
LEFT JOIN pg_class AS c ON c.oid = r.oid
LEFT JOIN LATERAL (
    SELECT array_position(ARRAY['ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                                'AccessExclusiveLock'], mode) + 3 AS mode
    FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = r.oid AND granted
) AS l ON true
GROUP BY r.oid, c.relfilenode
