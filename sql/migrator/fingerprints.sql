-- One hash per home of all that structure.sql, which is put in below, tells of it; equal homes hash equal.
-- $1 the ids of the homes, joined by commas. A home without any schema has no row.
SELECT h.id AS home_id, h.version, encode(sha256(convert_to(
           replace(replace(s.everything, h.schema_name, '<home>'), coalesce(h.tenant_id::text, '<tenant>'), '<tenant>'),
           'UTF8')), 'hex') AS fingerprint
FROM (
    SELECT o.home_id, string_agg(
               concat_ws(' ', o.kind, o.schema, o.relation, o.name, o.aspects, o.owner, o.grants), E'\n'
               ORDER BY o.kind COLLATE "C", o.schema COLLATE "C", o.relation COLLATE "C", o.name COLLATE "C"
           ) AS everything
    FROM ({structure}) AS o
    GROUP BY o.home_id
) AS s
JOIN tenancy.homes AS h ON h.id = s.home_id
