-- How hard a server is at work, for the pace of a migration; as far as the asking role may see.
-- The events are those that all sessions share: the lock table and the queue of invalidations. Waiting for a lock
-- of a migration is what tenants notice first; pg_blocking_pids() is asked only of sessions that do wait.
WITH migrations AS MATERIALIZED (
    SELECT array_agg(pid) AS pids FROM pg_stat_activity WHERE application_name LIKE 'control-plane migrate%'
)
SELECT count(*) FILTER (WHERE state = 'active') AS busy,
       count(*) FILTER (
           WHERE state = 'active'
             AND wait_event IN ('LockManager', 'SInvalRead', 'SInvalWrite')
       ) AS crowded,
       count(*) FILTER (
           WHERE wait_event_type = 'Lock' AND pid <> ALL (m.pids) AND pg_blocking_pids(pid) && m.pids
       ) AS blocked
FROM pg_stat_activity, migrations AS m
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
