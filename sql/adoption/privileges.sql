-- What a role was granted to write to a table, on the table and on its columns: $1 = table, $2 = role.
-- An owner whose rights nobody ever touched has them by default, which is why the default stands in.
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'column', given.attname,
           'privilege', acl.privilege_type,
           'grantable', acl.is_grantable,
           'grantor', pg_get_userbyid(acl.grantor)
       ) ORDER BY given.attname NULLS FIRST, acl.privilege_type, acl.grantor), '[]')
FROM (
    SELECT NULL::name AS attname, coalesce(relacl, acldefault('r', relowner)) AS acl
    FROM pg_class WHERE oid = $1::text::regclass
    UNION ALL
    SELECT attname, attacl FROM pg_attribute WHERE attrelid = $1::text::regclass AND attacl IS NOT NULL
) AS given
CROSS JOIN LATERAL aclexplode(given.acl) AS acl
WHERE acl.grantee = $2::text::regrole AND acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
