SELECT create_user('{"email": "smoke@example.com", "name": "Smoke"}');
SELECT create_project(jsonb_build_object('name', 'Smoke', 'owner_id', (SELECT id FROM users LIMIT 1)));
SELECT rename_project(jsonb_build_object('id', (SELECT id FROM projects LIMIT 1), 'name', 'Smoke again'));
SELECT data FROM users;
SELECT data FROM projects;
SELECT data -> 'name', data -> 'username' FROM v_user;
