-- What the tenant API serves beside the application: GET /api/v1/tickets, POST /api/v1/rpc/close_ticket.

CREATE VIEW tickets WITH (security_invoker = true) AS
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
        'closed_at', closed_at
    ) AS data
FROM tb_ticket;

CREATE FUNCTION close_ticket(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_close_ticket(input), 'ticket', 'tickets');
