CREATE OR REPLACE VIEW tickets WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    status,
    assignee_id,
    created_at,
    jsonb_build_object(
        '__typename', 'Ticket',
        'id', id,
        'subject', subject,
        'status', status,
        'assignee_id', assignee_id,
        'created_at', created_at,
        'closed_at', closed_at,
        'priority', priority,
        'due_at', due_at
    ) AS data
FROM tb_ticket;
