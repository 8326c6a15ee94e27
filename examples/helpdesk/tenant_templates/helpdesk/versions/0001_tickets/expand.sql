-- Agents answer tickets. Every key is led by tenant_id, so that no constraint can tell one customer of another's rows.

CREATE TABLE tb_agent (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_agent');

CREATE TABLE tb_ticket (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    assignee_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, assignee_id) REFERENCES tb_agent (tenant_id, id)
);
CREATE INDEX tb_ticket_created_at ON tb_ticket (tenant_id, created_at, id);
CREATE INDEX tb_ticket_assignee_id ON tb_ticket (tenant_id, assignee_id);
SELECT tenancy.protect_table('tb_ticket');

-- Closing is a rule and not just a column: the application calls this, and so does the function of the API.
CREATE FUNCTION fn_close_ticket(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid", "required": true}}');
    found_status text;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT t.status INTO found_status
    FROM tb_ticket AS t
    WHERE t.tenant_id = tenancy.current_tenant_id() AND t.id = (input ->> 'id')::uuid
    FOR UPDATE;
    IF found_status IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such ticket.');
    ELSIF found_status = 'closed' THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The ticket is closed.');
    END IF;

    UPDATE tb_ticket SET status = 'closed', closed_at = now()
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid;
    RETURN tenancy.mutation_result(true, 'updated', 'The ticket was closed.', jsonb_build_object('id', input -> 'id'));
END
$$;
