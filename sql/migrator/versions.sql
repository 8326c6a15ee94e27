-- How many homes and tenants of one database are at which version, and how many of the homes owe steps of it. $1 template
-- (null = all).
SELECT h.template, h.isolation, h.version, count(*) AS homes, coalesce(sum(t.tenants), 0)::bigint AS tenants,
       count(o.home_id) AS owing
FROM tenancy.homes AS h
LEFT JOIN (SELECT home_id, count(*) AS tenants FROM tenancy.tenants GROUP BY home_id) AS t ON t.home_id = h.id
LEFT JOIN (SELECT DISTINCT s.home_id FROM tenancy.open_steps AS s) AS o ON o.home_id = h.id
WHERE $1::text IS NULL OR h.template = $1
GROUP BY h.template, h.isolation, h.version
ORDER BY h.template, h.isolation, h.version
