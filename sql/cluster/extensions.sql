-- Which of the extensions $1 cannot be used in this database: {name, problem, fix}.
SELECT wanted.name, fault.problem, fault.fix
FROM unnest($1::text[]) AS wanted (name)
LEFT JOIN pg_extension e ON e.extname = wanted.name
LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
LEFT JOIN pg_available_extensions a ON a.name = wanted.name
LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
CROSS JOIN LATERAL (VALUES
    (n.nspname <> 'extensions',
     format('stands in the schema %s of the database %s, where templates do not find it',
            n.nspname, current_database()),
     format('as a superuser: ALTER EXTENSION %1$I SET SCHEMA extensions; or, while nothing uses it: DROP EXTENSION %1$I',
            wanted.name)),
    (e.oid IS NULL AND a.name IS NULL,
     'is not available on the server',
     format('install the package that brings %s (on Debian postgresql-contrib), or allow it on a managed server',
            wanted.name)),
    (e.oid IS NULL AND v.superuser AND NOT v.trusted
         AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
     format('can only be installed by a superuser, and is not there in the database %s', current_database()),
     format('as a superuser, in that database: CREATE EXTENSION %I SCHEMA extensions', wanted.name))
) AS fault (found, problem, fix)
WHERE fault.found
ORDER BY wanted.name
