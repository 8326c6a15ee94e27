-- What homes of one installation a server holds: $1 = the prefix of its role names (cp_<8 hex>).
-- A home's database bears no installation: it is ours by its role, or because no other installation is here.
WITH ours AS (
    SELECT substr(rolname, length($1) + 2) AS name
    FROM pg_roles
    WHERE rolname ~ ('^' || $1 || '_t_[0-9a-f]{12}$')
),
alone AS (
    SELECT count(*) FILTER (WHERE datname <> $1 || '_tenants') = 0 AS answer
    FROM pg_database
    WHERE datname ~ '^cp_[0-9a-f]{8}_tenants$'
)
SELECT 'role' AS kind, $1 || '_' || name AS name
FROM ours
UNION ALL
SELECT 'database', datname
FROM pg_database, alone
WHERE datname ~ '^t_[0-9a-f]{12}$'
  AND pg_get_userbyid(datdba) = 'cp_owner'
  AND (alone.answer OR datname IN (SELECT name FROM ours))
ORDER BY kind, name
