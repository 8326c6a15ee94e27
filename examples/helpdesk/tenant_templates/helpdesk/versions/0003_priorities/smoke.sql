INSERT INTO tb_ticket (subject, priority, due_at) VALUES ('Smoke', 'high', now());
SELECT data FROM tickets;
