-- What there is to know of legacy tables, one row each: $1 = schema, $2 = names (null = every table of the schema).
SELECT c.oid,
       c.relname AS name,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       pg_get_userbyid(c.relowner) AS owner,
       c.relrowsecurity AS row_security,
       c.relispartition AS is_partition,
       c.relkind = 'r' AND c.relhassubclass AS has_children,
       c.reltuples::bigint AS estimate,
       pg_table_size(c.oid) AS bytes,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       pg_has_role(c.relowner, 'USAGE') AS grantable,
       columns.list AS columns,
       indexes.list AS indexes,
       foreign_keys.list AS foreign_keys,
       triggers.list AS triggers
FROM pg_class AS c
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', a.attname,
               'type', format_type(a.atttypid, a.atttypmod),
               'kind', base.typtype,
               'category', base.typcategory,
               -- What a projection can store without leaning on a type of the legacy schema; null = its text.
               'stored', CASE WHEN base.typnamespace = 'pg_catalog'::regnamespace AND base.typtype = 'b'
                              THEN format_type(base.oid, CASE WHEN base.oid = a.atttypid THEN a.atttypmod END) END,
               'base', base.typname,
               'sortable', EXISTS (SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod
                                   WHERE m.amname = 'btree' AND o.opcdefault
                                     AND (o.opcintype = base.oid OR base.typname = 'varchar' AND o.opcintype = 'text'::regtype)),
               'collation', CASE WHEN a.attcollation <> t.typcollation
                                 THEN format('%I.%I', cn.nspname, co.collname) END,
               'not_null', a.attnotnull,
               'has_default', a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
               'writable', a.attgenerated = '' AND a.attidentity <> 'a'
           ) ORDER BY a.attnum), '[]') AS list
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        WITH RECURSIVE chain AS (
            SELECT t.oid, t.typtype, t.typbasetype
            UNION ALL
            SELECT b.oid, b.typtype, b.typbasetype FROM chain JOIN pg_type AS b ON b.oid = chain.typbasetype
            WHERE chain.typtype = 'd'
        )
        SELECT bt.* FROM chain JOIN pg_type AS bt ON bt.oid = chain.oid WHERE chain.typtype <> 'd'
    ) AS base
    LEFT JOIN pg_collation AS co ON co.oid = a.attcollation
    LEFT JOIN pg_namespace AS cn ON cn.oid = co.collnamespace
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS columns
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', ic.relname,
               'primary', i.indisprimary,
               -- Such a one keeps keys apart; another one only helps to find rows.
               'unique', i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,
               'partial', i.indpred IS NOT NULL OR NOT i.indisvalid,
               'columns', (SELECT jsonb_agg(a.attname ORDER BY k.position)
                           FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
                           LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum AND k.attnum > 0
                           WHERE k.position <= i.indnkeyatts)
           ) ORDER BY i.indisprimary DESC, ic.relname), '[]') AS list
    FROM pg_index AS i
    JOIN pg_class AS ic ON ic.oid = i.indexrelid
    WHERE i.indrelid = c.oid
) AS indexes
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', f.conname,
               'target', f.confrelid::regclass::text,
               'columns', (SELECT jsonb_agg(a.attname ORDER BY k.position)
                           FROM unnest(f.conkey) WITH ORDINALITY AS k (attnum, position)
                           JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum)
           ) ORDER BY f.conname), '[]') AS list
    FROM pg_constraint AS f
    WHERE f.conrelid = c.oid AND f.contype = 'f'
) AS foreign_keys
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(tg.tgname ORDER BY tg.tgname), '[]') AS list
    FROM pg_trigger AS tg
    WHERE tg.tgrelid = c.oid AND NOT tg.tgisinternal
) AS triggers
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (c.relname = ANY ($2::text[]) OR $2 IS NULL AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
ORDER BY c.relname
