CREATE FUNCTION read_page(input jsonb) RETURNS jsonb
STABLE
RETURN fn_read_page(2, input);
