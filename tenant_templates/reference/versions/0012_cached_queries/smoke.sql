INSERT INTO tb_user (id, email, name) VALUES (tenancy.current_user_id(), 'smoke@example.com', 'Smoke');
SELECT create_post('{"title": "Smoke", "content": "Smoke"}');
SELECT popular_posts('{}');
SELECT popular_posts('{"limit": 1}');
SELECT read_query('{"name": "popular_posts", "parameters": {"limit": 1}}');
SELECT create_project('{"name": "Smoke"}');
SELECT read_page('{"resource": "projects"}');
SELECT read_page('{"resource": "users", "sort": "email", "direction": "desc", "limit": 1}');
SELECT tenancy.read_page('1.users');
