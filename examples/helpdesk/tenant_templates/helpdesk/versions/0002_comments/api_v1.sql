CREATE VIEW comments WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    ticket_id,
    created_at,
    jsonb_build_object(
        '__typename', 'Comment',
        'id', id,
        'ticket_id', ticket_id,
        'body', body,
        'author_id', author_id,
        'created_at', created_at
    ) AS data
FROM tb_comment;
