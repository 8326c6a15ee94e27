SELECT create_user('{"email": "smoke@example.com", "name": "Smoke"}');
SELECT create_project('{"name": "Smoke"}');
SELECT data -> 'bio', data -> 'settings', data -> 'avatar_url' FROM v_user;
SELECT description, data FROM v_project;
