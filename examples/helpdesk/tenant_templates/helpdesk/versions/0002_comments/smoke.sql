INSERT INTO tb_ticket (subject) VALUES ('Smoke');
INSERT INTO tb_comment (ticket_id, body) SELECT id, 'Smoke' FROM tb_ticket LIMIT 1;
SELECT data FROM comments;
