CREATE FUNCTION read_query(input jsonb) RETURNS jsonb
RETURN fn_read_query(input);

CREATE FUNCTION popular_posts(input jsonb) RETURNS jsonb
RETURN fn_read_query(jsonb_build_object('name', 'popular_posts', 'parameters', input));

CREATE FUNCTION read_page(input jsonb) RETURNS jsonb
STABLE
RETURN fn_read_page(2, input);
