-- The keys of the documents of one view, as the present caller sees them: each path with the JSON types of its values.
-- A key is '.key', every element of an array '[]'. {view} is the quoted name of the view.
WITH RECURSIVE part (path, content) AS (
    SELECT '', data FROM {view} WHERE data IS NOT NULL
    UNION ALL
    SELECT part.path || child.step, child.content
    FROM part
    CROSS JOIN LATERAL (
        SELECT '.' || key, value
        FROM jsonb_each(CASE jsonb_typeof(part.content) WHEN 'object' THEN part.content ELSE '{{}}' END)
        UNION ALL
        SELECT '[]', value
        FROM jsonb_array_elements(CASE jsonb_typeof(part.content) WHEN 'array' THEN part.content ELSE '[]' END)
    ) AS child (step, content)
)
SELECT path, array_agg(DISTINCT jsonb_typeof(content)) AS types
FROM part
GROUP BY path
ORDER BY path
