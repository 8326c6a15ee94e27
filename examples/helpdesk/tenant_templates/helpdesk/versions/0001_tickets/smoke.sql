-- Calls everything that this version brought. Run with a tenant's context, and undone afterwards.
INSERT INTO tb_agent (name) VALUES ('Smoke');
INSERT INTO tb_ticket (subject, assignee_id) SELECT 'Smoke', id FROM tb_agent LIMIT 1;
SELECT close_ticket(jsonb_build_object('id', (SELECT id FROM tickets LIMIT 1)));
SELECT close_ticket('{}');
SELECT data FROM tickets;
