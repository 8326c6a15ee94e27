-- API version 1. Its keys stay as they are for as long as it is served; what comes later goes to the end, or into
-- api_v2.sql.

CREATE VIEW notes WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    title,
    created_at,
    jsonb_build_object(
        '__typename', 'Note',
        'id', id,
        'title', title,
        'created_at', created_at
    ) AS data
FROM tb_note;

-- Answers {success, code, message, data, errors}; with_document() puts the note, as the view shows it, into `data`.
CREATE FUNCTION create_note(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "title": {"type": "string", "required": true, "min": 1, "max": 200}
    }');
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    INSERT INTO tb_note (title) VALUES (input ->> 'title') RETURNING id INTO new_id;
    RETURN tenancy.with_document(
        tenancy.mutation_result(true, 'created', 'The note was created.', jsonb_build_object('id', new_id)),
        'note', 'notes');
END
$$;
