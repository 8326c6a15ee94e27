-- How far a statement of concurrent.sql is in a home. $1 its kind, $2 the quoted and qualified name of what it is about, $3 of
-- the partition, or the label of an enum. `done` is null where nobody can tell; `pending`: a partition is half detached;
-- `left` are invalid indexes that an interrupted attempt has left, as a JSON list of names for DROP INDEX.
WITH subject AS (
    SELECT coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = to_regclass($2::text)), to_regclass($2::text)) AS table_oid
),
part AS (
    SELECT inhdetachpending
    FROM pg_inherits
    WHERE $1::text IN ('detach', 'finalize') AND inhparent = to_regclass($2) AND inhrelid = to_regclass($3::text)
)
SELECT CASE $1
           WHEN 'build' THEN coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($2)), false)
           WHEN 'drop' THEN to_regclass($2) IS NULL
           WHEN 'label' THEN EXISTS (SELECT FROM pg_enum WHERE enumtypid = to_regtype($2) AND enumlabel = $3)
           WHEN 'detach' THEN NOT EXISTS (SELECT FROM part)
           WHEN 'finalize' THEN NOT EXISTS (SELECT FROM part WHERE inhdetachpending)
       END AS done,
       EXISTS (SELECT FROM part WHERE inhdetachpending) AS pending,
       (SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]')::text
        FROM subject, pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE NOT i.indisvalid
          AND CASE $1
                  WHEN 'build' THEN i.indexrelid = to_regclass($2)
                  WHEN 'rebuild' THEN c.relname ~ '_cc(new|old)[0-9]*$'
                      AND (i.indrelid = table_oid OR i.indrelid IN (SELECT relid FROM pg_partition_tree(table_oid)))
                  ELSE false
              END) AS left
